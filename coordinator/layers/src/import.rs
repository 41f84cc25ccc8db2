//! Imports the records of an earlier version, which kept them in a separate file.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use super::own::Change;

/// Instance and key to the position in the order and the encoded record.
const RECORDS: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("records");
/// Position in the order of writing to instance and key.
const ORDER: TableDefinition<'_, u64, (&str, &str)> = TableDefinition::new("order");
const NAME: TableDefinition<'_, (), &str> = TableDefinition::new("name");

/// Memory for the file's pages.
const CACHE_BYTES: usize = 4 << 20;

/// The records that were found.
#[derive(Debug, Default)]
pub(super) struct Imported {
    pub(super) name: Option<String>,
    /// By instance, least recently written first.
    pub(super) records: BTreeMap<String, Vec<Change>>,
}

/// Reads the file, if there is one. If it cannot be read, it stays where it is and a warning is logged: it only
/// describes what is cached.
pub(super) async fn read(path: &Path) -> Imported {
    if !path.exists() {
        return Imported::default();
    }
    let at = path.to_owned();
    match tokio::task::spawn_blocking(move || read_file(&at)).await {
        Ok(Ok(found)) => {
            tracing::info!(path = %path.display(), "importing the step results of an earlier version");
            found
        }
        Ok(Err(error)) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the step results of an earlier version; `kiln cache` starts without them");
            let _ = std::fs::rename(path, path.with_extension("broken"));
            Imported::default()
        }
        Err(_) => Imported::default(),
    }
}

fn read_file(path: &Path) -> Result<Imported, redb::Error> {
    let database = kiln_state::database::open(path, CACHE_BYTES)?;
    let read = database.begin_read()?;
    let mut found = Imported::default();
    let (records, order) = match (read.open_table(RECORDS), read.open_table(ORDER)) {
        (Ok(records), Ok(order)) => (records, order),
        // It was never used.
        (Err(redb::TableError::TableDoesNotExist(_)), _) => return Ok(found),
        (Err(error), _) | (_, Err(error)) => return Err(error.into()),
    };
    found.name = read.open_table(NAME)?.get(())?.map(|name| name.value().to_owned());
    for row in order.iter()? {
        let (_, row) = row?;
        let (instance, key) = row.value();
        if let Some(record) = records.get((instance, key))? {
            let change = (key.to_owned(), Some(record.value().1.to_vec()));
            found.records.entry(instance.to_owned()).or_default().push(change);
        }
    }
    Ok(found)
}

/// Removes the file once its records are in the journal.
pub(super) fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove the file that was imported; remove it by hand");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use kiln_proto::v1::StepLayers;
    use prost::Message;

    use super::super::LayerStore;
    use super::super::own::tests::open;
    use super::*;

    #[tokio::test]
    async fn records_of_an_earlier_version_are_imported_and_a_broken_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layers.redb");
        let database = kiln_state::database::open(&path, CACHE_BYTES).unwrap();
        let write = database.begin_write().unwrap();
        let record = StepLayers { project: "shop".into(), ..Default::default() };
        {
            write.open_table(NAME).unwrap().insert((), "farm-one").unwrap();
            let (mut records, mut order) = (write.open_table(RECORDS).unwrap(), write.open_table(ORDER).unwrap());
            for (place, key) in [(3, "b"), (4, "a"), (5, "c")] {
                records.insert(("", key), (place, record.encode_to_vec().as_slice())).unwrap();
                order.insert(place, ("", key)).unwrap();
            }
        }
        write.commit().unwrap();
        drop(database);
        let store = open(dir.path(), 2).await;
        assert_eq!(store.name(), "farm-one");
        let known = store.list("").await.unwrap();
        assert_eq!(known.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a", "c"], "the oldest goes first");
        assert!(known.iter().all(|(_, known)| known.own == record));
        assert!(!path.exists(), "expected what was imported to be removed");
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("layers.redb"), vec![7; 100_000]).unwrap();
        assert!(open(other.path(), 2).await.list("").await.unwrap().is_empty());
        assert!(other.path().join("layers.broken").exists());
    }
}
