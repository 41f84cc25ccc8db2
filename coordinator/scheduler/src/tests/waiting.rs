//! Waiting for an absent worker, and what waiting actions are told.

use super::*;

const MINUTE: Millis = 60_000;

fn worker(name: &str) -> WorkerId {
    WorkerId(name.into())
}

/// A request for this, for the waiter and the key with this number.
fn asks(number: u64, pairs: &[(&str, &str)]) -> Event {
    let requirements = Requirements { properties: properties(pairs), ..submission(number).requirements };
    Event::Submit(Submission { requirements, ..submission(number) })
}

fn key(number: u64) -> ActionKey {
    ActionKey(format!("a{number}").into())
}

fn failure(effects: &[Effect]) -> &Failure {
    match effects {
        [Effect::Failed { failure, .. }] => failure,
        other => panic!("expected one action to be given up, found {other:?}"),
    }
}

#[test]
fn a_worker_that_restarts_in_a_pool_of_one_fails_nothing_however_it_stopped() {
    for (in_order, restarts) in [(true, 10), (false, 2)] {
        let mut farm = farm(&[("w", 1000)]);
        let mut now = 0;
        farm.step(now, Event::Submit(submission(1)));
        farm.step(now, Event::Submit(submission(2)));
        for _ in 0..restarts {
            let mut effects = match in_order {
                true => farm.step(now, Event::WorkerGone(worker("w"))),
                false => farm.step(now, Event::WorkerDisconnected(worker("w"))),
            };
            now += 5 * MINUTE;
            effects.extend(farm.step(now, Event::Tick));
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::Failed { .. })), "{effects:?}");
            assert_eq!(assigned(&farm.step(now, Event::WorkerJoined(offer("w", 1000)))).len(), 1);
        }
    }
}

#[test]
fn what_a_worker_that_left_could_run_waits_for_it_and_is_given_up_after_its_patience() {
    let mut farm = farm(&[("w", 1000)]);
    farm.step(MINUTE, Event::WorkerGone(worker("w")));
    assert_eq!(farm.step(2 * MINUTE, Event::Submit(submission(1))), []);
    let Some(Wait::Worker { reasons, left }) = farm.wait_of(&key(1)) else { panic!("expected it to wait") };
    assert_eq!((reasons, left), (vec!["worker `w` left 1 min ago".to_owned()], 15 * MINUTE));
    let impatient = Submission { wait_limit: Some(MINUTE), ..submission(2) };
    farm.step(3 * MINUTE, Event::Submit(impatient));
    assert_eq!(farm.next_deadline(), Some(4 * MINUTE));
    let effects = farm.step(4 * MINUTE, Event::Tick);
    assert!(matches!(failure(&effects), Failure::QueueTimeout { waited: MINUTE, .. }), "{effects:?}");
    assert_eq!(farm.next_deadline(), Some(17 * MINUTE));
    let effects = farm.step(17 * MINUTE, Event::Tick);
    assert!(matches!(failure(&effects), Failure::QueueTimeout { waited, .. } if *waited == 15 * MINUTE), "{effects:?}");
}

#[test]
fn what_no_worker_had_for_an_hour_is_refused_at_once_and_what_one_had_is_not() {
    let mut farm = farm(&[("x86", 1000)]);
    let mut arm = offer("arm", 1000);
    arm.properties = properties(&[("ISA", "arm-a64")]);
    farm.step(0, Event::WorkerJoined(arm));
    farm.step(0, Event::WorkerGone(worker("arm")));
    assert_eq!(farm.step(59 * MINUTE, asks(1, &[("ISA", "arm-a64")])), []);
    farm.step(59 * MINUTE, Event::Leave(WaiterId(1)));
    let effects = farm.step(60 * MINUTE, asks(2, &[("ISA", "arm-a64")]));
    let Failure::NoWorkerMatches { reasons } = failure(&effects) else { panic!("{effects:?}") };
    assert_eq!(reasons, &["worker `x86` has ISA=x86-64, but ISA=arm-a64 is required"]);
}

