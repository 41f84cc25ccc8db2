//! Records of layers in one redb file.
//!
//! Invariant: each record has one row in `records` and one in `order`, and both tables hold at most `max_records`: those
//! written longest ago go first.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_proto::v1::StepLayers;
use prost::Message;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::{Error, LayerStore};

/// Instance and key to the place in the order and the encoded record.
const RECORDS: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("records");
/// Place in the order of writing to instance and key.
const ORDER: TableDefinition<'_, u64, (&str, &str)> = TableDefinition::new("order");

/// Memory for the file's pages.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Records in a file.
#[derive(Debug)]
pub struct RedbLayers {
    database: Arc<Database>,
    max_records: u64,
}

impl RedbLayers {
    /// Opens the file, and makes it where it is not. A file that cannot be read is put aside as `*.broken`: it only describes
    /// what is cached.
    pub fn open(path: &Path, max_records: u64) -> Result<Self, Error> {
        let opened = match Database::builder().set_cache_size(CACHE_BYTES).create(path) {
            Err(redb::DatabaseError::Storage(error)) if is_broken(&error) => {
                tracing::warn!(path = %path.display(), %error, "the index of layers is broken; a new one is begun");
                std::fs::rename(path, path.with_extension("broken")).map_err(Error::index)?;
                Database::builder().set_cache_size(CACHE_BYTES).create(path)
            }
            opened => opened,
        };
        let database = opened.map_err(Error::index)?;
        let store = Self { database: Arc::new(database), max_records };
        change(&store.database, max_records, "", None).map_err(Error::index)?;
        Ok(store)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let database = self.database.clone();
        let done = tokio::task::spawn_blocking(move || work(&database)).await;
        done.map_err(|_| Error::Stopping)?.map_err(Error::index)
    }
}

/// Whether the file is no index, as opposed to the disk failing.
fn is_broken(error: &redb::StorageError) -> bool {
    match error {
        redb::StorageError::Corrupted(_) => true,
        redb::StorageError::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

/// Writes one record, or takes it away, and then the oldest of those that are too many.
fn change(
    database: &Database,
    max_records: u64,
    instance: &str,
    change: Option<(&str, Option<&[u8]>)>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        let mut order = transaction.open_table(ORDER)?;
        if let Some((key, value)) = change {
            let place = order.last()?.map_or(0, |(place, _)| place.value() + 1);
            let before = match value {
                Some(value) => records.insert((instance, key), (place, value))?,
                None => records.remove((instance, key))?,
            };
            if let Some(before) = before {
                order.remove(before.value().0)?;
            }
            if value.is_some() {
                order.insert(place, (instance, key))?;
            }
        }
        while order.len()? > max_records {
            let Some((_, oldest)) = order.pop_first()? else { break };
            records.remove(oldest.value())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn all(database: &Database, instance: &str) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
    let transaction = database.begin_read()?;
    let records = transaction.open_table(RECORDS)?;
    let mut found = Vec::new();
    for row in records.range((instance, "")..)? {
        let (name, value) = row?;
        let (of, key) = name.value();
        if of != instance {
            break;
        }
        found.push((key.to_owned(), value.value().1.to_vec()));
    }
    Ok(found)
}

#[async_trait]
impl LayerStore for RedbLayers {
    async fn get(&self, instance: &str, key: &str) -> Result<Option<StepLayers>, Error> {
        let (instance, key) = (instance.to_owned(), key.to_owned());
        let found = self.on_disk(move |database| {
            let transaction = database.begin_read()?;
            let records = transaction.open_table(RECORDS)?;
            Ok(records.get((instance.as_str(), key.as_str()))?.map(|row| row.value().1.to_vec()))
        });
        Ok(found.await?.map(|data| StepLayers::decode(data.as_slice())).transpose()?)
    }

    async fn put(&self, instance: &str, key: &str, record: &StepLayers) -> Result<(), Error> {
        let (instance, key, value, most) =
            (instance.to_owned(), key.to_owned(), record.encode_to_vec(), self.max_records);
        self.on_disk(move |database| change(database, most, &instance, Some((&key, Some(&value))))).await
    }

    async fn list(&self, instance: &str) -> Result<Vec<(String, StepLayers)>, Error> {
        let instance = instance.to_owned();
        let found = self.on_disk(move |database| all(database, &instance)).await?;
        found.into_iter().map(|(key, data)| Ok((key, StepLayers::decode(data.as_slice())?))).collect()
    }

    async fn remove(&self, instance: &str, key: &str) -> Result<(), Error> {
        let (instance, key, most) = (instance.to_owned(), key.to_owned(), self.max_records);
        self.on_disk(move |database| change(database, most, &instance, Some((&key, None)))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(project: &str) -> StepLayers {
        StepLayers { project: project.into(), ..Default::default() }
    }

    async fn keys(store: &RedbLayers, instance: &str) -> Vec<String> {
        store.list(instance).await.unwrap().into_iter().map(|(key, _)| key).collect()
    }

    #[tokio::test]
    async fn records_written_longest_ago_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = RedbLayers::open(&dir.path().join("layers.redb"), 2).unwrap();
        for key in ["a", "b", "a", "c"] {
            store.put("", key, &record(key)).await.unwrap();
        }
        assert_eq!(keys(&store, "").await, ["a", "c"]);
        assert_eq!(store.get("", "b").await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_instance_sees_its_own_records_and_they_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layers.redb");
        let store = RedbLayers::open(&path, 10).unwrap();
        for instance in ["", "a", "a\0", "ab"] {
            store.put(instance, "key", &record(instance)).await.unwrap();
        }
        store.remove("ab", "key").await.unwrap();
        store.remove("ab", "key").await.unwrap();
        drop(store);
        let store = RedbLayers::open(&path, 10).unwrap();
        for instance in ["", "a", "a\0"] {
            assert_eq!(store.list(instance).await.unwrap(), [("key".to_owned(), record(instance))]);
        }
        assert!(keys(&store, "ab").await.is_empty());
    }

    #[tokio::test]
    async fn a_broken_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layers.redb");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let store = RedbLayers::open(&path, 10).unwrap();
        store.put("", "key", &record("p")).await.unwrap();
        assert!(dir.path().join("layers.broken").exists());
    }
}
