//! This coordinator's own records, in the journal.
//!
//! Invariant: each record has one row in [`RECORDS`] and one in [`ORDER`], and both hold at most `max_records`: the
//! least recently written are removed first. Nobody waits for the disk: a power cut may lose the latest writes.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use async_trait::async_trait;
use kiln_journal::{Batch, Durability, Journal, Range, Space};
use kiln_proto::v1::StepLayers;
use prost::Message;
use tokio::sync::Mutex;

use super::{Error, Known, LayerStore, import};

/// Instance and key to the encoded record.
pub(super) const RECORDS: Space = "step-results";
/// Position in the order of writing to instance and key.
const ORDER: Space = "step-result-order";
/// This coordinator's name among those that it shares records with.
pub(super) const NAME: Space = "coordinator-name";
/// The only key of [`NAME`].
pub(super) const KEY: &str = "name";

/// Records in a journal.
#[derive(Debug)]
pub struct OwnLayers {
    journal: Journal,
    max_records: usize,
    name: String,
    order: Mutex<Order>,
}

/// Rows in the order in which they were written.
#[derive(Debug, Default)]
struct Order {
    rows: BTreeMap<u64, String>,
    places: HashMap<String, u64>,
}

impl Order {
    fn insert(&mut self, place: u64, row: String) {
        self.places.insert(row.clone(), place);
        self.rows.insert(place, row);
    }

    fn remove(&mut self, row: &str) -> Option<u64> {
        let place = self.places.remove(row)?;
        self.rows.remove(&place);
        Some(place)
    }
}

/// Instance and key as one unambiguous key.
fn row(instance: &str, key: &str) -> String {
    format!("{}:{instance}:{key}", instance.len())
}

fn instance(row: &str) -> Option<&str> {
    let (length, rest) = row.split_once(':')?;
    rest.get(..length.parse().ok()?)
}

fn place_key(place: u64) -> String {
    format!("{place:020}")
}

impl OwnLayers {
    /// Opens the records in the journal; those in `old`, the file of an earlier version, are imported.
    ///
    /// # Errors
    /// If the journal cannot be used.
    pub async fn open(journal: Journal, old: &Path, max_records: usize) -> Result<Self, Error> {
        let mut order = Order::default();
        for (place, row) in journal.list(ORDER, Range::default()).await? {
            if let Ok(place) = place.parse() {
                order.insert(place, String::from_utf8_lossy(&row).into_owned());
            }
        }
        let imported = import::read(old).await;
        let known = journal.get(NAME, KEY).await?.map(|name| String::from_utf8_lossy(&name).into_owned());
        let name = known.or(imported.name).unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
        journal.commit(Batch::default().put(NAME, KEY, name.clone()), Durability::Relaxed).await?;
        let store = Self { journal, max_records, name, order: Mutex::new(order) };
        for (instance, changes) in imported.records {
            store.change(&instance, changes).await?;
        }
        store.journal.settle().await?;
        import::remove(old);
        Ok(store)
    }

    /// This coordinator's name among those that it shares records with. It stays the same as long as the journal
    /// exists.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The instances that have records.
    pub(super) async fn instances(&self) -> Vec<String> {
        let order = self.order.lock().await;
        let mut found: Vec<String> = order.places.keys().filter_map(|row| instance(row)).map(str::to_owned).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Writes or removes records, and removes the oldest of those in excess, in one batch.
    async fn change(&self, instance: &str, changes: Vec<Change>) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut order = self.order.lock().await;
        let mut batch = Batch::default();
        let mut place = order.rows.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        for (key, value) in changes {
            let row = row(instance, &key);
            if let Some(before) = order.remove(&row) {
                batch = batch.remove(ORDER, place_key(before));
            }
            match value {
                Some(value) => {
                    batch = batch.put(RECORDS, row.clone(), value).put(ORDER, place_key(place), row.clone());
                    order.insert(place, row);
                    place = place.saturating_add(1);
                }
                None => batch = batch.remove(RECORDS, row),
            }
        }
        while order.rows.len() > self.max_records {
            let Some((place, oldest)) = order.rows.pop_first() else { break };
            order.places.remove(&oldest);
            batch = batch.remove(ORDER, place_key(place)).remove(RECORDS, oldest);
        }
        // If this write fails, the journal repeats it, so the order in memory stays the journal's.
        Ok(self.journal.commit(batch, Durability::Relaxed).await?)
    }
}

