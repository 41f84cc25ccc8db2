//! One example for each rule.

use super::*;

#[test]
fn within_a_build_the_longest_path_goes_first() {
    let mut farm = farm(&[("w", 1000)]);
    let mut running = Vec::new();
    for (number, path_weight) in [(0, 1), (1, 1), (2, 5), (3, 3)] {
        running.extend(assigned(&farm.step(0, Event::Submit(Submission { path_weight, ..submission(number) }))));
    }
    assert_eq!(order(&mut farm, running), ["a0", "a2", "a3", "a1"]);
}

#[test]
fn a_more_urgent_action_goes_first_also_when_it_joins_one_that_waits() {
    let mut farm = farm(&[("w", 1000)]);
    let mut running = Vec::new();
    for (number, priority) in [(0, 0), (1, 0), (2, 0), (3, -1)] {
        running.extend(assigned(&farm.step(0, Event::Submit(Submission { priority, ..submission(number) }))));
    }
    let urgent = Submission { priority: -5, waiter: WaiterId(9), ..submission(2) };
    assert_eq!(farm.step(0, Event::Submit(urgent)), []);
    assert_eq!(order(&mut farm, running), ["a0", "a2", "a3", "a1"]);
}

fn served(farm: &mut Scheduler, tenants: &[(&str, &str, u64)], take: usize) -> Vec<String> {
    let mut running = Vec::new();
    let mut number = 0;
    for (tenant, build, count) in tenants {
        for _ in 0..*count {
            let mut one = Submission { share: (*tenant).into(), build: (*build).into(), ..submission(number) };
            one.key.0 = format!("{tenant}/{build}/{number}").into();
            number += 1;
            running.extend(assigned(&farm.step(0, Event::Submit(one))));
        }
    }
    let whole = order(farm, running);
    whole
        .into_iter()
        .take(take)
        .map(|key| key.rsplit_once('/').map(|(who, _)| who.to_owned()).unwrap_or_default())
        .collect()
}

fn count(served: &[String], who: &str) -> usize {
    served.iter().filter(|one| *one == who).count()
}

#[test]
fn tenants_share_the_farm_whatever_they_have_queued() {
    let mut farm = farm(&[("w", 1000)]);
    let served = served(&mut farm, &[("greedy", "b", 200), ("modest", "b", 20)], 41);
    assert_eq!(count(&served, "modest/b"), 20, "expected every other turn: {served:?}");
}

#[test]
fn a_tenants_builds_share_what_it_gets() {
    let mut farm = farm(&[("w", 1000)]);
    let served = served(&mut farm, &[("t", "large", 200), ("t", "small", 20)], 41);
    assert_eq!(count(&served, "t/small"), 20, "expected every other turn: {served:?}");
}

#[test]
fn idling_saves_no_share_up() {
    let mut farm = farm(&[("w", 1000)]);
    served(&mut farm, &[("early", "b", 100)], 100);
    let served = served(&mut farm, &[("early", "b", 50), ("late", "b", 50)], 40);
    let late = count(&served, "late/b");
    assert!((19..=21).contains(&late), "expected half the turns, found {late} of 40");
}

#[test]
fn an_action_goes_where_its_inputs_are() {
    let mut farm = farm(&[("a", 4000), ("b", 4000), ("c", 4000)]);
    let with = |number, inputs: &[u64]| Event::Submit(Submission { inputs: inputs.to_vec(), ..submission(number) });
    let first = assigned(&farm.step(0, with(0, &[1, 2, 3])));
    let other = assigned(&farm.step(0, with(1, &[7, 8])));
    assert_ne!(first[0].0, other[0].0, "the least loaded is chosen where no worker knows the inputs");
    let again = assigned(&farm.step(0, with(2, &[2, 3, 4])));
    assert_eq!(again[0].0, first[0].0);
    let again = assigned(&farm.step(0, with(3, &[8])));
    assert_eq!(again[0].0, other[0].0);
}

