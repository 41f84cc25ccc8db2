//! Results of actions, their lifetimes, and other farms' keys.

use kiln_auth::FarmKey;
use kiln_store::Error;

use crate::coordinator::{coordinator, redis_or_skip};
use crate::support::{SHA256, noise};
use kiln_harness::redis::Redis;
use kiln_harness::remote::as_written;

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_a_hit_through_the_other_coordinator_only_while_it_is_whole() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let (action, result, blobs) = one.put_result("team/a", 1).await;
    assert_eq!(as_written(other.stores.cached_result("team/a", &action).await.unwrap()), Some(result.clone()));
    assert_eq!(other.stores.cached_result("team/b", &action).await.unwrap(), None, "expected tenants to be separate");
    assert_eq!(other.stores.cached_result("", &action).await.unwrap(), None);
    for blob in &blobs {
        let key = format!("kiln:2:b:sha256:{}-{}", blob.hex(), blob.size);
        redis.cli(&["DEL", &key]);
        // One that has fetched nothing of it yet.
        let other = coordinator(&redis.url()).await;
        assert_eq!(other.stores.cached_result("team/a", &action).await.unwrap(), None, "expected none without {blob}");
        // The one that still has it shares it again with the next result.
        one.stores.actions.put("team/a", &action, result.clone()).await.unwrap();
        assert_eq!(as_written(other.stores.cached_result("team/a", &action).await.unwrap()), Some(result.clone()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_result_is_removed_for_every_coordinator() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let (action, result, _) = one.put_result("", 1).await;
    other.stores.actions.remove("", &action).await.unwrap();
    assert_eq!(one.stores.cached_result("", &action).await.unwrap(), None);
    other.stores.actions.put("", &action, result.clone()).await.unwrap();
    assert_eq!(as_written(one.stores.cached_result("", &action).await.unwrap()), Some(result));
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_a_blob_and_hitting_a_result_extend_their_life() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let (action, _, blobs) = one.put_result("", 1).await;
    let lives = |redis: &Redis| {
        redis.keys("kiln:*").iter().map(|key| redis.cli(&["TTL", key]).parse::<i64>().unwrap()).min().unwrap()
    };
    let shorten = |redis: &Redis| redis.keys("kiln:*").iter().for_each(|key| drop(redis.cli(&["EXPIRE", key, "100"])));
    assert!(lives(&redis) > 1_000_000);
    shorten(&redis);
    assert!(other.stores.cached_result("", &action).await.unwrap().is_some());
    assert!(lives(&redis) > 1_000_000, "expected a hit to extend the life of all that it names, and its own");
    shorten(&redis);
    // One that has fetched nothing, and does not know how lately they were used.
    let third = coordinator(&redis.url()).await;
    assert!(third.blobs().find_missing(&blobs).await.unwrap().is_empty());
    let blob_keys = redis.keys("kiln:2:b:*");
    let shortest = blob_keys.iter().map(|key| redis.cli(&["TTL", key]).parse::<i64>().unwrap()).min().unwrap();
    assert!(shortest > 1_000_000, "expected FindMissingBlobs to extend the life of what it finds");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_programs_keys_and_older_layouts_are_left_alone() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    redis.cli(&["SET", "session:1", "theirs"]);
    redis.cli(&["LPUSH", "kiln", "theirs"]);
    redis.cli(&["SET", "kiln:0:b:sha256:00-1", "an older layout"]);
    let data = noise(1, 100);
    let digest = SHA256.digest(&data);
    let key = format!("kiln:2:b:sha256:{}-{}", digest.hex(), digest.size);
    redis.cli(&["LPUSH", &key, "not even a string"]);
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    assert!(matches!(one.blobs().get(&digest).await, Err(Error::NotFound { .. })));
    one.put(&data).await;
    assert_eq!(one.blobs().get(&digest).await.unwrap(), data);
    assert_eq!(other.blobs().get(&digest).await.unwrap(), data);
    assert_eq!(redis.cli(&["GET", "session:1"]), "theirs");
    assert_eq!(redis.cli(&["LRANGE", "kiln", "0", "-1"]), "theirs");
    assert_eq!(redis.cli(&["GET", "kiln:0:b:sha256:00-1"]), "an older layout");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_can_write_to_redis_causes_misses_and_nothing_else() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let (action, result, _) = one.put_result("shop", 1).await;
    let (victim, _, _) = one.put_result("shop", 2).await;
    let key_of = |digest: &kiln_proto::digest::Digest, instance: &str| {
        format!("kiln:2:a:sha256:{}-{}:{instance}", digest.hex(), digest.size)
    };
    // A valid value under the key of another action and of another instance.
    for (digest, instance) in [(&victim, "shop"), (&action, "bank")] {
        redis.cli(&["COPY", &key_of(&action, "shop"), &key_of(digest, instance), "REPLACE"]);
        assert_eq!(
            other.stores.cached_result(instance, digest).await.unwrap(),
            None,
            "expected a moved value to be ignored"
        );
    }
    // One that another farm's key sealed, and an unsealed one, as an earlier version wrote them.
    let stranger = crate::coordinator::coordinator_of(&redis.url(), FarmKey::of(&[8; 32])).await;
    stranger.stores.actions.put("shop", &action, result.clone()).await.unwrap();
    assert_eq!(other.stores.cached_result("shop", &action).await.unwrap(), None);
    let mut plain = vec![0_u8];
    plain.extend_from_slice(&prost::Message::encode_to_vec(&result));
    redis.set(&key_of(&action, "shop"), &plain);
    assert_eq!(other.stores.cached_result("shop", &action).await.unwrap(), None);
    // Whoever has the farm's key writes it again.
    one.stores.actions.put("shop", &action, result.clone()).await.unwrap();
    assert_eq!(as_written(other.stores.cached_result("shop", &action).await.unwrap()), Some(result));
}
