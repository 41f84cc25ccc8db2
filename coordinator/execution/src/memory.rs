//! Workers remembered across restarts of the coordinator: which were connected recently, and which are drained.
//!
//! Invariant: a drain that was acknowledged survives a power cut. Losing anything else makes a farm forget whom it waits for, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_journal::{Batch, Commit, Durability, Journal, Range, Space};
use kiln_proto::{clock, v1};
use prost::Message;

/// A worker's name to the [`Worker`](v1::Worker).
const WORKERS: Space = "workers";

/// The workers, and where they are recorded.
#[derive(Debug, Default)]
pub struct Memory {
    workers: BTreeMap<String, v1::Worker>,
    life_ms: u64,
    journal: Option<Journal>,
}

impl Memory {
    /// Reads what was remembered; `old` is the file of an earlier version, which is imported.
    ///
    /// # Errors
    /// If the journal cannot be used.
    pub async fn open(journal: Journal, old: &Path) -> Result<Self, kiln_journal::Error> {
        import(&journal, old).await?;
        let mut workers = BTreeMap::new();
        for (name, data) in journal.list(WORKERS, Range::default()).await? {
            match v1::Worker::decode(data) {
                Ok(worker) => drop(workers.insert(name, worker)),
                Err(error) => tracing::warn!(worker = name, %error, "what was remembered of a worker cannot be read"),
            }
        }
        Ok(Self { workers, life_ms: u64::MAX, journal: Some(journal) })
    }

    /// Workers that were not here for `life_ms` and are not drained are forgotten.
    #[must_use]
    pub(super) fn with_life(mut self, life_ms: u64) -> Self {
        self.life_ms = life_ms;
        self.expire();
        self
    }

    /// All remembered workers.
    pub(super) fn workers(&self) -> impl Iterator<Item = &v1::Worker> {
        self.workers.values()
    }

    /// What is remembered of a worker.
    pub(super) fn worker(&self, name: &str) -> Option<&v1::Worker> {
        self.workers.get(name)
    }

    /// Milliseconds since a worker was last seen.
    pub(super) fn age_ms(worker: &v1::Worker) -> u64 {
        clock::milliseconds_between(worker.last_seen.as_ref(), Some(&clock::now()))
    }

    /// Records that a worker is or was connected now.
    pub(super) fn saw(&mut self, worker: v1::Worker) {
        let name = worker.worker.clone();
        self.workers.insert(name.clone(), worker);
        drop(self.save([name.as_str()].into_iter(), Durability::Relaxed));
    }

    /// A worker drains from now on, or no longer. None where it is not known; else what resolves when that is recorded.
    pub(super) fn drain(&mut self, worker: &str, on: bool) -> Option<Option<Commit>> {
        self.workers.get_mut(worker)?.draining = on;
        Some(self.save([worker].into_iter(), Durability::Durable))
    }

    /// These workers are connected now, and no others: the next run need not wait for those that broke off long ago.
    pub(super) fn all_here(&mut self, workers: BTreeSet<&str>) {
        let away: Vec<String> = self.workers.keys().filter(|name| !workers.contains(name.as_str())).cloned().collect();
        for name in away {
            if let Some(worker) = self.workers.get_mut(&name).filter(|worker| worker.connected) {
                worker.connected = false;
                drop(self.save([name.as_str()].into_iter(), Durability::Relaxed));
            }
        }
        self.still_here(workers.into_iter());
    }

    /// A worker left in order: it will bring nothing when it comes back.
    pub(super) fn left(&mut self, worker: &str) {
        if let Some(known) = self.workers.get_mut(worker) {
            known.connected = false;
        }
        self.still_here([worker].into_iter());
    }

    /// The workers that were connected when the earlier run of the coordinator ended. From now on they are not, until they are seen.
    pub(super) fn take_connected(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        for (name, worker) in &mut self.workers {
            if std::mem::take(&mut worker.connected) {
                names.push(name.clone());
            }
        }
        drop(self.save(names.iter().map(String::as_str), Durability::Relaxed));
        names
    }

