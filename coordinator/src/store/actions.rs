//! Results of actions in one redb file.
//!
//! Writers queue; one thread takes all that wait and commits them at once, so a sync of the disk is shared by many results.
//! Invariant: each action has one row in `results` and one in `order`, and both tables hold at most `max_entries`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use parking_lot::RwLock;
use prost::Message;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::{ActionStore, Error};

/// Key of an action to its place in the order and its encoded result.
const RESULTS: TableDefinition<'_, &[u8], (u64, &[u8])> = TableDefinition::new("results");
/// Place in the order of writing to the key.
const ORDER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("order");

/// Memory for the file's pages; redb's own default is a gigabyte.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Results that wait for the disk before `put` waits with them.
const QUEUE: usize = 1_024;

/// A result to write, or none to remove what is there.
struct Put {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    done: oneshot::Sender<Result<(), Arc<redb::Error>>>,
}

/// The redb file. After an I/O error redb serves no more: then it is closed, and opened again at the next use.
#[derive(Debug)]
struct Results {
    path: PathBuf,
    max_entries: u64,
    database: RwLock<Option<Database>>,
}

impl Results {
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Arc<redb::Error>> {
        let mut open = self.database.read();
        while open.is_none() {
            drop(open);
            self.open()?;
            open = self.database.read();
        }
        let result = open.as_ref().map(work);
        drop(open);
        match result {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => {
                tracing::error!(path = %self.path.display(), %error, "the action cache failed; it is opened anew");
                *self.database.write() = None;
                Err(Arc::new(error))
            }
            None => Err(Arc::new(redb::Error::DatabaseClosed)),
        }
    }

    fn open(&self) -> Result<(), redb::Error> {
        let mut database = self.database.write();
        if database.is_none() {
            let opened = Database::builder().set_cache_size(CACHE_BYTES).create(&self.path)?;
            commit(&opened, self.max_entries, &[])?;
            *database = Some(opened);
        }
        Ok(())
    }

    fn failed(&self, source: Arc<redb::Error>) -> Error {
        let path = self.path.clone();
        match &*source {
            redb::Error::DatabaseAlreadyOpen => Error::Locked { path },
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Error::DiskFull { path, source: error.kind().into() }
            }
            _ => Error::Database { path, source },
        }
    }
}

/// The action cache's results in a file; the oldest written go first.
#[derive(Debug)]
pub struct RedbActions {
    results: Arc<Results>,
    queue: Option<mpsc::Sender<Put>>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for RedbActions {
    /// Waits for what is queued, so that the file is closed when the store is gone.
    fn drop(&mut self) {
        self.queue = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the action cache's writer panicked");
        }
    }
}

impl RedbActions {
    /// Opens the file, and makes it where it is not.
    pub fn open(path: &Path, max_entries: u64) -> Result<Self, Error> {
        let results = Arc::new(Results { path: path.to_owned(), max_entries, database: RwLock::new(None) });
        results.open().map_err(|error| results.failed(Arc::new(error)))?;
        let (queue, puts) = mpsc::channel(QUEUE);
        let shared = results.clone();
        let writer = std::thread::Builder::new()
            .name("action-cache".into())
            .spawn(move || write_all(&shared, puts))
            .map_err(|source| Error::io("start the writer of", path, source))?;
        Ok(Self { results, queue: Some(queue), writer: Some(writer) })
    }
}

impl RedbActions {
    /// Queues a change and waits until it is on the disk.
    async fn write(&self, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), Error> {
        let (done, committed) = oneshot::channel();
        let put = Put { key, value, done };
        self.queue.as_ref().ok_or(Error::Closed)?.send(put).await.map_err(|_| Error::Closed)?;
        committed.await.map_err(|_| Error::Closed)?.map_err(|source| self.results.failed(source))
    }
}

/// The writer's thread: ends when the store is dropped.
fn write_all(results: &Results, mut puts: mpsc::Receiver<Put>) {
    let mut batch = Vec::new();
    while puts.blocking_recv_many(&mut batch, QUEUE) > 0 {
        let result = results.with(|database| commit(database, results.max_entries, &batch));
        for put in batch.drain(..) {
            // A caller that went away does not want to know.
            let _ = put.done.send(result.clone());
        }
    }
}

