//! Deliveries, and the pushes that remain to be built, in the coordinator's journal so that they survive a restart.
//!
//! Invariant: a delivery is accepted once. Its key is the hash of the signed content, so it is recognised whatever
//! delivery number it has.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_journal::{Batch, Durability, Journal, Range, Space};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::forge::Push;
use super::import;

/// Key of a delivery to the time it was received, in milliseconds since 1970.
const TAKEN: Space = "deliveries";
/// That time and the key, ordered by time.
const ORDER: Space = "delivery-order";
/// Key of a delivery to the push to be built, as JSON.
const JOBS: Space = "pushes";

/// Deliveries that are remembered.
const KNOWN: u64 = 200_000;
/// Maximum pushes that wait or are being built.
const MAX_JOBS: u64 = 1_000;
/// Deliveries that are imported in one batch.
const IMPORTED: usize = 10_000;

/// The key of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

/// A push that is to be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    /// The webhook's name.
    pub(super) hook: String,
    /// What was pushed.
    pub(super) push: Push,
    /// The one of its URLs that the configuration allows.
    pub(super) repository: String,
}

/// The outcome of recording a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was recorded.
    New,
    /// It had been recorded before.
    Before,
    /// The queue is full.
    Full,
}

/// Deliveries cannot be recorded or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Journal(#[from] kiln_journal::Error),
    #[error("the journal has an invalid record of a push")]
    Record(#[from] serde_json::Error),
    #[error("cannot import the deliveries of an earlier version from `{}`", .path.display())]
    Import {
        path: PathBuf,
        #[source]
        source: redb::Error,
    },
}

impl Key {
    /// The key of this body, sent to this webhook.
    pub(super) fn new(hook: &str, body: &[u8]) -> Self {
        Self(Sha256::new().chain_update(hook).chain_update([0]).chain_update(body).finalize().into())
    }

    /// The key in hex.
    pub(super) fn hex(&self) -> String {
        hex::encode(self.0)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    fn from_hex(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        hex::decode_to_slice(text, &mut key).ok()?;
        Some(Self(key))
    }
}

/// Deliveries in the coordinator's journal. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Deliveries {
    journal: Journal,
    /// Held while checking whether a delivery is new.
    taking: Arc<Mutex<()>>,
}

fn order_key(at_ms: u64, key: &str) -> String {
    format!("{at_ms:020}-{key}")
}

fn taken(batch: Batch, key: &str, at_ms: u64) -> Batch {
    batch.put(TAKEN, key, at_ms.to_string()).put(ORDER, order_key(at_ms, key), key.to_owned())
}

impl Deliveries {
    /// Opens the deliveries in the journal; those in `old`, the file of an earlier version, are imported.
    pub(super) async fn open(journal: Journal, old: &Path) -> Result<Self, Error> {
        if old.exists() {
            let failed = |source| Error::Import { path: old.to_owned(), source };
            let found = import::read(old).await.map_err(failed)?;
            for part in found.taken.chunks(IMPORTED) {
                let put = |batch, (key, at_ms): &([u8; 32], u64)| taken(batch, &Key(*key).hex(), *at_ms);
                journal.commit(part.iter().fold(Batch::default(), put), Durability::Relaxed).await?;
            }
            let put = |batch: Batch, (key, job): ([u8; 32], Vec<u8>)| batch.put(JOBS, Key(key).hex(), job);
            journal.commit(found.jobs.into_iter().fold(Batch::default(), put), Durability::Durable).await?;
            std::fs::remove_file(old).map_err(|error| failed(redb::Error::Io(error)))?;
            tracing::info!(path = %old.display(), "imported the webhook deliveries of an earlier version");
        }
        Ok(Self { journal, taking: Arc::default() })
    }