    /// Updates when these workers were last seen.
    pub(super) fn still_here<'a>(&mut self, workers: impl Iterator<Item = &'a str>) {
        let seen: BTreeSet<&str> = workers.collect();
        for name in &seen {
            if let Some(worker) = self.workers.get_mut(*name) {
                worker.last_seen = Some(clock::now());
            }
        }
        drop(self.save(seen.into_iter(), Durability::Relaxed));
        self.expire();
    }

    /// Forgets those that were not here for too long.
    fn expire(&mut self) {
        let life_ms = self.life_ms;
        let is_gone = |worker: &v1::Worker| !worker.draining && Self::age_ms(worker) >= life_ms;
        let gone: Vec<String> =
            self.workers.iter().filter(|(_, worker)| is_gone(worker)).map(|(name, _)| name.clone()).collect();
        self.workers.retain(|name, _| !gone.contains(name));
        drop(self.save(gone.iter().map(String::as_str), Durability::Relaxed));
    }

    /// Records these workers as they are known now.
    fn save<'a>(&self, names: impl Iterator<Item = &'a str>, durability: Durability) -> Option<Commit> {
        let journal = self.journal.as_ref()?;
        let batch = names.fold(Batch::default(), |batch, name| match self.workers.get(name) {
            Some(worker) => batch.put(WORKERS, name, worker.encode_to_vec()),
            None => batch.remove(WORKERS, name),
        });
        (!batch.is_empty()).then(|| journal.commit(batch, durability))
    }
}

/// Imports the workers that an earlier version kept in a file.
async fn import(journal: &Journal, old: &Path) -> Result<(), kiln_journal::Error> {
    let Ok(data) = std::fs::read(old) else { return Ok(()) };
    let status = v1::FarmStatus::decode(data.as_slice()).unwrap_or_else(|error| {
        tracing::warn!(path = %old.display(), %error, "the workers that an earlier version remembered cannot be read");
        v1::FarmStatus::default()
    });
    let put = |batch: Batch, worker: v1::Worker| batch.put(WORKERS, worker.worker.clone(), worker.encode_to_vec());
    journal.commit(status.away.into_iter().fold(Batch::default(), put), Durability::Durable).await?;
    if let Err(error) = std::fs::remove_file(old) {
        tracing::warn!(path = %old.display(), %error, "cannot remove the file that was imported; remove it by hand");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_journal::Fsync;

    const LIFE_MS: u64 = 3_600_000;

    fn seen(name: &str, ago: i64) -> v1::Worker {
        let now = clock::now();
        let last_seen = Some(kiln_proto::protobuf::Timestamp { seconds: now.seconds - ago, ..now });
        v1::Worker { worker: name.to_owned(), last_seen, ..Default::default() }
    }

    #[tokio::test]
    async fn those_that_were_connected_are_expected_once() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(&directory.path().join("journal.redb"), Fsync::default()).unwrap();
        let here = |name| v1::Worker { connected: true, ..seen(name, 1) };
        let open = async || Memory::open(journal.clone(), Path::new("/nonexistent")).await.unwrap().with_life(LIFE_MS);
        let mut memory = open().await;
        memory.saw(here("stays"));
        memory.saw(here("leaves"));
        memory.saw(here("broke off"));
        memory.all_here(["stays", "leaves"].into());
        memory.left("leaves");
        memory.drain("stays", false).unwrap().unwrap().await.unwrap();
        let mut next = open().await;
        assert_eq!(next.take_connected(), ["stays"]);
        next.saw(here("comes"));
        next.drain("comes", false).unwrap().unwrap().await.unwrap();
        let mut last = open().await;
        assert_eq!(last.take_connected(), ["comes"]);
        last.drain("comes", false).unwrap().unwrap().await.unwrap();
        assert!(open().await.take_connected().is_empty());
    }

    async fn names(journal: &Journal, old: &Path) -> Vec<String> {
        let memory = Memory::open(journal.clone(), old).await.unwrap().with_life(LIFE_MS);
        memory.workers().map(|worker| worker.worker.clone()).collect()
    }

    #[tokio::test]
    async fn the_next_run_knows_who_was_here_lately_and_who_is_drained() {
        let directory = tempfile::tempdir().unwrap();
        let old = directory.path().join("workers");
        let status = v1::FarmStatus { away: vec![seen("old", 10), seen("older", 4000)], ..Default::default() };
        std::fs::write(&old, status.encode_to_vec()).unwrap();
        let journal = Journal::open(&directory.path().join("journal.redb"), Fsync::default()).unwrap();
        let mut memory = Memory::open(journal.clone(), &old).await.unwrap().with_life(LIFE_MS);
        memory.saw(seen("here", 10));
        memory.saw(seen("long gone", 4000));
        memory.saw(seen("drained", 4000));
        assert!(memory.drain("nobody", true).is_none());
        memory.drain("drained", true).unwrap().unwrap().await.unwrap();
        assert_eq!(names(&journal, &old).await, ["drained", "here", "old"]);
        assert!(!old.exists(), "expected what was imported to be removed");
        memory.drain("drained", false).unwrap().unwrap().await.unwrap();
        memory.still_here(["here"].into_iter());
        journal.settle().await.unwrap();
        assert_eq!(names(&journal, &old).await, ["here", "old"]);
        assert_eq!(journal.count(WORKERS).await.unwrap(), 2, "expected the others to be forgotten on the disk too");
    }
}
