//! Three replicas lead by turns while Redis is killed, stopped and restarted, and leaders resign: what was acknowledged is there, in the
//! order of the terms. It prints its seed; `KILN_CHAOS_SEED` repeats the same faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_harness::redis::Redis;
use kiln_journal::{Batch, Durability, Error, Fsync, Journal};
use kiln_replicas::{Lead, Replicas, Standing, Timing};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use super::support::{register, replica, soon};

const TIMING: Timing = Timing { lease: Duration::from_millis(1500), renew: Duration::from_millis(300) };
const FAULTS: usize = 12;

/// What was promised: the epoch by position, and how many of each term.
#[derive(Debug, Default)]
struct Acknowledged {
    /// Only durable entries are promised.
    durable_only: bool,
    entries: BTreeMap<u64, u64>,
    epochs: BTreeMap<u64, usize>,
}

/// Leads as long as it may: appends entries with the term's epoch, durable ones and others by turns.
async fn lead(replicas: &Replicas, lead: Lead, acknowledged: &Mutex<Acknowledged>) -> Result<(), Error> {
    let engine = replicas.register().journal("", &lead.term);
    let journal = Journal::over(engine, Fsync::Interval(Duration::from_millis(50)));
    let stream = journal.resume_stream("log").await?;
    let epoch = lead.term.epoch;
    let mut turn = 0_u64;
    while !lead.is_over() {
        let mut position = 0;
        turn += 1;
        let entry = |at| {
            position = at;
            Bytes::from(epoch.to_string())
        };
        let batch = Batch::default().put("epochs", format!("{epoch:09}"), epoch.to_string());
        let durability = if turn.is_multiple_of(4) { Durability::Durable } else { Durability::Relaxed };
        match stream.append_with(batch, durability, entry).await {
            Ok(()) => {
                let mut acknowledged = acknowledged.lock();
                if acknowledged.durable_only && durability != Durability::Durable {
                    continue;
                }
                acknowledged.entries.insert(position, epoch);
                *acknowledged.epochs.entry(epoch).or_default() += 1;
            }
            Err(fenced @ Error::Fenced { .. }) => return Err(fenced),
            Err(_) => {}
        }
    }
    Ok(())
}

/// A coordinator: it leads whenever it is its turn.
async fn coordinate(replicas: Replicas, acknowledged: Arc<Mutex<Acknowledged>>, mut ends: watch::Receiver<bool>) {
    let mut standing = replicas.standing();
    loop {
        let next = async {
            let leads = standing.wait_for(|standing| matches!(standing, Standing::Leads(_))).await.unwrap();
            let Standing::Leads(lead) = &*leads else { unreachable!("it was waited for") };
            lead.clone()
        };
        let term = tokio::select! {
            lead = next => lead,
            _ = ends.wait_for(|ends| *ends) => return,
        };
        tokio::select! {
            _ = lead(&replicas, term.clone(), &acknowledged) => {}
            _ = ends.wait_for(|ends| *ends) => return,
        }
        // A term that failed to begin, or has been lost without its lease, is given up.
        if !term.is_over() {
            replicas.resign().await;
            replicas.resume();
        }
        tokio::task::yield_now().await;
    }
}

/// A Redis that has each commit on its disk before it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_in_the_order_of_the_terms() {
    if !kiln_harness::redis::is_installed() {
        return kiln_harness::cannot_run("redis-server is not installed");
    }
    let redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    turmoil(redis, false).await;
}

/// One that is asked to, for durable commits only: killed, it may lose up to two seconds of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_durable_is_there_although_redis_has_lost_its_last_seconds() {
    let Some(redis) = Redis::valkey(&[]) else { return };
    turmoil(redis, true).await;
}

async fn turmoil(mut redis: Redis, durable_only: bool) {
    let seed = std::env::var("KILN_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("KILN_CHAOS_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let acknowledged = Arc::new(Mutex::new(Acknowledged { durable_only, ..Acknowledged::default() }));
    let (end, ends) = watch::channel(false);
    let mut replicas = Vec::new();
    let mut running = Vec::new();
    for name in ["a", "b", "c"] {
        let joined = Replicas::join(Arc::new(register(&redis).await), replica(name), TIMING).await.unwrap();
        running.push(tokio::spawn(coordinate(joined.clone(), acknowledged.clone(), ends.clone())));
        replicas.push(joined);
    }
    let total = || acknowledged.lock().entries.len();
    for _ in 0..FAULTS {
        // Between two faults something is acknowledged, whatever happened.
        let (before, wanted) = (total(), rng.random_range(1..if durable_only { 20 } else { 200 }));
        soon("entries to be acknowledged", async {
            while total() < before + wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        match rng.random_range(0..4) {
            0 => redis.restart(),
            1 | 2 => {
                redis.signal("STOP");
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..2_500))).await;
                redis.signal("CONT");
            }
            _ => {
                let leading = replicas.iter().find(|one| matches!(*one.standing().borrow(), Standing::Leads(_)));
                if let Some(leading) = leading {
                    leading.resign().await;
                    leading.resume();
                }
            }
        }
    }
    end.send_replace(true);
    for one in running {
        one.await.unwrap();
    }
    let mut standing = replicas[0].standing();
    // Its register is that of all others: reading is free to all.
    soon("a leader", standing.wait_for(|standing| !matches!(standing, Standing::Vacant))).await.unwrap();
    let term = match &*standing.borrow() {
        Standing::Leads(lead) => lead.term.clone(),
        Standing::Follows { term, .. } => term.clone(),
        Standing::Vacant => unreachable!("it was waited for"),
    };
    let journal = replicas[0].register().journal("", &term);
    let read = soon("the journal to be read", async {
        loop {
            if let Ok(read) = journal.read("log", 0, usize::MAX).await {
                return read;
            }
        }
    })
    .await;
    let epoch = |data: &Bytes| std::str::from_utf8(data).unwrap().parse::<u64>().unwrap();
    let there: BTreeMap<u64, u64> = read.iter().map(|entry| (entry.position, epoch(&entry.data))).collect();
    let acknowledged = acknowledged.lock();
    for (position, epoch) in &acknowledged.entries {
        assert_eq!(there.get(position), Some(epoch), "entry {position} of epoch {epoch} was acknowledged");
    }
    let epochs: Vec<u64> = there.values().copied().collect();
    assert!(epochs.is_sorted(), "an ended term has written behind the next one: {epochs:?}");
    assert!(acknowledged.epochs.len() > 1, "expected several terms: {:?}", acknowledged.epochs);
    println!("{} entries acknowledged in {} terms", acknowledged.entries.len(), acknowledged.epochs.len());
}
