//! The names that have trees, in the journal: what is listed, and what goes when there is too much.

use kiln_journal::{Batch, Durability, Journal, Range, Space};
use kiln_proto::digest::DigestFunction;
use kiln_proto::v1::{CacheName, StoredMount};
use kiln_store::Clock;
use prost::Message;
use tokio::sync::Mutex;

use crate::Error;

/// Instance and name to the record.
const RECORDS: Space = "cache-mounts";
/// Most names of a tenant.
const MAX_RECORDS: usize = 10_000;
/// Uses closer together than this are one.
const USE_EVERY_MS: i64 = 60_000;

#[derive(Debug)]
pub(super) struct Index {
    journal: Journal,
    clock: Clock,
    /// Held by whoever reads records to write them again.
    writing: Mutex<()>,
}

/// A name's key, which begins with its instance's prefix.
pub(super) fn row(instance: &str, name: &CacheName) -> String {
    format!("{}{}", prefix(instance), DigestFunction::Sha256.digest(&name.encode_to_vec()).hex())
}

fn prefix(instance: &str) -> String {
    format!("{}:{instance}:", instance.len())
}

fn row_of(record: &StoredMount) -> String {
    row(&record.instance, &record.name.clone().unwrap_or_default())
}

impl Index {
    pub(super) fn new(journal: Journal, clock: Clock) -> Self {
        Self { journal, clock, writing: Mutex::default() }
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now() as i64
    }

    /// Records that a name is used, and what it stands for.
    pub(super) async fn used(&self, mut record: StoredMount) -> Result<(), Error> {
        let _writing = self.writing.lock().await;
        let key = row_of(&record);
        let known = self.journal.get(RECORDS, &key).await?.map(StoredMount::decode).transpose()?;
        record.used_ms = self.now_ms();
        let is_recent = |known: &StoredMount| {
            known.tree == record.tree && record.used_ms.saturating_sub(known.used_ms) < USE_EVERY_MS
        };
        if known.as_ref().is_some_and(is_recent) {
            return Ok(());
        }
        let batch = Batch::default().put(RECORDS, key, record.encode_to_vec());
        Ok(self.journal.commit(batch, Durability::Relaxed).await?)
    }

    /// Records a new tree of a name; returns the records that were removed, so that at most `most_bytes` stay.
    pub(super) async fn put(&self, mut record: StoredMount, most_bytes: u64) -> Result<Vec<StoredMount>, Error> {
        let _writing = self.writing.lock().await;
        let key = row_of(&record);
        record.used_ms = self.now_ms();
        let mut others: Vec<StoredMount> =
            self.all("").await?.into_iter().filter(|other| row_of(other) != key).collect();
        others.sort_by_key(|other| std::cmp::Reverse(other.used_ms));
        let mut batch = Batch::default().put(RECORDS, key, record.encode_to_vec());
        let (mut bytes, mut surplus) = (record.size_bytes, Vec::new());
        for (at, other) in others.into_iter().enumerate() {
            bytes = bytes.saturating_add(other.size_bytes);
            if bytes > most_bytes || at.saturating_add(1) >= MAX_RECORDS {
                batch = batch.remove(RECORDS, row_of(&other));
                surplus.push(other);
            }
        }
        self.journal.commit(batch, Durability::Durable).await?;
        Ok(surplus)
    }

    pub(super) async fn remove(&self, instance: &str, name: &CacheName) -> Result<(), Error> {
        let _writing = self.writing.lock().await;
        let key = row(instance, name);
        if self.journal.get(RECORDS, &key).await?.is_none() {
            return Ok(());
        }
        Ok(self.journal.commit(Batch::default().remove(RECORDS, key), Durability::Relaxed).await?)
    }

    /// The records of an instance.
    pub(super) async fn of(&self, instance: &str) -> Result<Vec<StoredMount>, Error> {
        self.all(&prefix(instance)).await
    }

    /// The records of all instances.
    pub(super) async fn of_all(&self) -> Result<Vec<StoredMount>, Error> {
        self.all("").await
    }

    async fn all(&self, prefix: &str) -> Result<Vec<StoredMount>, Error> {
        let rows = self.journal.list(RECORDS, Range::prefix(prefix)).await?;
        rows.into_iter().map(|(_, data)| Ok(StoredMount::decode(data)?)).collect()
    }
}
