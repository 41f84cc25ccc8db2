//! Blobs of every size, in one Redis or a cluster, complete and damaged.

use bytes::Bytes;
use kiln_proto::digest::Digest;
use kiln_store::Error;

use crate::MIB;
use crate::coordinator::{Coordinator, coordinator, redis_or_skip};
use crate::support::{BLAKE3, SHA256, noise};
use kiln_harness::redis::{Cluster, Redis};
use kiln_harness::remote::as_written;

async fn shares_blobs(one: &Coordinator, other: &Coordinator) {
    for (function, size) in
        [(SHA256, 10), (BLAKE3, 100_000), (SHA256, 2 * MIB), (SHA256, 2 * MIB + 1), (BLAKE3, 20 * MIB)]
    {
        let data = noise(size as u64, size);
        let digest = one.put_as(function, &data).await;
        assert!(other.has(&digest).await, "expected {size} bytes of {function:?} through the other coordinator");
        assert_eq!(other.blobs().get(&digest).await.unwrap(), data);
        assert_eq!(other.read(&digest, 0, None).await.unwrap(), data);
        let (from, count) = (size / 3, size / 2);
        let part = other.read(&digest, from as u64, Some(count as u64)).await.unwrap();
        assert_eq!(part, data[from..from + count], "expected a part of {size} bytes");
        assert!(matches!(other.read(&digest, size as u64 + 1, None).await, Err(Error::OutOfRange { .. })));
    }
    let many: Vec<Vec<u8>> = (0..3_000).map(|seed| noise(seed, 300)).collect();
    let mut digests = Vec::new();
    for data in &many {
        digests.push(one.put(data).await);
    }
    let absent = SHA256.digest(b"never stored");
    digests.push(absent);
    let found = other.blobs().get_many(&digests).await;
    for (data, found) in many.iter().zip(&found) {
        assert_eq!(found.as_ref().unwrap(), data);
    }
    assert!(matches!(found.last(), Some(Err(Error::NotFound { .. }))));
    assert_eq!(other.blobs().find_missing(&digests).await.unwrap(), [absent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_on_one_redis_share_blobs_of_every_size() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    shares_blobs(&coordinator(&redis.url()).await, &coordinator(&redis.url()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_on_a_cluster_of_three_nodes_share_blobs_and_results() {
    if !redis_or_skip() {
        return;
    }
    let cluster = Cluster::start();
    let (one, other) = (coordinator(&cluster.url()).await, coordinator(&cluster.nodes[1].url()).await);
    shares_blobs(&one, &other).await;
    let (action, result, _) = one.put_result("", 7).await;
    assert_eq!(as_written(other.stores.cached_result("", &action).await.unwrap()), Some(result));
    for node in &cluster.nodes {
        assert!(!node.keys("kiln:*").is_empty(), "expected every node to hold some of the keys");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_that_changed_a_little_costs_redis_its_changed_chunks() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let one = coordinator(&redis.url()).await;
    let before = noise(1, 24 * MIB);
    one.put(&before).await;
    let keys = redis.keys("kiln:*").len();
    assert!(keys > 20, "expected a blob of 24 MiB in many parts, found {keys} keys");
    let mut after = before.clone();
    after.splice(10 * MIB..10 * MIB + 5, *b"a change of another length");
    let digest = one.put(&after).await;
    let added = redis.keys("kiln:*").len() - keys;
    assert!(added <= 4, "expected a list and at most 3 new chunks, found {added} new keys");
    assert_eq!(coordinator(&redis.url()).await.blobs().get(&digest).await.unwrap(), after);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shrinks_is_stored_compressed() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let one = coordinator(&redis.url()).await;
    let digest = one.put(&vec![b'a'; MIB]).await;
    let key = redis.keys("kiln:*").remove(0);
    let stored: usize = redis.cli(&["STRLEN", &key]).parse().unwrap();
    assert!(stored < 10_000, "expected a MiB of one letter to shrink, found {stored} bytes");
    assert_eq!(coordinator(&redis.url()).await.blobs().get(&digest).await.unwrap(), vec![b'a'; MIB]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_in_parts_is_invisible_until_whole() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let data = noise(3, 10 * MIB);
    let digest = SHA256.digest(&data);
    let mut writer = one.blobs().write(&digest).await.unwrap();
    writer.write(Bytes::copy_from_slice(&data[..9 * MIB])).await.unwrap();
    assert!(!other.has(&digest).await);
    drop(writer);
    assert!(!other.has(&digest).await);
    one.put(&data).await;
    // If any part is evicted the whole is absent, and no read returns wrong data.
    for key in redis.keys("kiln:*") {
        let value = redis.cli(&["DUMP", &key]);
        assert!(!value.is_empty());
        redis.cli(&["RENAME", &key, "aside"]);
        assert!(!other.has(&digest).await, "expected the blob to be absent without `{key}`");
        assert!(matches!(other.blobs().get(&digest).await, Err(Error::NotFound { .. })));
        redis.cli(&["RENAME", "aside", &key]);
    }
    assert_eq!(other.blobs().get(&digest).await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_absent_and_removed() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let (small, large) = (one.put(&noise(1, 1_000)).await, one.put(&noise(2, 6 * MIB)).await);
    let key = |digest: &Digest| format!("kiln:2:b:sha256:{}-{}", digest.hex(), digest.size);
    redis.cli(&["SETRANGE", &key(&small), "100", "damage"]);
    redis.cli(&["SETRANGE", &key(&large), "50", "damage"]);
    for digest in [small, large] {
        assert!(matches!(other.blobs().get(&digest).await, Err(Error::NotFound { .. })), "expected {digest} absent");
        assert_eq!(redis.cli(&["EXISTS", &key(&digest)]), "0", "expected the damaged value to be removed");
        assert!(one.blobs().get(&digest).await.is_ok(), "expected the writer's own copy to be whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_the_bound_stays_out_of_redis() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let digest = one.put(&noise(1, 33 * MIB)).await;
    assert!(one.has(&digest).await && !other.has(&digest).await);
    assert!(redis.keys("*").is_empty());
}