#[test]
fn an_action_runs_only_where_everything_matches() {
    let mut farm = farm(&[("small", 1000)]);
    let mut arm = offer("arm", 8000);
    arm.properties = properties(&[("ISA", "aarch64"), ("gpu", "a100")]);
    farm.step(0, Event::WorkerJoined(arm));
    let wants = |number, pairs: &[(&str, &str)], milli_cpus| {
        let requirements =
            Requirements { properties: properties(pairs), capacity: capacity(milli_cpus), ..Requirements::default() };
        Event::Submit(Submission { requirements, ..submission(number) })
    };
    assert_eq!(assigned(&farm.step(0, wants(1, &[("ISA", "aarch64")], 4000)))[0].0, "arm");
    assert_eq!(assigned(&farm.step(0, wants(2, &[("ISA", "x86-64")], 1000)))[0].0, "small");
    for (number, pairs, cpus, word) in [
        (3, [("ISA", "x86-64")].as_slice(), 2000, "has 1 CPUs, but 2 are required"),
        (4, &[("ISA", "x86-64"), ("gpu", "a100")], 100, "is missing required gpu=a100"),
        (5, &[("ISA", "riscv64")], 100, "has ISA=aarch64, but ISA=riscv64 is required"),
    ] {
        let effects = farm.step(0, wants(number, pairs, cpus));
        let Some(Effect::Failed { failure: Failure::NoWorkerMatches { reasons }, waiters, .. }) = effects.first()
        else {
            panic!("expected a refusal at once, found {effects:?}")
        };
        assert_eq!(waiters, &[WaiterId(number)]);
        assert!(reasons.iter().any(|reason| reason.contains(word)), "expected `{word}` in {reasons:?}");
    }
}

#[test]
fn equal_actions_run_once_and_all_who_wait_hear_of_it() {
    let mut farm = farm(&[("w", 4000)]);
    let running = assigned(&farm.step(0, Event::Submit(submission(1))));
    let joined = farm.step(0, Event::Submit(Submission { waiter: WaiterId(2), ..submission(1) }));
    assert_eq!(joined, []);
    let effects = farm.step(1, finish("w", running[0].1));
    let waiters = vec![WaiterId(1), WaiterId(2)];
    let lease = running[0].1;
    assert_eq!(effects, [Effect::Completed { key: ActionKey("a1".into()), lease, waiters }, Effect::LeaseEnded(lease)]);
}

#[test]
fn what_nobody_waits_for_is_cancelled_once_the_last_has_left() {
    let mut farm = farm(&[("w", 1000)]);
    let lease = assigned(&farm.step(0, Event::Submit(submission(1))))[0].1;
    farm.step(0, Event::Submit(Submission { waiter: WaiterId(2), ..submission(1) }));
    farm.step(0, Event::Submit(submission(3)));
    assert_eq!(farm.step(0, Event::Leave(WaiterId(1))), []);
    assert_eq!(farm.step(0, Event::Leave(WaiterId(2))), [Effect::CancelLease { worker: WorkerId("w".into()), lease }]);
    assert_eq!(farm.step(0, Event::Leave(WaiterId(3))), [], "one that waits goes without a word");
    assert_eq!(farm.step(1, finish("w", lease)), [Effect::LeaseEnded(lease)], "the cancelled lease's end is nobody's");
    assert_eq!(farm.workers()[0].used, Capacity::default());
}

#[test]
fn a_worker_that_comes_back_in_time_keeps_what_it_runs() {
    let mut farm = farm(&[("w", 1000)]);
    let lease = assigned(&farm.step(0, Event::Submit(submission(1))))[0].1;
    assert_eq!(farm.step(10, Event::WorkerDisconnected(WorkerId("w".into()))), []);
    let key = ActionKey("a1".into());
    let running = vec![RunningLease { lease, key: key.clone(), reserved: capacity(1000) }];
    assert_eq!(farm.step(14_000, Event::WorkerJoined(WorkerOffer { running, ..offer("w", 1000) })), []);
    assert_eq!(farm.step(60_000, Event::Tick), [], "the grace ended with the return");
    assert!(matches!(
        farm.step(60_001, finish("w", lease)).as_slice(),
        [Effect::Completed { .. }, Effect::LeaseEnded(_)]
    ));
}

