//! Whoever can write to Redis makes nothing up.

use bytes::Bytes;
use kiln_harness::redis::Redis;
use kiln_journal::{Error, Range};
use kiln_replicas::{RedisRegister, Register};
use kiln_state::FarmKey;
use kiln_state::farm_key::rotate;

use super::support::{LEASE, address, append, claim, get, led, put, raw, register, replica, soon};

const RECORDS: &str = "{kiln}:journal::records:records";
const STREAM: &str = "{kiln}:journal::stream:stream";

async fn field(redis: &Redis, key: &str, field: &str) -> Vec<u8> {
    raw(redis, redis::cmd("HGET").arg(key).arg(field)).await
}

async fn set(redis: &Redis, key: &str, field: &str, value: &[u8]) {
    let _: i64 = raw(redis, redis::cmd("HSET").arg(key).arg(field).arg(value)).await;
}

fn is_forged<T: std::fmt::Debug>(found: Result<T, Error>) {
    let error = found.expect_err("expected a forged value to be refused");
    assert!(matches!(&error, Error::Forged { .. }) && error.to_string().contains("does not seal"), "{error}");
}

#[tokio::test]
async fn a_record_is_refused_unless_this_farm_sealed_it_for_this_place() {
    let Some(redis) = Redis::durable() else { return };
    let (register, term, journal) = led(&redis).await;
    journal.commit([put("a", "mine"), put("b", "other")].concat(), true).await.unwrap();
    register.journal("acme", &term).commit(put("a", "a tenant's"), true).await.unwrap();
    let get = async || journal.get("records", vec!["a".into()]).await;
    let sealed = field(&redis, RECORDS, "a").await;
    let plain = b"mine".to_vec();
    let mut changed = sealed.clone();
    *changed.last_mut().unwrap() ^= 1;
    let moved = field(&redis, RECORDS, "b").await;
    let tenants = field(&redis, "{kiln}:journal:acme:records:records", "a").await;
    for value in [plain, Vec::new(), changed, moved, tenants] {
        set(&redis, RECORDS, "a", &value).await;
        is_forged(get().await);
        is_forged(journal.list("records", Range::default()).await);
    }
    set(&redis, RECORDS, "a", &sealed).await;
    assert_eq!(get().await.unwrap(), [Some(Bytes::from("mine"))]);
    let _: i64 = raw(&redis, redis::cmd("ZADD").arg("{kiln}:journal::order:records").arg(0).arg("c")).await;
    is_forged(journal.list("records", Range::default()).await);
}

