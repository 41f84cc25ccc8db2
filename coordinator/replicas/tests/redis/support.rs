//! Registers on real Redis servers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_harness::redis::Redis;
use kiln_journal::{Engine, Write};
use kiln_redis::{Address, Tls};
use kiln_replicas::{Claimed, Error, RedisRegister, Register, Replica, Term};
use kiln_state::FarmKey;

pub const LEASE: Duration = Duration::from_secs(60);

/// The key of the farm of these tests.
pub fn key() -> FarmKey {
    FarmKey::of(&[7; 32])
}

pub fn replica(name: &str) -> Replica {
    Replica { name: name.into(), address: format!("http://{name}:8980"), version: "1.0.0".into(), protocol: 2 }
}

pub fn address(url: &str) -> Address {
    Address::parse(url, &Tls::default()).unwrap()
}

pub async fn register_at(url: &str) -> Result<RedisRegister, Error> {
    RedisRegister::open(address(url), "kiln", key()).await
}

pub async fn register(redis: &Redis) -> RedisRegister {
    register_at(&redis.url()).await.unwrap()
}

/// The term of whoever has the lease.
pub fn term(claimed: Claimed) -> Term {
    claimed.holder.expect("expected somebody to have the lease").1
}

/// A register, the term that `a` holds there for a minute, and the default tenant's journal.
pub async fn led(redis: &Redis) -> (RedisRegister, Term, Arc<dyn Engine>) {
    let register = register(redis).await;
    let claimed = register.claim(&replica("a"), None, LEASE).await.unwrap();
    let term = term(claimed);
    let journal = register.journal("", &term);
    (register, term, journal)
}

/// A batch that puts one record.
pub fn put(key: &str, value: &str) -> Vec<Arc<Vec<Write>>> {
    let value = Bytes::copy_from_slice(value.as_bytes());
    vec![Arc::new(vec![Write::Put { space: "records", key: key.to_owned(), value }])]
}

/// A batch that appends one entry.
pub fn append(position: u64, data: &str) -> Vec<Arc<Vec<Write>>> {
    let data = Bytes::copy_from_slice(data.as_bytes());
    vec![Arc::new(vec![Write::Append { stream: "stream".into(), position, data }])]
}

/// The record with this key.
pub async fn get(journal: &dyn Engine, key: &str) -> Option<String> {
    let found = journal.get("records", vec![key.to_owned()]).await.unwrap().pop().flatten();
    found.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// What a Redis holds, byte for byte.
pub async fn contents(redis: &Redis) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for key in redis.keys("*") {
        let read: &[&str] = match redis.cli(&["TYPE", &key]).as_str() {
            "hash" => &["HGETALL"],
            "set" => &["SMEMBERS"],
            "zset" => &["ZRANGE", "0", "-1", "WITHSCORES"],
            "stream" => &["XRANGE", "-", "+"],
            _ => &["GET"],
        };
        let mut command = redis::cmd(read[0]);
        command.arg(&key).arg(&read[1..]);
        let mut values = Vec::new();
        flatten(raw(redis, &command).await, &mut values);
        // A hash has no order.
        values.sort();
        found.insert(key, values);
    }
    found
}

fn flatten(value: redis::Value, values: &mut Vec<Vec<u8>>) {
    match value {
        redis::Value::Array(inner) => inner.into_iter().for_each(|value| flatten(value, values)),
        redis::Value::BulkString(bytes) => values.push(bytes.to_vec()),
        other => panic!("unexpected {other:?}"),
    }
}

/// Waits for something that must happen; fails with its name if it does not.
pub async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    let happened = tokio::time::timeout(Duration::from_secs(60), happens).await;
    happened.unwrap_or_else(|_| panic!("waited for {what}"))
}

/// Renews or takes the lease as `a`, again until Redis answers.
pub async fn claim(register: &RedisRegister, held: Option<&Term>) -> Term {
    loop {
        if let Ok(claimed) = register.claim(&replica("a"), held, LEASE).await {
            return term(claimed);
        }
    }
}

/// Runs a raw command with arbitrary bytes.
pub async fn raw<T: redis::FromRedisValue>(redis: &Redis, command: &redis::Cmd) -> T {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    command.query_async(&mut connection).await.unwrap()
}