#[test]
fn a_lost_workers_actions_run_elsewhere_a_bounded_number_of_times() {
    let mut farm = farm(&[]);
    let mut now = 0;
    farm.step(now, Event::WorkerJoined(offer("w1", 1000)));
    farm.step(now, Event::Submit(submission(1)));
    for attempt in 2..=3 {
        farm.step(now, Event::WorkerJoined(offer(&format!("w{attempt}"), 1000)));
        let lost = WorkerId(format!("w{}", attempt - 1).into());
        farm.step(now, Event::WorkerDisconnected(lost));
        let deadline = farm.next_deadline().expect("a deadline for the lost worker");
        assert_eq!(farm.step(deadline - 1, Event::Tick), []);
        let effects = farm.step(deadline, Event::Tick);
        assert_eq!(assigned(&effects)[0].0, format!("w{attempt}"), "{effects:?}");
        now = deadline;
    }
    farm.step(now, Event::WorkerDisconnected(WorkerId("w3".into())));
    let effects = farm.step(farm.next_deadline().expect("a deadline for the lost worker"), Event::Tick);
    let Some(Effect::Failed { failure: Failure::AttemptsExhausted { attempts: 3, last }, .. }) = effects.first() else {
        panic!("expected the third loss to be the last, found {effects:?}")
    };
    assert!(last.contains("`w3` was lost"), "{last}");
}

#[test]
fn what_runs_once_is_given_up_however_its_worker_goes() {
    let once = |number| Event::Submit(Submission { once: true, ..submission(number) });
    let lost = |effects: &[Effect]| match effects.first() {
        Some(Effect::Failed { failure: Failure::Lost { reason }, waiters, .. }) if waiters.len() == 1 => reason.clone(),
        _ => panic!("expected it to be given up, found {effects:?}"),
    };
    let mut farm = farm(&[("w1", 1000), ("w2", 1000)]);
    let (worker, lease, _) = assigned(&farm.step(0, once(1))).remove(0);
    let fault = Outcome::WorkerFault("no disk".into());
    let effects = farm.step(0, Event::Finished { worker: WorkerId(worker.into()), lease, outcome: fault });
    assert!(lost(&effects).contains("no disk"), "{effects:?}");
    let (worker, ..) = assigned(&farm.step(0, once(2))).remove(0);
    assert!(lost(&farm.step(0, Event::WorkerGone(WorkerId(worker.into())))).contains("left"));
    let (worker, ..) = assigned(&farm.step(0, once(3))).remove(0);
    farm.step(0, Event::WorkerDisconnected(WorkerId(worker.into())));
    let deadline = farm.next_deadline().expect("a deadline for the lost worker");
    assert!(lost(&farm.step(deadline, Event::Tick)).contains("was lost"));
}

#[test]
fn a_faulty_worker_is_avoided_where_there_is_another() {
    let mut farm = farm(&[("bad", 8000), ("good", 1000)]);
    let (worker, lease, _) = assigned(&farm.step(0, Event::Submit(submission(1)))).remove(0);
    let fault = Outcome::WorkerFault("no disk".into());
    let effects = farm.step(0, Event::Finished { worker: WorkerId(worker.as_str().into()), lease, outcome: fault });
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Requeued { reason, .. } if reason.contains("no disk")))
    );
    assert_ne!(assigned(&effects)[0].0, worker);
}

#[test]
fn what_must_not_run_where_it_ran_first_does_so_only_if_nothing_else_can() {
    let again = |number| Event::Submit(Submission { avoid: Some(WorkerId("big".into())), ..submission(number) });
    let mut farm = farm(&[("big", 8000), ("small", 1000)]);
    assert_eq!(assigned(&farm.step(0, again(1)))[0].0, "small", "although the other one has more room");
    assert_eq!(assigned(&farm.step(0, again(2))), [], "it waits for the other one");
    assert_eq!(assigned(&farm.step(0, Event::Submit(submission(3))))[0].0, "big", "and holds nobody up");
    let drain = Event::Drain { worker: WorkerId("small".into()), on: true };
    assert_eq!(assigned(&farm.step(0, drain))[0].0, "big", "no other one is left");
    let unknown = Submission { avoid: Some(WorkerId("gone".into())), ..submission(4) };
    assert_eq!(assigned(&farm.step(0, Event::Submit(unknown)))[0].0, "big");
}

