//! Results of actions in one redb file, in the order of their last use.
//!
//! Writers queue; one thread takes all that wait and commits them at once, so a sync of the disk is shared by many results.
//! Invariant: each action has one row in `results` and one in `order`, and both tables hold at most so many, and so many bytes.

mod table;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use redb::Database;
use tokio::sync::{mpsc, oneshot};

pub(super) use self::table::Most;
use self::table::Place;
use self::writer::Change;
use super::Error;
use super::clock::{Clock, Stamp};
use super::floor::Floor;

/// Memory for the file's pages; redb's own default is a gigabyte.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Changes that wait for the disk before their callers wait with them.
const QUEUE: usize = 1_024;
/// How often a use of a result is written down, in milliseconds.
const NOTE_EVERY: u64 = 60_000;
/// Results whose last noted use is remembered.
const REMEMBERED: usize = 100_000;
/// Uses that wait before they are written down without being asked for.
const WAITING: usize = 1_000;

/// The redb file. After an I/O error redb serves no more: then it is closed, and opened again at the next use.
#[derive(Debug)]
struct Results {
    path: PathBuf,
    most: Most,
    clock: Clock,
    floor: Floor,
    database: RwLock<Option<Database>>,
    uses: Mutex<Uses>,
}

/// Uses of results that are not written down yet, and those that were lately.
#[derive(Debug, Default)]
struct Uses {
    waiting: HashMap<Vec<u8>, Stamp>,
    noted: HashMap<Vec<u8>, Stamp>,
}