#[test]
fn a_declared_pool_is_waited_for_and_only_what_it_could_run_is() {
    let arm = |name: &str| Pool {
        name: name.to_owned(),
        properties: properties(&[("ISA", "arm-a64"), ("kiln.label.disk", "ssd")]),
        capacity: Some(capacity(2000)),
    };
    let mut farm = Scheduler::new(Config { pools: vec![arm("autoscaled")], ..Config::default() }, 0);
    farm.step(0, Event::WorkerJoined(offer("w", 1000)));
    assert_eq!(farm.step(0, asks(1, &[("ISA", "arm-a64"), ("kiln.libc", "glibc:2.36")])), []);
    assert_eq!(farm.step(0, asks(2, &[("ISA", "arm-a64"), ("kiln.label.disk", "ssd")])), []);
    for refused in [[("ISA", "arm-a64"), ("kiln.label.disk", "hdd")], [("ISA", "arm-a64"), ("kiln.label.gpu", "a100")]]
    {
        let effects = farm.step(0, asks(3, &refused));
        assert!(matches!(failure(&effects), Failure::NoWorkerMatches { .. }), "{refused:?}");
    }
    let Some(Wait::Worker { reasons, .. }) = farm.wait_of(&key(1)) else { panic!("expected it to wait") };
    assert_eq!(reasons, ["pool `autoscaled` has no worker connected"]);
}

#[test]
fn workers_that_an_earlier_run_knew_are_waited_for() {
    let mut arm = offer("arm", 1000);
    arm.properties = properties(&[("ISA", "arm-a64")]);
    let config = Config { remembered: vec![(arm.clone(), 10 * MINUTE)], ..Config::default() };
    let mut farm = Scheduler::new(config, 0);
    farm.step(0, Event::WorkerJoined(offer("w", 1000)));
    assert_eq!(farm.step(MINUTE, asks(1, &[("ISA", "arm-a64")])), []);
    assert_eq!(farm.next_deadline(), Some(10 * MINUTE), "refused once nobody is expected any more");
    assert_eq!(assigned(&farm.step(2 * MINUTE, Event::WorkerJoined(arm))).len(), 1);
}

#[test]
fn once_a_worker_joined_a_farm_that_starts_waits_only_a_moment_for_the_others() {
    let config = Config { match_grace: 15_000, match_settle: 2000, ..Config::default() };
    let mut farm = Scheduler::new(config, 0);
    farm.step(100, Event::WorkerJoined(offer("w", 1000)));
    assert_eq!(farm.step(200, asks(1, &[("ISA", "arm-a64")])), []);
    assert_eq!(farm.next_deadline(), Some(2100));
    assert!(matches!(failure(&farm.step(2100, Event::Tick)), Failure::NoWorkerMatches { .. }));
    let effects = farm.step(7600, asks(2, &[("ISA", "arm-a64")]));
    assert!(matches!(failure(&effects), Failure::NoWorkerMatches { .. }), "expected a refusal at once");
}

#[test]
fn a_drained_worker_is_waited_for_and_named() {
    let mut farm = farm(&[("w", 1000)]);
    farm.step(0, Event::Drain { worker: worker("w"), on: true });
    assert_eq!(farm.step(0, Event::Submit(submission(1))), []);
    let Some(Wait::Worker { reasons, .. }) = farm.wait_of(&key(1)) else { panic!("expected it to wait") };
    assert_eq!(reasons, ["worker `w` is draining"]);
    let draining = WorkerOffer { draining: true, ..offer("w", 1000) };
    farm.step(MINUTE, Event::WorkerGone(worker("w")));
    assert_eq!(farm.step(MINUTE, Event::WorkerJoined(draining)), [], "expected it to come back as it was");
    assert_eq!(assigned(&farm.step(14 * MINUTE, Event::Drain { worker: worker("w"), on: false })).len(), 1);
}

#[test]
fn whoever_waits_behind_others_is_told_how_many_and_what_holds_the_workers_and_never_times_out() {
    let mut farm = farm(&[("w", 1000)]);
    for number in 1..=3 {
        farm.step(0, Event::Submit(submission(number)));
    }
    let holders = vec![(worker("w"), key(1))];
    assert_eq!(farm.wait_of(&key(1)), None, "expected what runs to wait for nothing");
    assert_eq!(farm.wait_of(&key(3)), Some(Wait::Room { ahead: 1, holders }));
    assert_eq!(farm.step(60 * MINUTE, Event::Tick), [], "expected a busy farm to give nothing up");
}