#[test]
fn a_bound_worker_runs_its_tenants_actions_alone() {
    let mut farm = farm(&[]);
    let tenants = BTreeSet::from(["shop".to_owned()]);
    farm.step(0, Event::WorkerJoined(WorkerOffer { tenants, ..offer("bound", 4000) }));
    let of = |number: u64, tenant: &str| {
        let requirements = Requirements { tenant: tenant.to_owned(), ..submission(0).requirements };
        Event::Submit(Submission { requirements, ..submission(number) })
    };
    let refused = farm.step(0, of(1, "bank"));
    assert!(format!("{refused:?}").contains("is bound to other tenants"), "{refused:?}");
    assert!(matches!(farm.step(0, of(2, "")).as_slice(), [Effect::Failed { .. }]), "the default tenant is one, too");
    assert_eq!(assigned(&farm.step(0, of(3, "shop")))[0].0, "bound");
    farm.step(1, Event::WorkerJoined(offer("free", 1000)));
    assert_eq!(assigned(&farm.step(1, of(4, "bank")))[0].0, "free");
}

#[test]
fn a_draining_worker_gets_nothing_new() {
    let mut farm = farm(&[("w", 2000)]);
    let lease = assigned(&farm.step(0, Event::Submit(submission(1))))[0].1;
    farm.step(0, Event::Drain { worker: WorkerId("w".into()), on: true });
    assert_eq!(assigned(&farm.step(0, Event::Submit(submission(2)))), []);
    assert!(matches!(farm.step(0, finish("w", lease)).as_slice(), [Effect::Completed { .. }, Effect::LeaseEnded(_)]));
    assert_eq!(assigned(&farm.step(0, Event::Drain { worker: WorkerId("w".into()), on: false })).len(), 1);
}

#[test]
fn a_large_action_is_not_starved_by_small_ones() {
    let mut farm = farm(&[("w", 2000)]);
    let mut running = Vec::new();
    for number in 0..2 {
        running.extend(assigned(&farm.step(0, Event::Submit(submission(number)))));
    }
    let requirements = Requirements { capacity: capacity(2000), ..submission(0).requirements };
    farm.step(0, Event::Submit(Submission { requirements, ..submission(1000) }));
    let mut now = 0;
    for number in 2..200 {
        now += 500;
        running.extend(assigned(&farm.step(now, Event::Submit(submission(number)))));
        let Some((worker, lease, key)) = running.first().cloned() else { break };
        if key == "a1000" {
            assert!(now <= 15_000, "expected its turn soon after {} ms, found {now}", Config::default().reserve_after);
            return;
        }
        running.remove(0);
        running.extend(assigned(&farm.step(now, finish(&worker, lease))));
    }
    panic!("the large action never ran");
}

#[test]
fn a_lease_that_a_worker_brings_serves_the_first_who_asks() {
    let mut farm = farm(&[]);
    let key = ActionKey("a1".into());
    let brought = |lease| RunningLease { lease: LeaseId(lease), key: key.clone(), reserved: capacity(1000) };
    farm.step(0, Event::WorkerJoined(WorkerOffer { running: vec![brought(77)], ..offer("w", 2000) }));
    let effects = farm.step(5, Event::Submit(submission(1)));
    assert!(effects.contains(&Effect::Adopted { key: key.clone(), lease: LeaseId(77), worker: WorkerId("w".into()) }));
    assert_eq!(assigned(&effects), []);
    assert!(
        matches!(farm.step(6, finish("w", LeaseId(77))).as_slice(), [Effect::Completed { waiters, .. }, Effect::LeaseEnded(_)] if *waiters == [WaiterId(1)])
    );
    farm.step(7, Event::WorkerJoined(WorkerOffer { running: vec![brought(78)], ..offer("v", 2000) }));
    let over = farm.next_deadline().expect("a deadline for what nobody asks for");
    assert_eq!(
        farm.step(over, Event::Tick),
        [Effect::CancelLease { worker: WorkerId("v".into()), lease: LeaseId(78) }]
    );
}

