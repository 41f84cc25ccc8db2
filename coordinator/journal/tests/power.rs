//! Journals whose disk loses power at any moment: what was promised is there, whole, and in order.

#![allow(clippy::unwrap_used, missing_docs)]

mod disk;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use disk::Disk;
use kiln_journal::{Batch, Durability, Fsync, Journal, Range, RedbEngine, Stream, WINDOW};
use proptest::prelude::*;
use proptest::test_runner::TestRng;
use tokio::sync::watch;

/// Moments at which each run is cut off.
const CUTS: usize = 12;

#[derive(Debug, Clone)]
enum Action {
    /// A build tells something: so many bytes.
    Tell { build: u8, bytes: u16 },
    /// Something is recorded for which nobody waits.
    Note { key: u8 },
    /// A build is submitted; its caller waits.
    Submit,
    /// A build ends: its record and its last event; its caller waits.
    End { build: u8 },
    /// Whatever waits gets time to be committed.
    Breathe,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (0..4_u8, 0..3000_u16).prop_map(|(build, bytes)| Action::Tell { build, bytes }),
        2 => (0..8_u8).prop_map(|key| Action::Note { key }),
        2 => Just(Action::Submit),
        1 => (0..4_u8).prop_map(|build| Action::End { build }),
        3 => Just(Action::Breathe),
    ]
}

/// What a run promised, and when.
#[derive(Debug, Default)]
struct Promised {
    /// Submissions: the moment when they were acknowledged.
    submitted: Vec<usize>,
    /// Ends: the moment, the key, the stream and the position of the last entry.
    ended: Vec<(usize, String, String, u64)>,
    /// Entries of each stream.
    told: BTreeMap<String, u64>,
    /// The moment, the stream and its end as readers saw it.
    shown: Vec<(usize, String, u64)>,
}

fn engine(disk: &Disk) -> RedbEngine {
    let disk = disk.clone();
    let open = move || Ok(redb::Database::builder().set_cache_size(1 << 20).create_with_backend(disk.clone())?);
    RedbEngine::by("a disk", open).unwrap()
}

fn stream(build: u8) -> String {
    format!("build-{build}")
}

/// An entry that tells its position.
fn entry(bytes: u16) -> impl FnOnce(u64) -> Bytes {
    move |position| {
        let mut data = position.to_be_bytes().to_vec();
        data.resize(8 + usize::from(bytes), position as u8);
        data.into()
    }
}

async fn run(disk: &Disk, actions: &[Action], fsync: Fsync) -> Promised {
    let journal = Journal::over(Arc::new(engine(disk)), fsync);
    let streams: Vec<Stream> = (0..4).map(|build| journal.new_stream(&stream(build))).collect();
    let seen: Vec<watch::Receiver<u64>> = streams.iter().map(Stream::committed).collect();
    let mut promised = Promised::default();
    for action in actions {
        match action {
            Action::Tell { build, bytes } => {
                streams[usize::from(*build)].append(entry(*bytes));
                *promised.told.entry(stream(*build)).or_default() += 1;
            }
            Action::Note { key } => {
                drop(journal.commit(Batch::default().put("notes", format!("{key}"), "note"), Durability::Relaxed));
            }
            Action::Submit => {
                let key = format!("{:04}", promised.submitted.len());
                let batch = Batch::default().put("records", &key, key.clone()).put("requests", &key, key.clone());
                journal.commit(batch, Durability::Durable).await.unwrap();
                promised.submitted.push(disk.now());
            }
            Action::End { build } => {
                let key = format!("{:04}", promised.ended.len());
                let told = promised.told.entry(stream(*build)).or_default();
                let batch = Batch::default().put("ends", &key, stream(*build)).put("ends-at", &key, told.to_string());
                let ended = streams[usize::from(*build)].append_with(batch, Durability::Durable, entry(0));
                *told += 1;
                let last = *told - 1;
                ended.await.unwrap();
                promised.ended.push((disk.now(), key, stream(*build), last));
            }
            Action::Breathe => tokio::task::yield_now().await,
        }
        for (build, seen) in seen.iter().enumerate() {
            promised.shown.push((disk.now(), stream(build as u8), *seen.borrow()));
        }
    }
    promised
}

async fn check(disk: &Disk, at: usize, promised: &Promised) {
    let journal = Journal::over(Arc::new(engine(disk)), Fsync::default());
    let keys = async |space| {
        let found = journal.list(space, Range::default()).await.unwrap();
        found.into_iter().map(|(key, _)| key).collect::<Vec<String>>()
    };
    let submitted = keys("records").await;
    let acknowledged = promised.submitted.iter().filter(|moment| **moment <= at).count();
    assert!(submitted.len() >= acknowledged, "lost a submission: {} of {acknowledged}", submitted.len());
    assert_eq!(submitted, keys("requests").await, "a submission is there in part");
    let mut ends = BTreeMap::<String, u64>::new();
    for (build, told) in &promised.told {
        let entries = journal.read(build, 0, usize::MAX).await.unwrap();
        for (place, entry) in entries.iter().enumerate() {
            assert_eq!(entry.position, place as u64, "{build} has a hole");
            assert_eq!(entry.data[..8], entry.position.to_be_bytes(), "{build} has another's entry");
        }
        assert!(entries.len() as u64 <= *told);
        ends.insert(build.clone(), entries.len() as u64);
    }
    let ended = keys("ends").await;
    assert_eq!(ended, keys("ends-at").await, "an end is there in part");
    for (moment, key, build, last) in &promised.ended {
        let is_there = ended.contains(key);
        assert!(is_there || *moment > at, "lost the end {key} of {build}");
        assert!(!is_there || ends[build] > *last, "{build} has ended without its last event");
    }
    for (_, build, end) in promised.shown.iter().filter(|(moment, ..)| *moment <= at) {
        let resumed = journal.resume_stream(build).await.unwrap();
        assert!(*resumed.committed().borrow() >= *end, "{build} gives out positions that were seen");
        assert!(*end <= ends.get(build).copied().unwrap_or(0) + WINDOW);
    }
    // It goes on.
    let resumed = journal.resume_stream("build-0").await.unwrap();
    resumed.append_with(Batch::default(), Durability::Durable, entry(1)).await.unwrap();
    assert_eq!(journal.read("build-0", WINDOW, usize::MAX).await.unwrap().len(), 1);
}

fn powers_off(actions: &[Action], fsync: Fsync, seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &bytes);
    let disk = Disk::default();
    // What redb does while it makes a file is for `kiln_state::database`, which makes it beside.
    drop(engine(&disk));
    let first = disk.now();
    let promised = runtime.block_on(run(&disk, actions, fsync));
    let last = disk.now();
    for _ in 0..CUTS {
        let at = first + rng.next_u64() as usize % (last - first + 1);
        runtime.block_on(check(&disk.cut(at, &mut rng), at, &promised));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_loses_nothing_that_was_acknowledged(
        actions in proptest::collection::vec(action(), 1..60),
        always in any::<bool>(),
        seed in any::<u64>(),
    ) {
        powers_off(&actions, if always { Fsync::Always } else { Fsync::default() }, seed);
    }
}

/// The long form: `KILN_POWER_CASES=2000 cargo test -p kiln-journal --test power -- --ignored`.
#[test]
#[ignore = "takes minutes; for a change of the engine"]
fn soak() {
    let cases = std::env::var("KILN_POWER_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(500);
    let config = ProptestConfig { cases, ..ProptestConfig::default() };
    let actions = proptest::collection::vec(action(), 1..200);
    proptest!(config, |(actions in actions, seed in any::<u64>())| powers_off(&actions, Fsync::default(), seed));
}
