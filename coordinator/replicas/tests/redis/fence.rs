//! A term that has ended changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kiln_harness::redis::Redis;
use kiln_journal::Error;
use kiln_replicas::{RedisRegister, Register, Term};

use super::gate::Gate;
use super::support::{LEASE, append, contents, get, led, put, register, register_at, replica, soon, term};

const SHORT: Duration = Duration::from_secs(1);

/// Asks for the lease until it is free.
async fn take(register: &RedisRegister, name: &str) -> Term {
    loop {
        let claimed = register.claim(&replica(name), None, LEASE).await.unwrap();
        if let Some((holder, term)) = claimed.holder
            && holder.name == name
        {
            return term;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_lease_has_one_holder_who_can_renew_it_and_give_it_back() {
    let Some(redis) = Redis::durable() else { return };
    let (register, first, _) = led(&redis).await;
    let (a, b) = (replica("a"), replica("b"));
    assert_eq!(term(register.claim(&a, Some(&first), LEASE).await.unwrap()), first, "it was renewed");
    let told = register.claim(&b, None, LEASE).await.unwrap();
    assert_eq!(told.holder, Some((a.clone(), first.clone())));
    assert_eq!(told.all, [a.clone(), b.clone()]);
    register.release(&b, &first).await.unwrap();
    assert_eq!(term(register.claim(&b, None, Duration::ZERO).await.unwrap()), first, "only its holder gives it back");
    register.release(&a, &first).await.unwrap();
    let free = register.claim(&b, None, Duration::ZERO).await.unwrap();
    assert_eq!(
        (free.holder, free.all),
        (None, vec![b.clone()]),
        "who gives it back withdraws, and who looks takes nothing"
    );
    let second = term(register.claim(&b, None, LEASE).await.unwrap());
    assert!(second.epoch > first.epoch && second.nonce != first.nonce);
    // Whoever has lost track of its term gets another one.
    let third = term(register.claim(&b, None, LEASE).await.unwrap());
    assert!(third.epoch > second.epoch);
}

#[tokio::test]
async fn a_commit_of_an_ended_term_changes_not_one_byte() {
    let Some(redis) = Redis::durable() else { return };
    let (register, first, journal) = led(&redis).await;
    journal.commit([put("a", "1"), append(0, "entry")].concat(), true).await.unwrap();
    register.release(&replica("a"), &first).await.unwrap();
    let before = contents(&redis).await;
    let all = [put("a", "2"), put("b", "2"), append(1, "late")].concat();
    for _ in 0..2 {
        let refused = journal.commit(all.clone(), true).await.unwrap_err();
        assert!(matches!(refused, Error::Fenced { .. }), "{refused}");
        let refused = journal.commit(Vec::new(), true).await.unwrap_err();
        assert!(matches!(refused, Error::Fenced { .. }), "an empty one as well: {refused}");
        assert_eq!(contents(&redis).await, before);
    }
    let second = take(&register, "b").await;
    let before = contents(&redis).await;
    assert!(matches!(journal.commit(all.clone(), false).await, Err(Error::Fenced { .. })));
    // Neither half of a term is enough.
    for (epoch, nonce) in [(second.epoch, first.nonce), (first.epoch, second.nonce.clone())] {
        let forged = register.journal("", &Term { epoch, nonce });
        assert!(matches!(forged.commit(all.clone(), false).await, Err(Error::Fenced { .. })));
    }
    assert_eq!(contents(&redis).await, before);
    register.journal("", &second).commit(all, true).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_has_run_out_is_over_even_if_nobody_takes_it() {
    let Some(redis) = Redis::durable() else { return };
    let register = register(&redis).await;
    let held = term(register.claim(&replica("a"), None, SHORT).await.unwrap());
    let journal = register.journal("", &held);
    journal.commit(put("a", "1"), false).await.unwrap();
    let ends = async {
        loop {
            if let Err(error) = journal.commit(put("a", "2"), false).await {
                return error;
            }
        }
    };
    let refused = soon("the lease to run out", ends).await;
    assert!(matches!(refused, Error::Fenced { .. }), "{refused}");
    let renewed = register.claim(&replica("a"), Some(&held), LEASE).await.unwrap();
    assert_ne!(term(renewed), held, "a term does not come back");
    assert!(matches!(journal.commit(put("a", "3"), false).await, Err(Error::Fenced { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_one_commit_slips_in_behind_the_next_leader() {
    let Some(redis) = Redis::durable() else { return };
    for round in 0..5 {
        let register = Arc::new(register(&redis).await);
        let held = term(register.claim(&replica("a"), None, SHORT).await.unwrap());
        let journal = register.journal("", &held);
        let (taken, writer) = (Arc::new(AtomicBool::new(false)), journal.clone());
        let writing = tokio::spawn({
            let taken = taken.clone();
            async move {
                let mut after = 0;
                for number in 0_u64.. {
                    let late = taken.load(Ordering::SeqCst);
                    match writer.commit(put("a", &number.to_string()), false).await {
                        Ok(()) => assert!(!late, "commit {number} succeeded though another one leads"),
                        Err(Error::Fenced { .. }) => after += 1,
                        Err(other) => panic!("{other}"),
                    }
                    if late && after > 20 {
                        return;
                    }
                }
            }
        });
        let next = soon("the lease to be free", take(&register, "b")).await;
        taken.store(true, Ordering::SeqCst);
        let own = register.journal("", &next);
        let seen = get(&*own, "a").await;
        own.commit(put("own", &round.to_string()), true).await.unwrap();
        soon("the old leader's commits to be refused", writing).await.unwrap();
        assert_eq!(get(&*own, "a").await, seen, "the last word is what the next leader found");
        register.release(&replica("b"), &next).await.unwrap();
    }
}

#[tokio::test]
async fn a_commit_that_was_on_its_way_for_long_does_not_undo_later_ones() {
    let Some(redis) = Redis::durable() else { return };
    let mut gate = Gate::before(redis.port).await;
    let register = register_at(&gate.url).await.unwrap();
    let held = term(register.claim(&replica("a"), None, LEASE).await.unwrap());
    let journal = register.journal("", &held);
    journal.commit(put("a", "0"), false).await.unwrap();
    gate.hold();
    let given_up = journal.commit([put("a", "late"), append(9, "late")].concat(), false).await.unwrap_err();
    assert!(given_up.to_string().contains("is unreachable"), "{given_up}");
    journal.commit([put("a", "1"), append(7, "entry")].concat(), false).await.unwrap();
    gate.release().await;
    assert_eq!(get(&*journal, "a").await.as_deref(), Some("1"));
    assert_eq!(journal.read("stream", 0, usize::MAX).await.unwrap().len(), 1);
    journal.commit(put("a", "2"), true).await.unwrap();
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_can_be_repeated() {
    let Some(redis) = Redis::durable() else { return };
    let (_, _, journal) = led(&redis).await;
    let group = [append(0, "zero"), append(3, "three"), put("a", "1")].concat();
    for _ in 0..2 {
        journal.commit(group.clone(), true).await.unwrap();
    }
    let more = [group, append(4, "four")].concat();
    journal.commit(more, true).await.unwrap();
    assert_eq!(journal.read("stream", 0, usize::MAX).await.unwrap().len(), 3);
    for other in [append(3, "other"), append(1, "between")] {
        let before = contents(&redis).await;
        let refused = journal.commit([put("a", "2"), other].concat(), true).await.unwrap_err();
        assert!(refused.to_string().contains("another entry has position"), "{refused}");
        assert_eq!(contents(&redis).await, before, "nothing of the group is there");
    }
}

#[tokio::test]
async fn epochs_grow_although_redis_forgets_them() {
    let Some(redis) = Redis::durable() else { return };
    let (register, first, _) = led(&redis).await;
    redis.cli(&["DEL", "{kiln}:epoch", "{kiln}:lease"]);
    let second = term(register.claim(&replica("a"), Some(&first), LEASE).await.unwrap());
    assert!(second.epoch > first.epoch);
    redis.cli(&["FLUSHALL"]);
    let register = self::register(&redis).await;
    let third = term(register.claim(&replica("b"), None, LEASE).await.unwrap());
    assert!(third.epoch == first.epoch && third.nonce != first.nonce, "the nonce tells them apart");
}
