//! Registers on real Redis servers.

#![allow(dead_code, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use kiln_harness::redis::Redis;
use kiln_journal::Engine;
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
