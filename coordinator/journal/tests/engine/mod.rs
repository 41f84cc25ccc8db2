//! What a journal relies on of any engine. The tests of each engine run all of it.

#![allow(dead_code, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_journal::{Batch, Durability, Engine, Entry, Fsync, Journal, Range, Space, WINDOW, Write};
use proptest::prelude::*;

pub const HOUR: Fsync = Fsync::Interval(Duration::from_secs(3600));

pub fn text(text: &'static str) -> impl FnOnce(u64) -> Bytes {
    move |_| Bytes::from_static(text.as_bytes())
}

fn positions(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.position).collect()
}

pub async fn lists_records_in_both_directions_by_prefix_and_in_pages(engine: Arc<dyn Engine>) {
    let journal = Journal::over(engine, HOUR);
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

pub async fn shows_a_stream_in_order_and_continues_where_nobody_was(engine: Arc<dyn Engine>) {
    let journal = Journal::over(engine, HOUR);
    let stream = journal.new_stream("build");
    let mut committed = stream.committed();
    for _ in 0..5 {
        stream.append(text("line"));
    }
    journal.new_stream("build2").append(text("another's"));
    committed.wait_for(|end| *end == 5).await.unwrap();
    journal.settle().await.unwrap();
    assert_eq!(positions(&journal.read("build", 0, usize::MAX).await.unwrap()), [0, 1, 2, 3, 4]);
    assert_eq!(positions(&journal.read("build", 3, 0).await.unwrap()), [3], "one at least");
    assert_eq!(positions(&journal.read("build", 1, 8).await.unwrap()), [1, 2]);
    let resumed = journal.resume_stream("build").await.unwrap();
    resumed.append_with(Batch::default().put("ends", "build", "well"), Durability::Durable, text("end")).await.unwrap();
    assert_eq!(positions(&journal.read("build", 5, usize::MAX).await.unwrap()), [5 + WINDOW]);
    journal.commit(Batch::default().remove_stream("build"), Durability::Relaxed).await.unwrap();
    assert!(journal.read("build", 0, usize::MAX).await.unwrap().is_empty());
    assert_eq!(journal.read("build2", 0, usize::MAX).await.unwrap().len(), 1);
}

pub async fn gives_no_position_out_twice(engine: Arc<dyn Engine>) {
    let journal = Journal::over(engine, HOUR);
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

/// What a group costs must not decide whether it is committed.
pub async fn takes_groups_and_values_of_many_megabytes(engine: Arc<dyn Engine>) {
    const MANY: u64 = 24;
    let data = |at: u64| Bytes::from(vec![at as u8; 1 << 20]);
    let batch = |at: u64| {
        let append = Write::Append { stream: "large".into(), position: at, data: data(at) };
        let put = Write::Put { space: "large", key: format!("{at:02}"), value: data(at) };
        Arc::new(vec![append, put])
    };
    engine.commit((0..MANY).map(batch).collect(), true).await.unwrap();
    let entries = engine.read("large", 0, usize::MAX).await.unwrap();
    assert_eq!(positions(&entries), (0..MANY).collect::<Vec<_>>());
    assert!(entries.iter().all(|entry| entry.data == data(entry.position)));
    assert_eq!(engine.read("large", 2, 3 << 20).await.unwrap().len(), 3);
    assert_eq!(engine.read("large", 2, (9 << 20) + 1).await.unwrap().len(), 9);
    let records = engine.list("large", Range::default()).await.unwrap();
    assert!(
        records.iter().enumerate().all(|(at, (key, value))| *key == format!("{at:02}") && *value == data(at as u64))
    );
    assert_eq!(records.len() as u64, MANY);
}

/// One change of a generated batch. Streams and spaces are few, so that changes meet.
#[derive(Debug, Clone)]
pub enum Change {
    Append {
        stream: u8,
        skips: u8,
        bytes: u8,
    },
    /// The last entry of a stream once more.
    Again {
        stream: u8,
    },
    RemoveStream {
        stream: u8,
    },
    Put {
        space: u8,
        key: String,
        bytes: u8,
    },
    Remove {
        space: u8,
        key: String,
    },
}

/// A group of batches, and what is asked then.
#[derive(Debug, Clone)]
pub struct Group {
    batches: Vec<Vec<Change>>,
    sync: bool,
    range: (String, Option<String>, bool, Option<usize>),
    read: (u64, usize),
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-c]{0,3}", 1 => "[a-c{}: %\u{0}\u{7f}ä\u{10ffff}]{1,4}"]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (0..3_u8, 0..3_u8, any::<u8>()).prop_map(|(stream, skips, bytes)| Change::Append { stream, skips, bytes }),
        1 => (0..3_u8).prop_map(|stream| Change::Again { stream }),
        1 => (0..3_u8).prop_map(|stream| Change::RemoveStream { stream }),
        6 => (0..2_u8, key(), any::<u8>()).prop_map(|(space, key, bytes)| Change::Put { space, key, bytes }),
        2 => (0..2_u8, key()).prop_map(|(space, key)| Change::Remove { space, key }),
    ]
}

