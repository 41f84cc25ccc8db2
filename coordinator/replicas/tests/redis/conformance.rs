//! A journal in Redis does what a journal in a file does.

use super::engine;
use super::support::{LEASE, led, register_at, replica, term};
use kiln_harness::redis::{Cluster, Redis};
use kiln_replicas::Register;
use proptest::prelude::*;

#[tokio::test]
async fn records_are_listed_in_both_directions_by_prefix_and_in_pages() {
    let Some(redis) = Redis::durable() else { return };
    engine::lists_records_in_both_directions_by_prefix_and_in_pages(led(&redis).await.2).await;
}

#[tokio::test]
async fn a_stream_is_shown_in_order_and_continues_where_nobody_was() {
    let Some(redis) = Redis::durable() else { return };
    engine::shows_a_stream_in_order_and_continues_where_nobody_was(led(&redis).await.2).await;
}

#[tokio::test]
async fn a_stream_that_is_resumed_again_and_again_gives_no_position_out_twice() {
    let Some(redis) = Redis::durable() else { return };
    engine::gives_no_position_out_twice(led(&redis).await.2).await;
}

#[tokio::test]
async fn large_groups_and_values_are_taken() {
    let Some(redis) = Redis::durable() else { return };
    engine::takes_groups_and_values_of_many_megabytes(led(&redis).await.2).await;
}

#[tokio::test]
async fn a_cluster_keeps_a_journal_too() {
    let Some(cluster) = Cluster::durable() else { return };
    let register = register_at(&cluster.url()).await.unwrap();
    let held = term(register.claim(&replica("a"), None, LEASE).await.unwrap());
    engine::lists_records_in_both_directions_by_prefix_and_in_pages(register.journal("", &held)).await;
    engine::shows_a_stream_in_order_and_continues_where_nobody_was(register.journal("acme", &held)).await;
    engine::takes_groups_and_values_of_many_megabytes(register.journal("other", &held)).await;
    assert_eq!(register.tenants().await.unwrap(), ["", "acme", "other"]);
}

#[test]
fn an_engine_shows_what_was_written() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let Some(redis) = Redis::durable() else { return };
    let (register, term, _) = runtime.block_on(led(&redis));
    let tenants = std::cell::Cell::new(0);
    proptest!(ProptestConfig { cases: 48, ..ProptestConfig::default() }, |(groups in engine::groups())| {
        // Each case has a journal of its own.
        tenants.set(tenants.get() + 1);
        let journal = register.journal(&format!("tenant{}", tenants.get()), &term);
        runtime.block_on(engine::follows_a_model(&*journal, &groups));
    });
}
