//! A Redis that would lose a journal is refused at the start.

use kiln_harness::redis::Redis;
use kiln_replicas::{Register, Replica};

use super::support::{LEASE, register, register_at, replica};

async fn refused(redis: &Redis) -> String {
    register_at(&redis.url()).await.expect_err("expected the settings to be refused").to_string()
}

#[tokio::test]
async fn settings_that_lose_a_journal_are_refused_with_their_fix() {
    let redis = Redis::start();
    assert!(refused(&redis).await.contains("run `CONFIG SET appendonly yes`"));
    redis.cli(&["CONFIG", "SET", "appendonly", "yes"]);
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert!(refused(&redis).await.contains("set `maxmemory-policy` to `noeviction`"));
    for policy in ["volatile-lru", "noeviction"] {
        redis.cli(&["CONFIG", "SET", "maxmemory-policy", policy]);
        let warnings = register(&redis).await.check(&replica("a")).await.unwrap();
        assert!(warnings.iter().all(|warning| warning.contains("appendfsync everysec")), "{warnings:?}");
    }
    redis.cli(&["CONFIG", "SET", "appendfsync", "always"]);
    assert_eq!(register(&redis).await.check(&replica("a")).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_managed_redis_without_config_is_judged_by_what_it_tells() {
    let redis = Redis::with(&["--appendonly", "yes", "--rename-command", "CONFIG", ""]);
    assert_eq!(register(&redis).await.check(&replica("a")).await.unwrap(), [""; 0]);
    let redis = Redis::with(&["--appendonly", "no", "--rename-command", "CONFIG", ""]);
    assert!(refused(&redis).await.contains("`appendonly no`"));
}

#[tokio::test]
async fn a_replica_of_redis_is_refused() {
    let (Some(master), Some(replica)) = (Redis::durable(), Redis::durable()) else { return };
    replica.cli(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    let words = refused(&replica).await;
    assert!(words.contains("takes no writes") && words.contains("redis+sentinel://"), "{words}");
}

#[tokio::test]
async fn coordinators_that_are_too_far_apart_do_not_form_a_farm() {
    let Some(redis) = Redis::durable() else { return };
    redis.cli(&["CONFIG", "SET", "appendfsync", "always"]);
    let register = register(&redis).await;
    register.claim(&replica("a"), None, LEASE).await.unwrap();
    let other = |version: &str, protocol| Replica { version: version.into(), protocol, ..replica("b") };
    let warnings = register.check(&other("1.1.0", 3)).await.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("version 1.0.0 and this one 1.1.0"), "{warnings:?}");
    let refused = register.check(&other("2.0.0", 4)).await.unwrap_err().to_string();
    assert!(refused.contains("`a` speaks protocol 2") && refused.contains("stop it first"), "{refused}");
}
