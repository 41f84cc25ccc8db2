//! Workers remembered across restarts of the coordinator: which were connected recently, and which are drained.
//!
//! Invariant: if the file is lost, the farm only forgets which workers it waits for. One thread writes it atomically.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_proto::{clock, v1};
use prost::Message;
use tokio::sync::watch;

/// The file and its content.
#[derive(Debug)]
pub(super) struct Memory {
    workers: BTreeMap<String, v1::Worker>,
    life_ms: u64,
    written: Option<watch::Sender<Vec<u8>>>,
}

impl Memory {
    /// Reads the workers recorded in `path`; without a path nothing is stored. Workers that were last seen more than
    /// `life_ms` ago and are not drained are forgotten.
    pub(super) fn open(path: Option<PathBuf>, life_ms: u64) -> Self {
        let Some(path) = path else { return Self { workers: BTreeMap::new(), life_ms, written: None } };
        let read = std::fs::read(&path).unwrap_or_default();
        let status = v1::FarmStatus::decode(read.as_slice()).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot read the remembered workers");
            v1::FarmStatus::default()
        });
        let workers = status
            .away
            .into_iter()
            .filter(|worker| is_remembered(worker, life_ms))
            .map(|worker| (worker.worker.clone(), worker))
            .collect();
        let (sender, mut changed) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while changed.changed().await.is_ok() {
                let (data, path) = (changed.borrow_and_update().clone(), path.clone());
                let written = tokio::task::spawn_blocking(move || write(&path, &data)).await;
                if !matches!(written, Ok(Ok(()))) {
                    tracing::warn!(?written, "cannot save the farm's workers");
                }
            }
        });
        Self { workers, life_ms, written: Some(sender) }
    }

    /// All remembered workers.
    pub(super) fn workers(&self) -> impl Iterator<Item = &v1::Worker> {
        self.workers.values()
    }

    /// Milliseconds since a worker was last seen.
    pub(super) fn age_ms(worker: &v1::Worker) -> u64 {
        clock::milliseconds_between(worker.last_seen.as_ref(), Some(&clock::kiln_now()))
    }

    /// Records that a worker is or was connected now.
    pub(super) fn saw(&mut self, worker: v1::Worker) {
        self.workers.insert(worker.worker.clone(), worker);
        self.save();
    }

    /// Starts or stops draining a worker; `false` if it is unknown.
    pub(super) fn drain(&mut self, worker: &str, on: bool) -> bool {
        let Some(known) = self.workers.get_mut(worker) else { return false };
        known.draining = on;
        self.save();
        true
    }

    /// Updates when these workers were last seen.
    pub(super) fn still_here<'a>(&mut self, workers: impl Iterator<Item = &'a str>) {
        for name in workers {
            if let Some(worker) = self.workers.get_mut(name) {
                worker.last_seen = Some(clock::kiln_now());
            }
        }
        let life_ms = self.life_ms;
        self.workers.retain(|_, worker| is_remembered(worker, life_ms));
        self.save();
    }

    fn save(&self) {
        let Some(written) = &self.written else { return };
        let status = v1::FarmStatus { away: self.workers.values().cloned().collect(), ..Default::default() };
        written.send_replace(status.encode_to_vec());
    }
}

fn is_remembered(worker: &v1::Worker, life_ms: u64) -> bool {
    worker.draining || Memory::age_ms(worker) < life_ms
}

fn write(path: &std::path::Path, data: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(std::path::Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    std::io::Write::write_all(&mut file, data)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_run_knows_who_was_here_lately_and_who_is_drained() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("workers");
        let seen = |name: &str, ago: i64| {
            let now = clock::kiln_now();
            let last_seen = Some(prost_types::Timestamp { seconds: now.seconds - ago, ..now });
            v1::Worker { worker: name.to_owned(), last_seen, ..Default::default() }
        };
        let mut memory = Memory::open(Some(path.clone()), 3_600_000);
        memory.saw(seen("here", 10));
        memory.saw(seen("long gone", 4000));
        memory.saw(seen("drained", 4000));
        assert!(memory.drain("drained", true) && !memory.drain("nobody", true));
        let names = || -> Vec<String> {
            Memory::open(Some(path.clone()), 3_600_000).workers().map(|worker| worker.worker.clone()).collect()
        };
        while names() != ["drained", "here"] {
            tokio::task::yield_now().await;
        }
        std::fs::write(&path, b"\xff\xff").unwrap();
        assert!(names().is_empty(), "expected a broken file to be no more than forgotten");
    }
}
