//! What users of a journal rely on.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kiln_journal::{Batch, Durability, Engine, Entry, Error, Fsync, Journal, Range, RedbEngine, Space, WINDOW, Write};

const HOUR: Fsync = Fsync::Interval(Duration::from_secs(3600));

fn text(text: &'static str) -> impl FnOnce(u64) -> Bytes {
    move |_| Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn records_are_listed_in_both_directions_by_prefix_and_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(&directory.path().join("journal.redb"), HOUR).unwrap();
    assert!(journal.list("a", Range::default()).await.unwrap().is_empty(), "nothing was ever put there");
    let mut batch = Batch::default().put("b", "other", "");
    for key in ["", "a", "ab", "abc", "b", "\u{7f}"] {
        batch = batch.put("a", key, key);
    }
    journal.commit(batch.remove("a", "").remove("a", "never"), Durability::Relaxed).await.unwrap();
    let keys = async |range| {
        let found = journal.list("a", range).await.unwrap();
        found.into_iter().map(|(key, _)| key).collect::<Vec<String>>()
    };
    assert_eq!(keys(Range::default()).await, ["a", "ab", "abc", "b", "\u{7f}"]);
    assert_eq!(keys(Range::last(2)).await, ["\u{7f}", "b"]);
    assert_eq!(keys(Range::last(2).after("b")).await, ["abc", "ab"]);
    assert_eq!(keys(Range::first(2).after("ab")).await, ["abc", "b"]);
    assert_eq!(keys(Range::prefix("ab")).await, ["ab", "abc"]);
    assert_eq!(keys(Range::prefix("ab").after("ab")).await, ["abc"]);
    assert_eq!(keys(Range::prefix("b").after("c")).await, [""; 0]);
    assert_eq!((journal.count("a").await.unwrap(), journal.count("c").await.unwrap()), (5, 0));
}

#[tokio::test]
async fn a_stream_is_shown_in_order_and_continues_where_nobody_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.redb");
    let journal = Journal::open(&path, HOUR).unwrap();
    let stream = journal.new_stream("build");
    let mut committed = stream.committed();
    for _ in 0..5 {
        stream.append(text("line"));
    }
    journal.new_stream("build2").append(text("another's"));
    committed.wait_for(|end| *end == 5).await.unwrap();
    let positions = |entries: Vec<Entry>| entries.iter().map(|entry| entry.position).collect::<Vec<u64>>();
    assert_eq!(positions(journal.read("build", 0, usize::MAX).await.unwrap()), [0, 1, 2, 3, 4]);
    assert_eq!(positions(journal.read("build", 3, 0).await.unwrap()), [3], "one at least");
    assert_eq!(positions(journal.read("build", 1, 8).await.unwrap()), [1, 2]);
    let resumed = journal.resume_stream("build").await.unwrap();
    resumed.append_with(Batch::default().put("ends", "build", "well"), Durability::Durable, text("end")).await.unwrap();
    assert_eq!(positions(journal.read("build", 5, usize::MAX).await.unwrap()), [5 + WINDOW]);
    journal.commit(Batch::default().remove_stream("build"), Durability::Relaxed).await.unwrap();
    assert!(journal.read("build", 0, usize::MAX).await.unwrap().is_empty());
    assert_eq!(journal.read("build2", 0, usize::MAX).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_stream_that_is_resumed_again_and_again_gives_no_position_out_twice() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(&directory.path().join("journal.redb"), HOUR).unwrap();
    journal.new_stream("build").append(text("line"));
    journal.settle().await.unwrap();
    // No process leaves an entry: each is killed before it has synced one.
    for start in 1..4 {
        let resumed = journal.resume_stream("build").await.unwrap();
        assert_eq!(*resumed.committed().borrow(), start * WINDOW + 1);
    }
    journal.commit(Batch::default().remove_stream("build"), Durability::Relaxed).await.unwrap();
    let resumed = journal.resume_stream("build").await.unwrap();
    assert_eq!(*resumed.committed().borrow(), WINDOW, "nothing is left of what was removed");
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
    commits: std::sync::Mutex<Vec<(usize, bool)>>,
}

#[async_trait::async_trait]
impl Engine for Fails {
    async fn commit(&self, batches: Vec<Arc<Vec<Write>>>, sync: bool) -> Result<(), Error> {
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
    Arc::new(Fails { engine, fails: AtomicBool::new(false), commits: std::sync::Mutex::default() })
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
