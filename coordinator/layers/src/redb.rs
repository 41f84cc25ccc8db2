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

use super::{Error, Known, LayerStore};
use kiln_state::database;

/// Instance and key to the place in the order and the encoded record.
const RECORDS: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("records");
/// Place in the order of writing to instance and key.
const ORDER: TableDefinition<'_, u64, (&str, &str)> = TableDefinition::new("order");
/// What this coordinator is called among those that it shares records with.
const NAME: TableDefinition<'_, (), &str> = TableDefinition::new("name");

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
        let opened = match database::open(path, CACHE_BYTES) {
            Err(redb::DatabaseError::Storage(error)) if is_broken(&error) => {
                tracing::warn!(path = %path.display(), %error, "the index of layers is broken; a new one is begun");
                std::fs::rename(path, path.with_extension("broken")).map_err(Error::index)?;
                database::open(path, CACHE_BYTES)
            }
            opened => opened,
        };
        let database = opened.map_err(Error::index)?;
        let store = Self { database: Arc::new(database), max_records };
        prepare(&store.database).map_err(Error::index)?;
        Ok(store)
    }

    /// What this coordinator is called among those that it shares records with; the same as long as the file lives.
    pub(super) async fn name(&self) -> Result<String, Error> {
        self.on_disk(name).await
    }

    /// The instances that it has records of.
    pub(super) async fn instances(&self) -> Result<Vec<String>, Error> {
        self.on_disk(instances).await
    }

    async fn change(&self, instance: &str, changes: Vec<Change>) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let (instance, most) = (instance.to_owned(), self.max_records);
        self.on_disk(move |database| change(database, most, &instance, &changes)).await
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

/// Makes what a new file lacks.
fn prepare(database: &Database) -> Result<(), redb::Error> {
    if name(database).is_ok() {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(ORDER)?;
    transaction.open_table(NAME)?.insert((), uuid::Uuid::new_v4().simple().to_string().as_str())?;
    transaction.commit()?;
    Ok(())
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

/// A key with its record, or none to take it away.
type Change = (String, Option<Vec<u8>>);

/// Writes records, or takes them away, and then the oldest of those that are too many: one transaction, and one sync of the disk.
fn change(database: &Database, max_records: u64, instance: &str, changes: &[Change]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        let mut order = transaction.open_table(ORDER)?;
        let mut place = order.last()?.map_or(0, |(place, _)| place.value() + 1);
        for (key, value) in changes {
            let row = (instance, key.as_str());
            let before = match value {
                Some(value) => records.insert(row, (place, value.as_slice()))?,
                None => records.remove(row)?,
            };
            if let Some(before) = before {
                order.remove(before.value().0)?;
            }
            if value.is_some() {
                order.insert(place, row)?;
                place += 1;
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

fn name(database: &Database) -> Result<String, redb::Error> {
    let found = database.begin_read()?.open_table(NAME)?.get(())?.map(|name| name.value().to_owned());
    found.ok_or_else(|| redb::Error::Corrupted("the index of layers has no name".to_owned()))
}

/// The instances that it holds records of.
fn instances(database: &Database) -> Result<Vec<String>, redb::Error> {
    let records = database.begin_read()?.open_table(RECORDS)?;
    let mut found: Vec<String> = Vec::new();
    for row in records.iter()? {
        let (row, _) = row?;
        if found.last().is_none_or(|last| last != row.value().0) {
            found.push(row.value().0.to_owned());
        }
    }
    Ok(found)
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
    async fn get(&self, instance: &str, keys: &[String]) -> Result<Vec<Known>, Error> {
        let (instance, keys) = (instance.to_owned(), keys.to_owned());
        let found = self.on_disk(move |database| {
            let transaction = database.begin_read()?;
            let records = transaction.open_table(RECORDS)?;
            let mut found = Vec::with_capacity(keys.len());
            for key in &keys {
                found.push(records.get((instance.as_str(), key.as_str()))?.map(|row| row.value().1.to_vec()));
            }
            Ok(found)
        });
        found.await?.into_iter().map(|data| data.map_or(Ok(Known::default()), |data| known(&data))).collect()
    }

    async fn put(&self, instance: &str, records: Vec<(String, StepLayers)>) -> Result<(), Error> {
        let put = records.into_iter().map(|(key, record)| (key, Some(record.encode_to_vec())));
        self.change(instance, put.collect()).await
    }

    async fn list(&self, instance: &str) -> Result<Vec<(String, Known)>, Error> {
        let instance = instance.to_owned();
        let found = self.on_disk(move |database| all(database, &instance)).await?;
        found.into_iter().map(|(key, data)| Ok((key, known(&data)?))).collect()
    }

    async fn remove(&self, instance: &str, keys: &[String]) -> Result<(), Error> {
        self.change(instance, keys.iter().map(|key| (key.clone(), None)).collect()).await
    }
}

fn known(data: &[u8]) -> Result<Known, Error> {
    Ok(Known { own: StepLayers::decode(data)?, others: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(project: &str) -> StepLayers {
        StepLayers { project: project.into(), ..Default::default() }
    }

    async fn put(store: &RedbLayers, instance: &str, keys: &[&str]) {
        let records = keys.iter().map(|key| ((*key).to_owned(), record(instance)));
        store.put(instance, records.collect()).await.unwrap();
    }

    async fn keys(store: &RedbLayers, instance: &str) -> Vec<String> {
        store.list(instance).await.unwrap().into_iter().map(|(key, _)| key).collect()
    }

    #[tokio::test]
    async fn records_written_longest_ago_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = RedbLayers::open(&dir.path().join("layers.redb"), 2).unwrap();
        put(&store, "", &["a", "b"]).await;
        put(&store, "", &["a", "c"]).await;
        assert_eq!(keys(&store, "").await, ["a", "c"]);
        let wanted = ["b", "a"].map(str::to_owned);
        assert_eq!(
            store.get("", &wanted).await.unwrap(),
            [Known::default(), Known { own: record(""), others: vec![] }]
        );
    }

    #[tokio::test]
    async fn an_instance_sees_its_own_records_and_they_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layers.redb");
        let store = RedbLayers::open(&path, 10).unwrap();
        for instance in ["", "a", "a\0", "ab"] {
            put(&store, instance, &["key"]).await;
        }
        for _ in 0..2 {
            store.remove("ab", &["key".to_owned()]).await.unwrap();
        }
        assert_eq!(store.instances().await.unwrap(), ["", "a", "a\0"]);
        let name = store.name().await.unwrap();
        drop(store);
        let store = RedbLayers::open(&path, 10).unwrap();
        for instance in ["", "a", "a\0"] {
            let known = Known { own: record(instance), others: Vec::new() };
            assert_eq!(store.list(instance).await.unwrap(), [("key".to_owned(), known)]);
        }
        assert_eq!(store.name().await.unwrap(), name, "expected the same name as before");
        assert!(keys(&store, "ab").await.is_empty());
    }

    #[tokio::test]
    async fn a_broken_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layers.redb");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let store = RedbLayers::open(&path, 10).unwrap();
        put(&store, "", &["key"]).await;
        assert!(dir.path().join("layers.broken").exists());
    }
}