#[tokio::test]
async fn an_entry_is_refused_unless_this_farm_sealed_it_for_this_position() {
    let Some(redis) = Redis::durable() else { return };
    let (_, _, journal) = led(&redis).await;
    journal.commit(append(0, "mine"), true).await.unwrap();
    let entries: Vec<(String, Vec<Vec<u8>>)> = raw(&redis, redis::cmd("XRANGE").arg(STREAM).arg("-").arg("+")).await;
    let sealed = entries[0].1[1].clone();
    for (id, field, value) in
        [("9-1", "d", sealed.clone()), ("9-1", "d", b"made up".to_vec()), ("9-7", "d", sealed.clone())]
    {
        let _: String = raw(&redis, redis::cmd("XADD").arg(STREAM).arg(id).arg(field).arg(value)).await;
        is_forged(journal.read("stream", 0, usize::MAX).await);
        is_forged(journal.end("stream").await);
        let _: i64 = raw(&redis, redis::cmd("DEL").arg(STREAM)).await;
        let _: String = raw(&redis, redis::cmd("XADD").arg(STREAM).arg("0-1").arg("d").arg(&sealed)).await;
        assert_eq!(journal.read("stream", 0, usize::MAX).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_made_up_replica_is_nobody_and_leads_nowhere() {
    let Some(redis) = Redis::durable() else { return };
    let (register, ..) = led(&redis).await;
    let mine = field(&redis, "{kiln}:lease", "replica").await;
    let now: Vec<u64> = raw(&redis, &redis::cmd("TIME")).await;
    let json = br#"{"name":"evil","address":"http://evil","version":"1.0.0","protocol":2}"#;
    let unsealed = [format!("{}000 ", now[0]).as_bytes(), json].concat();
    set(&redis, "{kiln}:replicas", "evil", &unsealed).await;
    let all = register.claim(&replica("b"), None, LEASE).await.unwrap().all;
    assert_eq!(all, [replica("a"), replica("b")]);
    for record in [json.to_vec(), mine] {
        set(&redis, "{kiln}:lease", "name", b"evil").await;
        set(&redis, "{kiln}:lease", "replica", &record).await;
        let refused = register.claim(&replica("b"), None, LEASE).await.unwrap_err().to_string();
        assert!(refused.contains("not sealed with this farm's key"), "{refused}");
    }
}

#[tokio::test]
async fn two_farms_do_not_share_a_prefix() {
    let Some(redis) = Redis::durable() else { return };
    for name in ["a", "b"] {
        register(&redis).await.check(&replica(name)).await.unwrap();
    }
    let open = async |prefix| RedisRegister::open(address(&redis.url()), prefix, FarmKey::of(&[8; 32])).await;
    let refused = open("kiln").await.unwrap_err().to_string();
    assert!(refused.contains("belong to another farm") && refused.contains("use another prefix"), "{refused}");
    open("kiln2").await.unwrap().check(&replica("c")).await.unwrap();
    let refused = open("a{b").await.unwrap_err().to_string();
    assert!(refused.contains("invalid prefix `a{b`"), "{refused}");
}

#[tokio::test]
async fn a_farm_whose_key_is_rotated_again_and_again_keeps_its_journal() {
    let Some(redis) = Redis::durable() else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farm.key");
    let open = async || RedisRegister::open(address(&redis.url()), "kiln", FarmKey::open(&path).unwrap()).await;
    let running = open().await.unwrap();
    let first = claim(&running, None).await;
    running.journal("", &first).commit(put("a", "first"), true).await.unwrap();
    let stored = || redis.cli(&["--no-raw", "GET", "{kiln}:farm"]);
    for _ in 0..3 {
        let before = stored();
        rotate(&path).unwrap();
        // The running coordinator finds the new key, and stores the secret with it.
        soon("the secret to be stored anew", async {
            while stored() == before {
                claim(&running, Some(&first)).await;
            }
        })
        .await;
        let journal = open().await.unwrap().journal("", &first);
        assert_eq!(get(&*journal, "a").await.as_deref(), Some("first"));
    }
    for _ in 0..2 {
        rotate(&path).unwrap();
        // Each start does so too.
        open().await.unwrap();
    }
    assert_eq!(get(&*open().await.unwrap().journal("", &first), "a").await.as_deref(), Some("first"));
    std::fs::remove_file(&path).unwrap();
    assert!(open().await.unwrap_err().to_string().contains("another farm"));
}

#[tokio::test]
async fn a_farm_whose_redis_was_emptied_can_read_what_it_writes_then() {
    let Some(redis) = Redis::durable() else { return };
    let (running, first, _) = led(&redis).await;
    redis.cli(&["FLUSHALL"]);
    let second = claim(&running, Some(&first)).await;
    running.journal("", &second).commit(put("a", "second"), true).await.unwrap();
    let started = register(&redis).await;
    assert_eq!(get(&*started.journal("", &second), "a").await.as_deref(), Some("second"));
    // Meanwhile another one may have made a new farm of it: then this one has no part in it.
    redis.cli(&["FLUSHALL"]);
    let new = register(&redis).await;
    let refused = running.claim(&replica("a"), None, LEASE).await.unwrap_err().to_string();
    assert!(refused.contains("belong to another farm"), "{refused}");
    new.check(&replica("b")).await.unwrap();
}

#[tokio::test]
async fn a_key_of_another_kind_in_the_way_is_an_error_and_nothing_is_changed() {
    let Some(redis) = Redis::durable() else { return };
    let (_, _, journal) = led(&redis).await;
    redis.cli(&["SET", RECORDS, "text"]);
    let before = super::support::contents(&redis).await;
    let refused = journal.commit([append(0, "entry"), put("a", "1")].concat(), true).await.unwrap_err();
    assert!(refused.to_string().contains("is a string and not a hash"), "{refused}");
    assert_eq!(super::support::contents(&redis).await, before);
}