pub fn groups() -> impl Strategy<Value = Vec<Group>> {
    let batches = proptest::collection::vec(proptest::collection::vec(change(), 0..6), 0..5);
    let range = (key(), proptest::option::of(key()), any::<bool>(), proptest::option::of(0..4_usize));
    let group = (batches, proptest::bool::weighted(0.2), range, (0..40_u64, 0..1_000_usize));
    let group = group.prop_map(|(batches, sync, range, read)| Group { batches, sync, range, read });
    proptest::collection::vec(group, 1..10)
}

const SPACES: [Space; 2] = ["one", "two"];

#[derive(Default)]
struct Model {
    streams: [Vec<(u64, Bytes)>; 3],
    spaces: [BTreeMap<String, Bytes>; 2],
}

impl Model {
    fn write(&mut self, change: &Change) -> Option<Write> {
        let name = |stream: u8| Arc::from(format!("stream:{stream}"));
        Some(match change {
            Change::Append { stream, skips, bytes } => {
                let entries = &mut self.streams[usize::from(*stream)];
                let position = entries.last().map_or(0, |(last, _)| last + 1) + u64::from(*skips);
                let data = Bytes::from(vec![*bytes; usize::from(*bytes)]);
                entries.push((position, data.clone()));
                Write::Append { stream: name(*stream), position, data }
            }
            Change::Again { stream } => {
                let (position, data) = self.streams[usize::from(*stream)].last()?.clone();
                Write::Append { stream: name(*stream), position, data }
            }
            Change::RemoveStream { stream } => {
                self.streams[usize::from(*stream)].clear();
                Write::RemoveStream { stream: name(*stream) }
            }
            Change::Put { space, key, bytes } => {
                let value = Bytes::from(vec![*bytes; usize::from(*bytes)]);
                self.spaces[usize::from(*space)].insert(key.clone(), value.clone());
                Write::Put { space: SPACES[usize::from(*space)], key: key.clone(), value }
            }
            Change::Remove { space, key } => {
                self.spaces[usize::from(*space)].remove(key);
                Write::Remove { space: SPACES[usize::from(*space)], key: key.clone() }
            }
        })
    }

    /// What `range` shows of a space, by the words of its documentation.
    fn list(&self, space: usize, range: &Range) -> Vec<(String, Bytes)> {
        let beyond = |key: &String| match &range.after {
            Some(after) if range.backwards => key < after,
            Some(after) => key > after,
            None => true,
        };
        let mut found: Vec<_> = self.spaces[space].clone().into_iter().collect();
        found.retain(|(key, _)| key.starts_with(&range.prefix) && beyond(key));
        if range.backwards {
            found.reverse();
        }
        found.truncate(range.limit.unwrap_or(usize::MAX));
        found
    }

    fn read(&self, stream: usize, from: u64, bytes: usize) -> Vec<Entry> {
        let mut left = bytes;
        let mut found = Vec::new();
        for (position, data) in self.streams[stream].iter().filter(|(position, _)| *position >= from) {
            if data.len() > left && !found.is_empty() {
                break;
            }
            left = left.saturating_sub(data.len());
            found.push(Entry { position: *position, data: data.clone() });
        }
        found
    }
}

/// Whatever is written, the engine shows what a model does.
pub async fn follows_a_model(engine: &dyn Engine, groups: &[Group]) {
    let mut model = Model::default();
    for group in groups {
        let batch = |changes: &Vec<Change>, model: &mut Model| {
            Arc::new(changes.iter().filter_map(|change| model.write(change)).collect::<Vec<_>>())
        };
        let batches = group.batches.iter().map(|changes| batch(changes, &mut model)).collect();
        engine.commit(batches, group.sync).await.unwrap();
        for (at, space) in SPACES.iter().enumerate() {
            let (prefix, after, backwards, limit) = group.range.clone();
            let range = Range { prefix, after, backwards, limit };
            assert_eq!(engine.list(space, range.clone()).await.unwrap(), model.list(at, &range), "{range:?}");
            assert_eq!(engine.list(space, Range::default()).await.unwrap(), model.list(at, &Range::default()));
            assert_eq!(engine.count(space).await.unwrap(), model.spaces[at].len() as u64);
            let keys: Vec<String> = model.spaces[at].keys().cloned().chain(["never".to_owned()]).collect();
            let values: Vec<_> = keys.iter().map(|key| model.spaces[at].get(key).cloned()).collect();
            assert_eq!(engine.get(space, keys).await.unwrap(), values);
        }
        for at in 0..3 {
            let name = format!("stream:{at}");
            let (from, bytes) = group.read;
            assert_eq!(engine.read(&name, from, bytes).await.unwrap(), model.read(at, from, bytes));
            let end = model.streams[at].last().map_or(0, |(last, _)| last + 1);
            assert_eq!(engine.end(&name).await.unwrap(), end);
        }
    }
}