impl Uses {
    /// Whether so many wait that they are to be written down.
    fn add(&mut self, key: Vec<u8>, at: Stamp) -> bool {
        if self.noted.get(&key).is_some_and(|last| at < last.saturating_add(NOTE_EVERY)) {
            return false;
        }
        if self.noted.len() >= REMEMBERED {
            self.noted.clear();
        }
        self.noted.insert(key.clone(), at);
        self.waiting.insert(key, at);
        self.waiting.len().is_multiple_of(WAITING)
    }
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
                tracing::error!(path = %self.path.display(), %error, "the action cache failed; reopening it");
                *self.database.write() = None;
                Err(Arc::new(error))
            }
            None => Err(Arc::new(redb::Error::DatabaseClosed)),
        }
    }

    fn open(&self) -> Result<(), redb::Error> {
        let mut database = self.database.write();
        if database.is_none() {
            let opened = kiln_state::database::open(&self.path, CACHE_BYTES)?;
            table::prepare(&opened, self.most, self.clock.now())?;
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

/// The action cache's results in a file; those used longest ago go first.
#[derive(Debug)]
pub struct RedbActions {
    results: Arc<Results>,
    queue: Option<mpsc::Sender<Change>>,
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
    pub fn open(path: &Path, max_entries: u64, clock: Clock) -> Result<Self, Error> {
        Self::with_floor(path, Most { entries: max_entries, bytes: u64::MAX }, clock, Floor::default())
    }

    /// The same; results that were used last before the floor are gone.
    pub(super) fn with_floor(path: &Path, most: Most, clock: Clock, floor: Floor) -> Result<Self, Error> {
        let (database, uses) = (RwLock::new(None), Mutex::default());
        let results = Arc::new(Results { path: path.to_owned(), most, clock, floor, database, uses });
        results.open().map_err(|error| results.failed(Arc::new(error)))?;
        let (queue, changes) = mpsc::channel(QUEUE);
        let shared = results.clone();
        let writer = std::thread::Builder::new()
            .name("action-cache".into())
            .spawn(move || writer::write_all(&shared, changes))
            .map_err(|source| Error::io("start the writer of", path, source))?;
        Ok(Self { results, queue: Some(queue), writer: Some(writer) })
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let results = self.results.clone();
        let done = tokio::task::spawn_blocking(move || results.with(work)).await;
        done.map_err(|_| Error::Closed)?.map_err(|source| self.results.failed(source))
    }

    /// Queues a change and waits until it is on the disk.
    async fn write(&self, change: impl FnOnce(writer::Done) -> Change) -> Result<u64, Error> {
        let (done, committed) = oneshot::channel();
        self.queue.as_ref().ok_or(Error::Closed)?.send(change(done)).await.map_err(|_| Error::Closed)?;
        committed.await.map_err(|_| Error::Closed)?.map_err(|source| self.results.failed(source))
    }

    /// Bytes of all results.
    pub(super) fn bytes(&self) -> u64 {
        self.results.with(table::bytes).unwrap_or_default()
    }

    /// The result last put for this action in this instance.
    pub async fn get(&self, instance: &str, action: &Digest) -> Result<Option<reapi::ActionResult>, Error> {
        let key = table::key(instance, action);
        let Some((place, value)) = self.read(move |database| table::get(database, &key)).await? else {
            return Ok(None);
        };
        if place.used() < self.results.floor.get() {
            return Ok(None);
        }
        Ok(decode(action, &value))
    }

    /// Puts a result, used at that time, in place of what was there. When this returns, the result survives the process.
    pub async fn put(
        &self,
        instance: &str,
        action: &Digest,
        result: &reapi::ActionResult,
        at: Stamp,
    ) -> Result<(), Error> {
        let (key, value) = (table::key(instance, action), result.encode_to_vec());
        self.write(|done| Change::Put { key, value, at, done }).await.map(|_| ())
    }

    /// Takes a result away, if there is one. Its blobs stay.
    pub async fn remove(&self, instance: &str, action: &Digest) -> Result<(), Error> {
        let key = table::key(instance, action);
        self.write(|done| Change::Remove { key, done }).await.map(|_| ())
    }

    /// Notes that a result was used at that time. Nobody waits for it: within a minute of an earlier use nothing is noted, and what is
    /// lost with the process before it is [written down](Self::write_uses) makes the result seem a little older.
    pub fn used(&self, instance: &str, action: &Digest, at: Stamp) {
        if self.results.uses.lock().add(table::key(instance, action), at) {
            self.write_uses();
        }
    }

    /// Has the uses that wait written down, in the background. Whatever else is written takes them along, too.
    pub fn write_uses(&self) {
        if let Some(queue) = &self.queue {
            // Where the queue is full, the writer comes by anyway.
            let _ = queue.try_send(Change::Uses);
        }
    }

    /// Removes the results that were used last before this; how many.
    pub(super) async fn expire(&self, before: Stamp) -> Result<u64, Error> {
        self.write(|done| Change::Expire { before, done }).await
    }

    /// The next results after a place, at most `count`, those used longest ago first.
    pub(super) async fn page(&self, after: Option<Place>, count: usize) -> Result<Vec<Entry>, Error> {
        let rows = self.read(move |database| table::page(database, after, count)).await?;
        let entry = |(place, key, value): (Place, Vec<u8>, Vec<u8>)| {
            let action = table::action(&key)?;
            Some(Entry { place, action, result: decode(&action, &value)? })
        };
        let last = rows.last().map(|(place, ..)| *place);
        let mut entries: Vec<Entry> = rows.into_iter().filter_map(entry).collect();
        // A page of results that cannot be read is not the end.
        if let (true, Some(place)) = (entries.is_empty(), last) {
            entries = Box::pin(self.page(Some(place), count)).await?;
        }
        Ok(entries)
    }
}

/// A result and when it was used last.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) action: Digest,
    pub(super) result: reapi::ActionResult,
}

impl Entry {
    pub(super) fn used(&self) -> Stamp {
        self.place.used()
    }
}

fn decode(action: &Digest, value: &[u8]) -> Option<reapi::ActionResult> {
    match reapi::ActionResult::decode(value) {
        Ok(result) => Some(result),
        Err(error) => {
            tracing::error!(%action, %error, "a cached result is not readable; the action will run again");
            None
        }
    }
}

#[cfg(test)]
mod tests;
