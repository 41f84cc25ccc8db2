//! Replicas that agree by a register in memory, in simulated time.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../journal/tests/engine/mod.rs"]
mod engine;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_journal::{Engine, Error, Write};
use kiln_replicas::memory::{MemoryRegister, Way};
use kiln_replicas::{Lead, Register, Replica, Replicas, Standing, Timing};
use proptest::prelude::*;

const HOURS: Duration = Duration::from_secs(36_000);

fn replica(name: &str) -> Replica {
    Replica { name: name.into(), address: format!("http://{name}"), version: "1".into(), protocol: 1 }
}

async fn join(register: &Arc<MemoryRegister>, name: &str) -> Replicas {
    Replicas::join(register.clone(), replica(name), Timing::default()).await.unwrap()
}

async fn leads(replicas: &Replicas) -> Lead {
    let mut standing = replicas.standing();
    let standing = standing.wait_for(|standing| matches!(standing, Standing::Leads(_))).await.unwrap();
    let Standing::Leads(lead) = &*standing else { unreachable!("it was waited for") };
    lead.clone()
}

fn put(value: &str) -> Vec<Arc<Vec<Write>>> {
    let value = Bytes::copy_from_slice(value.as_bytes());
    vec![Arc::new(vec![Write::Put { space: "records", key: "key".into(), value }])]
}

async fn journal() -> Arc<dyn Engine> {
    let register = MemoryRegister::new();
    let (_, term) = register.claim(&replica("a"), None, HOURS).await.unwrap().holder.unwrap();
    register.journal("", &term)
}

#[tokio::test]
async fn a_journal_in_memory_does_what_one_in_a_file_does() {
    engine::lists_records_in_both_directions_by_prefix_and_in_pages(journal().await).await;
    engine::shows_a_stream_in_order_and_continues_where_nobody_was(journal().await).await;
    engine::gives_no_position_out_twice(journal().await).await;
    engine::takes_groups_and_values_of_many_megabytes(journal().await).await;
}

proptest! {
    #[test]
    fn an_engine_shows_what_was_written(groups in engine::groups()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { engine::follows_a_model(&*journal().await, &groups).await });
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_another_one_leads() {
    let mine = Arc::new(MemoryRegister::new());
    let theirs = Arc::new(mine.another());
    let a = join(&mine, "a").await;
    let first = leads(&a).await;
    let b = join(&theirs, "b").await;
    mine.set_way(Way::Cut);
    let second = leads(&b).await;
    assert!(first.is_over() && first.over.is_cancelled());
    assert!(second.term.epoch > first.term.epoch);
    let journal = mine.journal("", &first.term);
    assert!(matches!(journal.commit(put("cut off"), false).await, Err(Error::Away { .. })));
    mine.set_way(Way::Open);
    assert!(matches!(journal.commit(put("late"), false).await, Err(Error::Fenced { .. })));
    theirs.journal("", &second.term).commit(put("second"), false).await.unwrap();
    let mut standing = a.standing();
    let follows = |standing: &Standing| matches!(standing, Standing::Follows { leader, .. } if leader.name == "b");
    standing.wait_for(follows).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_renewals_are_not_answered_stops_as_well() {
    let mine = Arc::new(MemoryRegister::new());
    let a = join(&mine, "a").await;
    let first = leads(&a).await;
    // It holds the lease all the time, but does not know.
    mine.set_way(Way::LosesAnswers);
    first.over.cancelled().await;
    let theirs = Arc::new(mine.another());
    let looked = theirs.claim(&replica("b"), None, Duration::ZERO).await.unwrap();
    assert_eq!(looked.holder.unwrap().0, replica("a"));
    mine.set_way(Way::Open);
    let second = leads(&a).await;
    assert_ne!(second.term, first.term);
}

#[tokio::test(start_paused = true)]
async fn a_slow_way_is_no_reason_to_stop_and_a_too_slow_one_is() {
    let mine = Arc::new(MemoryRegister::new());
    mine.set_delay(Duration::from_millis(1500));
    let a = join(&mine, "a").await;
    let first = leads(&a).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!first.is_over(), "renewals arrive in time");
    mine.set_delay(Duration::from_secs(30));
    first.over.cancelled().await;
    let theirs = Arc::new(mine.another());
    let b = join(&theirs, "b").await;
    assert!(leads(&b).await.term.epoch > first.term.epoch);
}
