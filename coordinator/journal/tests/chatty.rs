//! What a chatty build costs: `cargo test -p kiln-journal --test chatty -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_journal::{Batch, Durability, Fsync, Journal};

const EVENTS: usize = 50_000;

/// A file to which each event is written as it comes, and which is never synced.
fn file(directory: &std::path::Path, event: &[u8]) -> Duration {
    let mut file = File::create(directory.join("events")).unwrap();
    let began = Instant::now();
    for _ in 0..EVENTS {
        let mut record = Vec::with_capacity(event.len() + 4);
        record.extend_from_slice(&(event.len() as u32).to_le_bytes());
        record.extend_from_slice(event);
        file.write_all(&record).unwrap();
    }
    began.elapsed()
}

/// How long appending took, and how long until all of it was on the disk.
async fn journal(directory: &std::path::Path, event: &[u8], fsync: Fsync) -> (Duration, Duration) {
    let journal = Journal::open(&directory.join(format!("{fsync}.redb")), fsync).unwrap();
    let stream = journal.new_stream("build");
    let began = Instant::now();
    for number in 0..EVENTS {
        stream.append(|_| Bytes::copy_from_slice(event));
        // As a build does that gets its output from a worker.
        if number % 64 == 0 {
            stream.room().await;
            tokio::task::yield_now().await;
        }
    }
    let appended = began.elapsed();
    journal.settle().await.unwrap();
    (appended, began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn commits_one_by_one() {
    const COMMITS: u32 = 500;
    let directory = tempfile::tempdir_in(".").unwrap();
    let journal = Journal::open(&directory.path().join("journal.redb"), Fsync::default()).unwrap();
    for durability in [Durability::Relaxed, Durability::Durable] {
        let began = Instant::now();
        for number in 0..COMMITS {
            let batch = Batch::default().put("records", number.to_string(), vec![0; 200]);
            journal.commit(batch, durability).await.unwrap();
        }
        println!("{durability:?}: {:?} a commit", began.elapsed() / COMMITS);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn events_a_second() {
    let rate = |took: Duration| (EVENTS as f64 / took.as_secs_f64()) as u64;
    for bytes in [100, 1000] {
        let event = vec![b'x'; bytes];
        for _ in 0..3 {
            let directory = tempfile::tempdir_in(".").unwrap();
            println!("{bytes} bytes: file, never synced: {:>9} events/s", rate(file(directory.path(), &event)));
            for fsync in [Fsync::default(), Fsync::Always, Fsync::Never] {
                let (appended, settled) = journal(directory.path(), &event, fsync).await;
                println!(
                    "{bytes} bytes: journal, {fsync}: {:>9} events/s appended, {:>9} events/s on disk",
                    rate(appended),
                    rate(settled)
                );
            }
        }
    }
}