    /// Records a delivery, if it is new. When this returns, it survives a power cut.
    pub(super) async fn take(&self, key: Key, job: Job) -> Result<Taken, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let (key, job) = (key.hex(), serde_json::to_vec(&job)?);
        let _alone = self.taking.lock().await;
        if self.journal.get(TAKEN, &key).await?.is_some() {
            return Ok(Taken::Before);
        }
        if self.journal.count(JOBS).await? >= MAX_JOBS {
            return Ok(Taken::Full);
        }
        let mut batch = taken(Batch::default(), &key, now).put(JOBS, key, job);
        let beyond = self.journal.count(TAKEN).await?.saturating_add(1).saturating_sub(KNOWN);
        if beyond > 0 {
            for (order, oldest) in self.journal.list(ORDER, Range::first(beyond as usize)).await? {
                batch = batch.remove(ORDER, order).remove(TAKEN, String::from_utf8_lossy(&oldest));
            }
        }
        self.journal.commit(batch, Durability::Durable).await?;
        Ok(Taken::New)
    }

    /// The pushes that remain to be built.
    pub(super) async fn pending(&self) -> Result<Vec<(Key, Job)>, Error> {
        let found = self.journal.list(JOBS, Range::default()).await?;
        let known = found.into_iter().filter_map(|(key, job)| Some((Key::from_hex(&key)?, job)));
        known.map(|(key, job)| Ok((key, serde_json::from_slice(&job)?))).collect()
    }

    /// Marks a push as finished.
    pub(super) async fn finish(&self, key: Key) -> Result<(), Error> {
        Ok(self.journal.commit(Batch::default().remove(JOBS, key.hex()), Durability::Durable).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_journal::Fsync;

    fn job(commit: &str) -> Job {
        let push = Push {
            addresses: vec!["https://forge.example/team/shop".to_owned()],
            path: "team/shop".to_owned(),
            reference: "refs/heads/main".to_owned(),
            commit: commit.to_owned(),
            user: "ann".to_owned(),
            default_branch: "main".to_owned(),
        };
        Job { hook: "shop".to_owned(), push, repository: "https://forge.example/team/shop".to_owned() }
    }

    async fn open(directory: &Path) -> Deliveries {
        let journal = Journal::open(&directory.join("journal.redb"), Fsync::default()).unwrap();
        Deliveries::open(journal, &directory.join("old.redb")).await.unwrap()
    }

    #[tokio::test]
    async fn a_delivery_is_taken_once_and_outlives_the_process_until_it_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (Key::new("shop", b"one"), Key::new("shop", b"other"));
        let deliveries = open(directory.path()).await;
        assert_eq!(deliveries.take(one, job("1")).await.unwrap(), Taken::New);
        assert_eq!(deliveries.take(other, job("2")).await.unwrap(), Taken::New);
        assert_eq!(deliveries.take(one, job("3")).await.unwrap(), Taken::Before);
        deliveries.finish(other).await.unwrap();
        let ended = deliveries.journal.ended();
        drop(deliveries);
        ended.await;
        let deliveries = open(directory.path()).await;
        assert_eq!(deliveries.pending().await.unwrap(), [(one, job("1"))]);
        assert_eq!(
            deliveries.take(other, job("2")).await.unwrap(),
            Taken::Before,
            "expected finished deliveries to be recognised"
        );
        assert_ne!(
            Key::new("shop", b"one"),
            Key::new("bank", b"one"),
            "expected each webhook to have its own deliveries"
        );
    }

    #[tokio::test]
    async fn no_more_wait_than_there_is_room_for_and_the_oldest_are_known_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let deliveries = open(directory.path()).await;
        let key = |number: u64| Key::new("shop", &number.to_le_bytes());
        let jobs = (0..MAX_JOBS).fold(Batch::default(), |batch, number| batch.put(JOBS, key(number).hex(), "{}"));
        deliveries.journal.commit(jobs, Durability::Relaxed).await.unwrap();
        let known = (0..KNOWN).fold(Batch::default(), |batch, number| taken(batch, &key(number).hex(), number));
        deliveries.journal.commit(known, Durability::Relaxed).await.unwrap();
        let late = Key::new("shop", b"late");
        assert_eq!(deliveries.take(late, job("1")).await.unwrap(), Taken::Full);
        deliveries.finish(key(0)).await.unwrap();
        assert_eq!(deliveries.take(late, job("1")).await.unwrap(), Taken::New);
        assert_eq!(deliveries.journal.count(TAKEN).await.unwrap(), KNOWN);
        assert_eq!(deliveries.journal.get(TAKEN, &key(0).hex()).await.unwrap(), None);
        assert!(deliveries.journal.get(TAKEN, &key(1).hex()).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn deliveries_of_an_earlier_version_are_imported() {
        let directory = tempfile::tempdir().unwrap();
        let (done, open_one) = (Key::new("shop", b"done"), Key::new("shop", b"open"));
        let waiting = serde_json::to_vec(&job("7")).unwrap();
        import::write(&directory.path().join("old.redb"), &[(done.0, 1), (open_one.0, 2)], &[(open_one.0, waiting)]);
        let deliveries = open(directory.path()).await;
        assert_eq!(deliveries.pending().await.unwrap(), [(open_one, job("7"))]);
        assert_eq!(deliveries.take(done, job("1")).await.unwrap(), Taken::Before);
        assert!(!directory.path().join("old.redb").exists());
    }
}
