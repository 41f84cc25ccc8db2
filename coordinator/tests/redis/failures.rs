//! A Redis that is full, dead, hanging or a replica.

use kiln_store::Error;
use kiln_store::Health;

use crate::MIB;
use crate::coordinator::{coordinator, redis_or_skip};
use crate::support::noise;
use kiln_harness::redis::Redis;
use kiln_harness::remote::as_written;

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_runs_out_evicts_and_never_fails_or_lies() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::with(&["--maxmemory", "12mb", "--maxmemory-policy", "allkeys-lru"]);
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let mut blobs = Vec::new();
    for seed in 0..100 {
        let data = noise(seed, if seed % 10 == 0 { 3 * MIB } else { 300_000 });
        blobs.push((one.put(&data).await, data));
    }
    let mut there = 0;
    for (digest, data) in &blobs {
        match other.blobs().get(digest).await {
            Ok(found) => {
                assert_eq!(found, *data);
                there += 1;
            }
            Err(error) => assert!(matches!(error, Error::NotFound { .. }), "expected a miss, found {error}"),
        }
    }
    assert!((1..100).contains(&there), "expected some of 57 MiB in 12 MiB, found {there} of 100 blobs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_is_done_without_and_used_again_when_it_is_back() {
    if !redis_or_skip() {
        return;
    }
    let mut redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let (action, result, blobs) = one.put_result("", 1).await;
    redis.kill();
    one.becomes(|health| matches!(health, Health::Away(_))).await;
    let digest = one.put(b"while it is away").await;
    let (built_meanwhile, meanwhile, _) = one.put_result("", 9).await;
    assert!(one.has(&digest).await && one.has(&blobs[0]).await, "expected the coordinator's own copies");
    assert_eq!(as_written(one.stores.cached_result("", &action).await.unwrap()), Some(result.clone()));
    assert!(!other.has(&digest).await);
    assert_eq!(other.stores.cached_result("", &action).await.unwrap(), None, "expected a miss and no error");
    redis.restart();
    one.becomes(|health| *health == Health::Up).await;
    other.becomes(|health| *health == Health::Up).await;
    let after = one.put(b"after it came back").await;
    assert!(other.has(&after).await);
    // What was built in the meantime is shared without a request for it.
    while as_written(other.stores.cached_result("", &built_meanwhile).await.unwrap()) != Some(meanwhile.clone()) {
        tokio::task::yield_now().await;
    }
    // What a coordinator still has is shared again by its next use.
    one.stores.actions.put("", &action, result.clone()).await.unwrap();
    assert_eq!(as_written(other.stores.cached_result("", &action).await.unwrap()), Some(result));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_waited_for_once() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let one = coordinator(&redis.url()).await;
    let known = one.put(b"known").await;
    redis.signal("STOP");
    // Many concurrent callers wait together for one timeout, and later ones not at all.
    let puts = (0..500_u32).map(|seed| {
        let one = &one;
        async move { one.put(&seed.to_le_bytes()).await }
    });
    futures::future::join_all(puts).await;
    assert!(matches!(&*one.stores.redis.as_ref().unwrap().health().borrow(), Health::Away(_)));
    for seed in 1_000..2_000_u32 {
        one.put(&seed.to_le_bytes()).await;
    }
    assert!(one.has(&known).await);
    redis.signal("CONT");
    one.becomes(|health| *health == Health::Up).await;
    let digest = one.put(b"after").await;
    assert!(coordinator(&redis.url()).await.has(&digest).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_is_still_read_and_written_again_when_it_has_room() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let known = one.put(b"before it was full").await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let digest = one.put(b"no room for this").await;
    assert!(matches!(&*one.stores.redis.as_ref().unwrap().health().borrow(), Health::NoWrites(_)));
    assert!(one.has(&digest).await, "expected the coordinator's own copy");
    assert!(other.has(&known).await && !other.has(&digest).await);
    assert_eq!(other.blobs().get(&known).await.unwrap(), "before it was full");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let mut seed = 0_u64;
    while *one.stores.redis.as_ref().unwrap().health().borrow() != Health::Up {
        seed += 1;
        one.put(&seed.to_le_bytes()).await;
    }
    let digest = one.put(b"room again").await;
    assert!(other.has(&digest).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_read_and_not_written() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let one = coordinator(&redis.url()).await;
    let known = one.put(b"before the failover").await;
    let large = one.put(&noise(1, 5 * MIB)).await;
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    redis.cli(&["CONFIG", "SET", "replica-serve-stale-data", "yes"]);
    let digest = one.put(b"lost to others").await;
    assert!(matches!(&*one.stores.redis.as_ref().unwrap().health().borrow(), Health::NoWrites(_)));
    let other = coordinator(&redis.url()).await;
    assert!(other.has(&known).await && other.has(&large).await && !other.has(&digest).await);
    assert_eq!(other.blobs().get(&known).await.unwrap(), "before the failover");
}