/// A farm whose earlier run had these workers.
fn restarted(workers: &[&str]) -> Scheduler {
    let remembered = workers.iter().map(|name| (offer(name, 2000), 60_000)).collect();
    let returning = workers.iter().map(|name| WorkerId((*name).into())).collect();
    let config = Config { remembered, returning, return_grace: 10_000, ..Config::default() };
    Scheduler::new(config, 0)
}

#[test]
fn whoever_ran_an_action_before_a_restart_goes_on_with_it_whoever_comes_back_first() {
    let mut farm = restarted(&["v", "w"]);
    let brought = RunningLease { lease: LeaseId(77), key: ActionKey("a1".into()), reserved: capacity(1000) };
    assert_eq!(assigned(&farm.step(0, Event::Submit(submission(1)))), []);
    assert_eq!(assigned(&farm.step(0, Event::Submit(submission(2)))), []);
    assert_eq!(assigned(&farm.step(100, Event::WorkerJoined(offer("v", 2000)))), []);
    let wait = farm.wait_of(&ActionKey("a1".into()));
    assert_eq!(wait, Some(Wait::Return { workers: vec![WorkerId("w".into())] }));
    let effects = farm.step(200, Event::WorkerJoined(WorkerOffer { running: vec![brought], ..offer("w", 2000) }));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Adopted { lease: LeaseId(77), .. })), "{effects:?}");
    // All are back, so what nobody brought begins, where there is more room.
    let begun: Vec<String> = assigned(&effects).into_iter().map(|(_, _, key)| key).collect();
    assert_eq!(begun, ["a2"]);
}

#[test]
fn a_worker_that_does_not_come_back_is_waited_for_only_by_what_it_could_run_and_not_for_ever() {
    let mut farm = restarted(&["v", "w"]);
    let large = Requirements { capacity: capacity(4000), ..submission(0).requirements };
    farm.step(0, Event::WorkerJoined(offer("big", 4000)));
    let effects = farm.step(0, Event::Submit(Submission { requirements: large.clone(), ..submission(9) }));
    assert_eq!(assigned(&effects).len(), 1, "neither could have run it");
    let begun = assigned(&effects);
    farm.step(1, finish(&begun[0].0, begun[0].1));
    assert_eq!(assigned(&farm.step(2, Event::Submit(submission(1)))), []);
    assert_eq!(farm.room(&submission(1).requirements), 0);
    assert_eq!(farm.next_deadline(), Some(10_000));
    let begun = assigned(&farm.step(10_000, Event::Tick));
    assert_eq!(
        begun.iter().map(|(worker, _, key)| (worker.as_str(), key.as_str())).collect::<Vec<_>>(),
        [("big", "a1")]
    );
}

#[test]
fn a_farm_that_starts_waits_a_while_for_workers() {
    let mut farm = Scheduler::new(Config { match_grace: 1000, ..Config::default() }, 0);
    assert_eq!(farm.step(0, Event::Submit(submission(1))), []);
    assert_eq!(farm.next_deadline(), Some(1000));
    assert!(matches!(farm.step(1000, Event::Tick).as_slice(), [Effect::Failed { .. }]));
}

#[test]
fn no_worker_is_kept_free_for_an_opportunistic_action() {
    let with = |number, milli_cpus, opportunistic| {
        let capacity = Capacity { milli_cpus, memory_bytes: GIB };
        let requirements = Requirements { capacity, opportunistic, ..submission(number).requirements };
        Event::Submit(Submission { requirements, ..submission(number) })
    };
    for opportunistic in [true, false] {
        let mut farm = farm(&[("vm", 2000)]);
        let mut running: Vec<_> =
            (1..=2).flat_map(|number| assigned(&farm.step(0, with(number, 1000, false)))).collect();
        assert!(assigned(&farm.step(1, with(3, 2000, opportunistic))).is_empty());
        let after = 1 + Config::default().reserve_after;
        // Whoever comes later is not passed over yet.
        farm.step(after - 1, with(4, 1000, false));
        farm.step(after, Event::Tick);
        let (worker, lease, _) = running.remove(0);
        let next: Vec<String> =
            assigned(&farm.step(after, finish(&worker, lease))).into_iter().map(|one| one.2).collect();
        let expected: &[&str] = if opportunistic { &["a4"] } else { &[] };
        assert_eq!(next, expected, "opportunistic: {opportunistic}");
    }
}

