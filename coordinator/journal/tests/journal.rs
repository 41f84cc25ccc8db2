//! What users of a journal rely on.

#![allow(clippy::unwrap_used, missing_docs)]

mod engine;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use engine::{HOUR, text};
use kiln_journal::{Batch, Durability, Engine, Entry, Error, Fsync, Journal, Range, RedbEngine, Space, Write};
use proptest::prelude::*;

fn redb(directory: &tempfile::TempDir) -> Arc<RedbEngine> {
    Arc::new(RedbEngine::open(&directory.path().join("journal.redb"), false).unwrap())
}

#[tokio::test]
async fn records_are_listed_in_both_directions_by_prefix_and_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    engine::lists_records_in_both_directions_by_prefix_and_in_pages(redb(&directory)).await;
}

#[tokio::test]
async fn a_stream_is_shown_in_order_and_continues_where_nobody_was() {
    let directory = tempfile::tempdir().unwrap();
    engine::shows_a_stream_in_order_and_continues_where_nobody_was(redb(&directory)).await;
}

#[tokio::test]
async fn a_stream_that_is_resumed_again_and_again_gives_no_position_out_twice() {
    let directory = tempfile::tempdir().unwrap();
    engine::gives_no_position_out_twice(redb(&directory)).await;
}

#[tokio::test]
async fn large_groups_and_values_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    engine::takes_groups_and_values_of_many_megabytes(redb(&directory)).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn an_engine_shows_what_was_written(groups in engine::groups()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(engine::follows_a_model(&*redb(&directory), &groups));
    }
}

#[tokio::test]
async fn a_second_journal_in_the_same_file_is_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.redb");
    let _journal = Journal::open(&path, Fsync::Never).unwrap();
    let refused = Journal::open(&path, Fsync::Always).unwrap_err().to_string();
    assert!(refused.contains("another coordinator") && refused.contains("journal.redb"), "{refused}");
}

/// An engine that fails when it is told to, and counts how often it was synced.
#[derive(Debug)]
struct Fails {
    engine: RedbEngine,
    fails: AtomicBool,
    fenced: AtomicBool,
    commits: std::sync::Mutex<Vec<(usize, bool)>>,
}

#[async_trait::async_trait]
impl Engine for Fails {
    async fn commit(&self, batches: Vec<Arc<Vec<Write>>>, sync: bool) -> Result<(), Error> {
        if self.fenced.load(Ordering::Relaxed) {
            return Err(Error::Fenced { journal: "theirs".into() });
        }
        if self.fails.load(Ordering::Relaxed) {
            let source = Arc::new(std::io::Error::from(std::io::ErrorKind::StorageFull));
            return Err(Error::Engine { journal: "full".into(), source });
        }
        self.commits.lock().unwrap().push((batches.len(), sync));
        self.engine.commit(batches, sync).await
    }

    async fn read(&self, stream: &str, from: u64, bytes: usize) -> Result<Vec<Entry>, Error> {
        self.engine.read(stream, from, bytes).await
    }

    async fn end(&self, stream: &str) -> Result<u64, Error> {
        self.engine.end(stream).await
    }

    async fn get(&self, space: Space, keys: Vec<String>) -> Result<Vec<Option<Bytes>>, Error> {
        self.engine.get(space, keys).await
    }

    async fn list(&self, space: Space, range: Range) -> Result<Vec<(String, Bytes)>, Error> {
        self.engine.list(space, range).await
    }

    async fn count(&self, space: Space) -> Result<u64, Error> {
        self.engine.count(space).await
    }
}

fn fails(directory: &tempfile::TempDir) -> Arc<Fails> {
    let engine = RedbEngine::open(&directory.path().join("journal.redb"), false).unwrap();
    Arc::new(Fails {
        engine,
        fails: AtomicBool::default(),
        fenced: AtomicBool::default(),
        commits: std::sync::Mutex::default(),
    })
}

#[tokio::test]
async fn events_outlive_a_full_disk_and_what_was_to_be_durable_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let engine = fails(&directory);
    let journal = Journal::over(engine.clone(), HOUR);
    let stream = journal.new_stream("build");
    engine.fails.store(true, Ordering::Relaxed);
    stream.append(text("while it is full"));
    let refused = journal.commit(Batch::default().put("records", "a", "1"), Durability::Durable).await.unwrap_err();
    assert!(refused.to_string().contains("is the disk full?"), "{refused}");
    engine.fails.store(false, Ordering::Relaxed);
    journal.commit(Batch::default().put("records", "b", "2"), Durability::Durable).await.unwrap();
    assert_eq!(journal.read("build", 0, usize::MAX).await.unwrap()[0].data, "while it is full");
    assert_eq!(*stream.committed().borrow(), 1);
    assert_eq!(journal.get("records", "a").await.unwrap(), None, "its caller was told that it failed");
}

#[tokio::test]
async fn nothing_is_written_after_the_term_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let engine = fails(&directory);
    let journal = Journal::over(engine.clone(), HOUR);
    let stream = journal.new_stream("build");
    engine.fails.store(true, Ordering::Relaxed);
    stream.append(text("while it is full"));
    let _ = journal.settle().await.unwrap_err();
    engine.fails.store(false, Ordering::Relaxed);
    engine.fenced.store(true, Ordering::Relaxed);
    let refused = journal.commit(Batch::default().put("records", "a", "1"), Durability::Relaxed).await.unwrap_err();
    assert!(matches!(&refused, Error::Fenced { .. }), "{refused}");
    // If it were kept for a later try, that would come now.
    engine.fenced.store(false, Ordering::Relaxed);
    journal.settle().await.unwrap();
    assert!(journal.read("build", 0, usize::MAX).await.unwrap().is_empty());
    assert_eq!(journal.get("records", "a").await.unwrap(), None);
}

#[tokio::test]
async fn what_waits_shares_a_commit_and_only_durable_ones_are_synced_before_their_time() {
    let directory = tempfile::tempdir().unwrap();
    let engine = fails(&directory);
    let journal = Journal::over(engine.clone(), HOUR);
    let stream = journal.new_stream("build");
    // Nothing is committed until something is awaited: this runtime has one thread.
    (0..100).for_each(|_| stream.append(text("line")));
    journal.commit(Batch::default(), Durability::Relaxed).await.unwrap();
    stream.append(text("line"));
    journal.commit(Batch::default(), Durability::Durable).await.unwrap();
    assert_eq!(*engine.commits.lock().unwrap(), [(101, false), (2, true)]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_synced_within_the_interval() {
    let directory = tempfile::tempdir().unwrap();
    let engine = fails(&directory);
    let journal = Journal::over(engine.clone(), Fsync::default());
    let stream = journal.new_stream("build");
    stream.append(text("line"));
    stream.committed().wait_for(|end| *end == 1).await.unwrap();
    assert_eq!(*engine.commits.lock().unwrap(), [(1, false)]);
    while engine.commits.lock().unwrap().len() < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(engine.commits.lock().unwrap()[1], (0, true));
}
