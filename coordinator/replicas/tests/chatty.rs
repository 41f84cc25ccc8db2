//! What a journal in Redis costs, beside one in a file:
//! `cargo test -p kiln-replicas --test chatty -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_harness::redis::Redis;
use kiln_journal::{Batch, Durability, Engine, Fsync, Journal, RedbEngine};
use kiln_redis::{Address, Tls};
use kiln_replicas::{RedisRegister, Register, Replica, Replicas, Standing, Timing};
use kiln_state::FarmKey;

const EVENTS: u64 = 50_000;
const COMMITS: u32 = 200;

async fn register(redis: &Redis) -> RedisRegister {
    let address = Address::parse(&redis.url(), &Tls::default()).unwrap();
    RedisRegister::open(address, "kiln", FarmKey::of(&[7; 32])).await.unwrap()
}

fn replica(name: &str) -> Replica {
    Replica { name: name.into(), address: format!("http://{name}"), version: "1".into(), protocol: 2 }
}

async fn in_redis(redis: &Redis) -> Arc<dyn Engine> {
    let register = register(redis).await;
    let claimed = register.claim(&replica("a"), None, Duration::from_secs(3600)).await.unwrap();
    register.journal("", &claimed.holder.unwrap().1)
}

async fn measure(name: &str, engine: Arc<dyn Engine>) {
    let journal = Journal::over(engine, Fsync::default());
    for durability in [Durability::Relaxed, Durability::Durable] {
        let mut took = Vec::new();
        for number in 0..COMMITS {
            let began = Instant::now();
            let batch = Batch::default().put("records", number.to_string(), vec![0; 200]);
            journal.commit(batch, durability).await.unwrap();
            took.push(began.elapsed());
        }
        took.sort();
        let at = |part: usize| took[took.len() * part / 100];
        println!("{name}: {durability:?} commit, one at a time: median {:?}, 99 % {:?}", at(50), at(99));
    }
    let began = Instant::now();
    let all = (0..5_000).map(|number| {
        journal.commit(Batch::default().put("records", format!("{number}"), vec![0; 200]), Durability::Durable)
    });
    for committed in all.collect::<Vec<_>>() {
        committed.await.unwrap();
    }
    println!("{name}: {:.0} durable commits/s, many at a time", 5_000.0 / began.elapsed().as_secs_f64());
    let stream = journal.new_stream("build");
    let event = Bytes::from(vec![b'x'; 100]);
    let began = Instant::now();
    for number in 0..EVENTS {
        stream.append(|_| event.clone());
        // As a build does that gets its output from a worker.
        if number % 64 == 0 {
            stream.room().await;
            tokio::task::yield_now().await;
        }
    }
    journal.settle().await.unwrap();
    println!("{name}: {:.0} events/s of 100 bytes", EVENTS as f64 / began.elapsed().as_secs_f64());
    let began = Instant::now();
    let read = journal.read("build", 0, usize::MAX).await.unwrap();
    println!("{name}: {:.0} events/s read", read.len() as f64 / began.elapsed().as_secs_f64());
}

fn memory(redis: &Redis) -> u64 {
    let info = redis.cli(&["INFO", "memory"]);
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn commits_and_events() {
    let directory = tempfile::tempdir_in(".").unwrap();
    let redb = RedbEngine::open(&directory.path().join("journal.redb"), true).unwrap();
    measure("redb", Arc::new(redb)).await;
    for fsync in ["everysec", "always"] {
        let redis = Redis::with(&["--appendonly", "yes", "--appendfsync", fsync]);
        let before = memory(&redis);
        measure(&format!("Redis, {fsync}"), in_redis(&redis).await).await;
        println!("Redis, {fsync}: {} KiB of memory for all of it", (memory(&redis) - before) >> 10);
        if let Some(valkey) = Redis::valkey(&["--appendfsync", fsync]) {
            measure(&format!("Valkey, {fsync}"), in_redis(&valkey).await).await;
        }
    }
}

async fn leads(replicas: &Replicas) {
    let mut standing = replicas.standing();
    standing.wait_for(|standing| matches!(standing, Standing::Leads(_))).await.unwrap();
}

#[test]
#[ignore = "a measurement"]
fn takeover() {
    let Some(redis) = Redis::durable() else { return };
    let join = async |name: &str| {
        Replicas::join(Arc::new(register(&redis).await), replica(name), Timing::default()).await.unwrap()
    };
    // A handle that is dropped gives its lease back.
    let mut handles = Vec::new();
    let start = |name: usize| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let replicas = runtime.block_on(join(&name.to_string()));
        (runtime, replicas)
    };
    let mut leading = start(0);
    leading.0.block_on(leads(&leading.1));
    for at in 1..=5 {
        let (next, last) = (start(2 * at), start(2 * at + 1));
        // Nothing of it runs any more: like a process that was killed.
        leading.0.shutdown_background();
        handles.push(leading.1);
        let began = Instant::now();
        let (is_first, took) = next.0.block_on(async {
            tokio::select! {
                () = leads(&next.1) => (true, began.elapsed()),
                () = leads(&last.1) => (false, began.elapsed()),
            }
        });
        println!("another one leads {took:?} after the leader was killed");
        let (resigning, other) = if is_first { (next, last) } else { (last, next) };
        let began = Instant::now();
        resigning.0.block_on(resigning.1.resign());
        other.0.block_on(leads(&other.1));
        println!("another one leads {:?} after the leader resigned", began.elapsed());
        resigning.0.shutdown_background();
        handles.push(resigning.1);
        leading = other;
    }
}
