//! What was delivered, and what of it is still to do: in a file, so that neither is forgotten.
//!
//! Invariant: a delivery is taken once. Its key is the hash of what was signed, so that it is known again under whatever number it comes.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::forge::Push;

/// Key of a delivery to the time when it came, in milliseconds since 1970.
const TAKEN: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("taken");
/// The same in the order of time.
const ORDER: TableDefinition<'_, (u64, &[u8; 32]), ()> = TableDefinition::new("order");
/// Key of a delivery to what is to do, as JSON.
const JOBS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("jobs");

/// Deliveries that are known again.
const KNOWN: u64 = 200_000;
/// Pushes that wait or are built at once.
const MOST_JOBS: u64 = 1_000;
/// Memory for the file's pages.
const CACHE_BYTES: usize = 4 << 20;

/// A delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

/// A push that is to be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    /// The webhook's name.
    pub(super) hook: String,
    /// What was pushed.
    pub(super) push: Push,
    /// The address of those it names that the configuration allows.
    pub(super) repository: String,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is written down.
    New,
    /// It was there before.
    Before,
    /// There is no room for it now.
    Full,
}

/// The file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the journal of webhooks cannot be used")]
pub(super) struct Error(#[source] Box<dyn std::error::Error + Send + Sync>);

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error(error.into())
}

impl Key {
    /// Of what this webhook was sent.
    pub(super) fn new(hook: &str, body: &[u8]) -> Self {
        Self(Sha256::new().chain_update(hook).chain_update([0]).chain_update(body).finalize().into())
    }

    /// As words.
    pub(super) fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

/// The file. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    database: Arc<Database>,
}

impl Journal {
    /// Opens the file, and makes it where it is not.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let database = kiln_state::database::open(path, CACHE_BYTES).map_err(wrong)?;
        let write = database.begin_write().map_err(wrong)?;
        write.open_table(TAKEN).map_err(wrong)?;
        write.open_table(ORDER).map_err(wrong)?;
        write.open_table(JOBS).map_err(wrong)?;
        write.commit().map_err(wrong)?;
        Ok(Self { database: Arc::new(database) })
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let database = self.database.clone();
        tokio::task::spawn_blocking(move || work(&database)).await.map_err(wrong)?
    }

    /// Writes a delivery down, if it is new. When this returns, it outlives the process.
    pub(super) async fn take(&self, key: Key, job: Job) -> Result<Taken, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let job = serde_json::to_vec(&job).map_err(wrong)?;
        self.on_disk(move |database| take(database, &key.0, now, &job)).await
    }

    /// What is still to do.
    pub(super) async fn pending(&self) -> Result<Vec<(Key, Job)>, Error> {
        self.on_disk(|database| {
            let read = database.begin_read().map_err(wrong)?;
            let mut pending = Vec::new();
            for row in read.open_table(JOBS).map_err(wrong)?.iter().map_err(wrong)? {
                let (key, job) = row.map_err(wrong)?;
                pending.push((Key(*key.value()), serde_json::from_slice(job.value()).map_err(wrong)?));
            }
            Ok(pending)
        })
        .await
    }

    /// Nothing is to do for it any more.
    pub(super) async fn finish(&self, key: Key) -> Result<(), Error> {
        self.on_disk(move |database| {
            let write = database.begin_write().map_err(wrong)?;
            write.open_table(JOBS).map_err(wrong)?.remove(&key.0).map_err(wrong)?;
            write.commit().map_err(wrong)
        })
        .await
    }
}

fn take(database: &Database, key: &[u8; 32], now: u64, job: &[u8]) -> Result<Taken, Error> {
    let write = database.begin_write().map_err(wrong)?;
    {
        let mut taken = write.open_table(TAKEN).map_err(wrong)?;
        if taken.get(key).map_err(wrong)?.is_some() {
            return Ok(Taken::Before);
        }
        let mut jobs = write.open_table(JOBS).map_err(wrong)?;
        if jobs.len().map_err(wrong)? >= MOST_JOBS {
            return Ok(Taken::Full);
        }
        let mut order = write.open_table(ORDER).map_err(wrong)?;
        taken.insert(key, now).map_err(wrong)?;
        order.insert((now, key), ()).map_err(wrong)?;
        jobs.insert(key, job).map_err(wrong)?;
        while taken.len().map_err(wrong)? > KNOWN {
            let Some(oldest) = order.pop_first().map_err(wrong)?.map(|(place, _)| *place.value().1) else { break };
            taken.remove(&oldest).map_err(wrong)?;
        }
    }
    write.commit().map_err(wrong)?;
    Ok(Taken::New)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[tokio::test]
    async fn a_delivery_is_taken_once_and_outlives_the_process_until_it_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.redb");
        let (one, other) = (Key::new("shop", b"one"), Key::new("shop", b"other"));
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.take(one, job("1")).await.unwrap(), Taken::New);
        assert_eq!(journal.take(other, job("2")).await.unwrap(), Taken::New);
        assert_eq!(journal.take(one, job("3")).await.unwrap(), Taken::Before);
        journal.finish(other).await.unwrap();
        drop(journal);
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.pending().await.unwrap(), [(one, job("1"))]);
        assert_eq!(journal.take(other, job("2")).await.unwrap(), Taken::Before, "what is finished is known too");
        assert_ne!(Key::new("shop", b"one"), Key::new("bank", b"one"), "webhooks do not know each other's");
    }

    #[tokio::test]
    async fn no_more_wait_than_there_is_room_for() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(&directory.path().join("journal.redb")).unwrap();
        let database = &journal.database;
        let mut write = database.begin_write().unwrap();
        write.set_durability(redb::Durability::None).unwrap();
        {
            let mut jobs = write.open_table(JOBS).unwrap();
            for number in 0..MOST_JOBS {
                jobs.insert(&Key::new("shop", &number.to_le_bytes()).0, &b"{}"[..]).unwrap();
            }
        }
        write.commit().unwrap();
        let late = Key::new("shop", b"late");
        assert_eq!(journal.take(late, job("1")).await.unwrap(), Taken::Full);
        journal.finish(Key::new("shop", &0_u64.to_le_bytes())).await.unwrap();
        assert_eq!(journal.take(late, job("1")).await.unwrap(), Taken::New);
    }
}