fn commit(database: &Database, max_entries: u64, batch: &[Put]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut results = transaction.open_table(RESULTS)?;
        let mut order = transaction.open_table(ORDER)?;
        let first = order.last()?.map_or(0, |(place, _)| place.value() + 1);
        for (place, put) in (first..).zip(batch) {
            let before = match &put.value {
                Some(value) => results.insert(put.key.as_slice(), (place, value.as_slice()))?,
                None => results.remove(put.key.as_slice())?,
            };
            if let Some(before) = before {
                order.remove(before.value().0)?;
            }
            if put.value.is_some() {
                order.insert(place, put.key.as_slice())?;
            }
        }
        while order.len()? > max_entries {
            let Some((_, oldest)) = order.pop_first()? else { break };
            results.remove(oldest.value())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn key(instance: &str, action: &Digest) -> Vec<u8> {
    let function = match action.function {
        DigestFunction::Sha256 => 0,
        DigestFunction::Blake3 => 1,
    };
    let mut key = Vec::with_capacity(41 + instance.len());
    key.push(function);
    key.extend_from_slice(&action.hash);
    key.extend_from_slice(&action.size.to_be_bytes());
    key.extend_from_slice(instance.as_bytes());
    key
}

fn read(database: &Database, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
    let transaction = database.begin_read()?;
    let results = transaction.open_table(RESULTS)?;
    Ok(results.get(key)?.map(|row| row.value().1.to_vec()))
}

#[async_trait]
impl ActionStore for RedbActions {
    async fn get(&self, instance: &str, action: &Digest) -> Result<Option<reapi::ActionResult>, Error> {
        let (results, key) = (self.results.clone(), key(instance, action));
        let value = tokio::task::spawn_blocking(move || results.with(|database| read(database, &key))).await;
        let value = value.map_err(|_| Error::Closed)?.map_err(|source| self.results.failed(source))?;
        Ok(value.and_then(|value| match reapi::ActionResult::decode(value.as_slice()) {
            Ok(result) => Some(result),
            Err(error) => {
                tracing::error!(%action, %error, "a cached result is not readable; the action will run again");
                None
            }
        }))
    }

    async fn put(&self, instance: &str, action: &Digest, result: reapi::ActionResult) -> Result<(), Error> {
        self.write(key(instance, action), Some(result.encode_to_vec())).await
    }

    async fn remove(&self, instance: &str, action: &Digest) -> Result<(), Error> {
        self.write(key(instance, action), None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(number: u8) -> Digest {
        DigestFunction::Sha256.digest(&[number])
    }

    fn result(exit_code: i32) -> reapi::ActionResult {
        reapi::ActionResult { exit_code, ..Default::default() }
    }

    #[tokio::test]
    async fn the_oldest_results_go_when_there_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let store = RedbActions::open(&dir.path().join("actions.redb"), 3).unwrap();
        for number in 0..3 {
            store.put("", &action(number), result(1)).await.unwrap();
        }
        store.put("", &action(0), result(2)).await.unwrap();
        store.put("", &action(3), result(1)).await.unwrap();
        assert_eq!(store.get("", &action(0)).await.unwrap(), Some(result(2)));
        assert_eq!(store.get("", &action(1)).await.unwrap(), None);
        assert_eq!(store.get("", &action(2)).await.unwrap(), Some(result(1)));
        assert_eq!(store.get("", &action(3)).await.unwrap(), Some(result(1)));
    }

    #[tokio::test]
    async fn a_removed_result_is_gone_in_its_instance_and_can_be_put_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = RedbActions::open(&dir.path().join("actions.redb"), 2).unwrap();
        for instance in ["a", "b"] {
            store.put(instance, &action(0), result(1)).await.unwrap();
        }
        store.remove("a", &action(0)).await.unwrap();
        store.remove("a", &action(0)).await.unwrap();
        assert_eq!(store.get("a", &action(0)).await.unwrap(), None);
        assert_eq!(store.get("b", &action(0)).await.unwrap(), Some(result(1)));
        store.put("a", &action(0), result(2)).await.unwrap();
        assert_eq!(store.get("a", &action(0)).await.unwrap(), Some(result(2)));
        assert_eq!(store.get("b", &action(0)).await.unwrap(), Some(result(1)), "its place in the order was freed");
    }

    #[tokio::test]
    async fn instances_and_digest_functions_do_not_share_results() {
        let dir = tempfile::tempdir().unwrap();
        let store = RedbActions::open(&dir.path().join("actions.redb"), 10).unwrap();
        store.put("a", &action(0), result(1)).await.unwrap();
        assert_eq!(store.get("b", &action(0)).await.unwrap(), None);
        let other = Digest { function: DigestFunction::Blake3, ..action(0) };
        assert_eq!(store.get("a", &other).await.unwrap(), None);
        assert_eq!(store.get("a", &action(0)).await.unwrap(), Some(result(1)));
    }

    #[tokio::test]
    async fn many_writers_at_once_are_all_kept_and_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("actions.redb");
        {
            let store = RedbActions::open(&path, 1_000).unwrap();
            let actions: Vec<Digest> = (0..200).map(action).collect();
            let puts =
                (0..200_u8).map(|number| store.put("", &actions[usize::from(number)], result(i32::from(number))));
            futures::future::try_join_all(puts.collect::<Vec<_>>()).await.unwrap();
            assert!(matches!(RedbActions::open(&path, 1_000), Err(Error::Locked { .. })));
        }
        let store = RedbActions::open(&path, 1_000).unwrap();
        for number in 0..200 {
            assert_eq!(store.get("", &action(number)).await.unwrap(), Some(result(i32::from(number))));
        }
    }
}