#[test]
fn room_is_what_would_start_at_once() {
    let mut farm = farm(&[("small", 1500), ("large", 4000)]);
    let requirements = submission(1).requirements;
    assert_eq!(farm.room(&requirements), 5);
    for number in 1..=3 {
        assert_eq!(assigned(&farm.step(0, Event::Submit(submission(number)))).len(), 1);
    }
    assert_eq!(farm.room(&requirements), 2);
    farm.step(0, Event::Drain { worker: WorkerId("large".into()), on: true });
    let left = farm.room(&requirements);
    assert!(left <= 1, "a worker that drains has no room: {left}");
    for number in 4..=8 {
        farm.step(0, Event::Submit(submission(number)));
    }
    assert_eq!(farm.room(&requirements), 0);
    let elsewhere = Requirements { properties: properties(&[("ISA", "arm-a64")]), ..requirements };
    assert_eq!(farm.room(&elsewhere), 0);
}

#[test]
fn what_a_worker_brought_is_not_queued_when_another_that_failed_it_leaves() {
    let mut farm = farm(&[("bad", 1000), ("other", 1000)]);
    // It is lost on one worker, fails on the other, and waits for a third.
    farm.step(0, Event::Drain { worker: WorkerId("bad".into()), on: true });
    let (_, lost, key) = assigned(&farm.step(0, Event::Submit(submission(1)))).remove(0);
    farm.step(0, Event::Drain { worker: WorkerId("bad".into()), on: false });
    let (_, failed, _) = assigned(&farm.step(0, Event::WorkerGone(WorkerId("other".into())))).remove(0);
    farm.step(0, Event::WorkerJoined(WorkerOffer { draining: true, ..offer("third", 1000) }));
    farm.step(0, Event::WorkerJoined(offer("busy", 1000)));
    assert_eq!(assigned(&farm.step(0, Event::Submit(submission(2))))[0].0, "busy");
    let outcome = Outcome::WorkerFault("no disk".into());
    let effects = farm.step(0, Event::Finished { worker: WorkerId("bad".into()), lease: failed, outcome });
    assert_eq!(assigned(&effects), []);
    // The worker that was considered lost comes back with it.
    let running = vec![RunningLease { lease: lost, key: ActionKey(key.as_str().into()), reserved: capacity(1000) }];
    let effects = farm.step(1, Event::WorkerJoined(WorkerOffer { running, ..offer("other", 1000) }));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Adopted { .. })), "{effects:?}");
    let mut effects = farm.step(2, Event::WorkerGone(WorkerId("bad".into())));
    effects.extend(farm.step(2, Event::Drain { worker: WorkerId("third".into()), on: false }));
    assert_eq!(assigned(&effects), [], "expected it to run once");
}

#[test]
fn whoever_is_passed_over_is_looked_at_when_a_worker_is_due_to_be_reserved() {
    let mut farm = farm(&[("w", 2000)]);
    let running = assigned(&farm.step(0, Event::Submit(submission(0))));
    assert_eq!(farm.next_deadline(), None);
    let large = Requirements { capacity: capacity(2000), ..submission(0).requirements };
    farm.step(5, Event::Submit(Submission { requirements: large, ..submission(1) }));
    assert_eq!(farm.next_deadline(), Some(5 + Config::default().reserve_after));
    // Others of its kind are served: it is not passed over.
    let effects = farm.step(1000, finish("w", running[0].1));
    assert_eq!(assigned(&effects)[0].2, "a1");
    assert_eq!(farm.next_deadline(), None);
    farm.step(2000, Event::Submit(submission(2)));
    let deadline = 2000 + Config::default().reserve_after;
    assert_eq!(farm.next_deadline(), Some(deadline));
    farm.step(deadline, Event::Tick);
    assert_eq!(farm.next_deadline(), None, "a worker is reserved, and nothing else depends on time");
    farm.step(deadline + 1, Event::Leave(WaiterId(2)));
    assert_eq!(farm.next_deadline(), None);
}