/// A key with its record, or none to remove it.
pub(super) type Change = (String, Option<Vec<u8>>);

#[async_trait]
impl LayerStore for OwnLayers {
    async fn settle(&self) -> Result<(), Error> {
        Ok(self.journal.settle().await?)
    }

    async fn get(&self, instance: &str, keys: &[String]) -> Result<Vec<Known>, Error> {
        let rows = keys.iter().map(|key| row(instance, key)).collect();
        let found = self.journal.get_many(RECORDS, rows).await?;
        found.into_iter().map(|data| data.map_or(Ok(Known::default()), |data| known(&data))).collect()
    }

    async fn put(&self, instance: &str, records: Vec<(String, StepLayers)>) -> Result<(), Error> {
        let put = records.into_iter().map(|(key, record)| (key, Some(record.encode_to_vec())));
        self.change(instance, put.collect()).await
    }

    async fn list(&self, instance: &str) -> Result<Vec<(String, Known)>, Error> {
        let prefix = row(instance, "");
        let found = self.journal.list(RECORDS, Range::prefix(&prefix)).await?;
        found
            .into_iter()
            .map(|(row, data)| Ok((row.strip_prefix(&prefix).unwrap_or_default().to_owned(), known(&data)?)))
            .collect()
    }

    async fn remove(&self, instance: &str, keys: &[String]) -> Result<(), Error> {
        self.change(instance, keys.iter().map(|key| (key.clone(), None)).collect()).await
    }
}

fn known(data: &[u8]) -> Result<Known, Error> {
    Ok(Known { own: StepLayers::decode(data)?, others: Vec::new() })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kiln_journal::Fsync;

    /// Records in a directory.
    pub(crate) async fn open(directory: &Path, max_records: usize) -> OwnLayers {
        let journal = Journal::open(&directory.join("journal.redb"), Fsync::default()).unwrap();
        OwnLayers::open(journal, &directory.join("layers.redb"), max_records).await.unwrap()
    }

    fn record(project: &str) -> StepLayers {
        StepLayers { project: project.into(), ..Default::default() }
    }

    async fn put(store: &OwnLayers, instance: &str, keys: &[&str]) {
        let records = keys.iter().map(|key| ((*key).to_owned(), record(instance)));
        store.put(instance, records.collect()).await.unwrap();
    }

    async fn keys(store: &OwnLayers, instance: &str) -> Vec<String> {
        store.list(instance).await.unwrap().into_iter().map(|(key, _)| key).collect()
    }

    #[tokio::test]
    async fn records_written_longest_ago_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), 2).await;
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
        let store = open(dir.path(), 10).await;
        for instance in ["", "a", "a\0", "ab", "a:b"] {
            put(&store, instance, &["key"]).await;
        }
        for _ in 0..2 {
            store.remove("ab", &["key".to_owned()]).await.unwrap();
        }
        assert_eq!(store.instances().await, ["", "a", "a\0", "a:b"]);
        let (name, ended) = (store.name().to_owned(), store.journal.ended());
        drop(store);
        ended.await;
        let store = open(dir.path(), 4).await;
        for instance in ["", "a", "a\0", "a:b"] {
            let known = Known { own: record(instance), others: Vec::new() };
            assert_eq!(store.list(instance).await.unwrap(), [("key".to_owned(), known)]);
        }
        assert_eq!(store.name(), name, "expected the same name as before");
        assert!(keys(&store, "ab").await.is_empty());
        put(&store, "new", &["key"]).await;
        assert_eq!(store.instances().await, ["a", "a\0", "a:b", "new"], "the order is known, too");
    }
}
