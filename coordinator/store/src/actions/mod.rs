//! Action results in one redb file, ordered by their last use.
//!
//! Writers queue; one thread commits all queued changes at once, so that many results share one disk sync. Invariant:
//! each action has one row in `results` and one in `order`, and both tables stay within the limits on entries and
//! bytes.

mod table;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use kiln_state::Reopening;
use parking_lot::Mutex;
use prost::Message;
use redb::Database;
use tokio::sync::{mpsc, oneshot};

pub(super) use self::table::Most;
use self::table::Place;
use self::writer::Change;
use super::Error;
use super::clock::{Clock, Stamp};
use super::floor::Floor;

/// Memory for the file's page cache; redb's default is a gigabyte.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Maximum number of queued changes before callers have to wait.
const QUEUE: usize = 1_024;
/// Minimum interval between saved uses of a result, in milliseconds.
const NOTE_EVERY: u64 = 60_000;
/// Maximum number of results whose last saved use is remembered.
const REMEMBERED: usize = 100_000;
/// Number of unsaved uses that triggers saving them.
const WAITING: usize = 1_000;

/// The redb file.
#[derive(Debug)]
struct Results {
    path: PathBuf,
    most: Most,
    floor: Floor,
    database: Reopening,
    uses: Mutex<Uses>,
}

/// Uses of results that are not saved yet, and recently saved ones.
#[derive(Debug, Default)]
struct Uses {
    waiting: HashMap<Vec<u8>, Stamp>,
    noted: HashMap<Vec<u8>, Stamp>,
}

impl Uses {
    /// Adds a use; `true` if enough are waiting to be saved.
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
    fn open(path: &Path, most: Most, clock: Clock, floor: Floor) -> Result<Self, Error> {
        let at = path.to_owned();
        let opener = move || {
            let database = kiln_state::database::open(&at, CACHE_BYTES)?;
            table::prepare(&database, most, clock.now())?;
            Ok(database)
        };
        let database = Reopening::open(opener).map_err(|error| failed(path, Arc::new(error)))?;
        Ok(Self { path: path.to_owned(), most, floor, database, uses: Mutex::default() })
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Arc<redb::Error>> {
        self.database.with(work).map_err(Arc::new)
    }

    fn failed(&self, source: Arc<redb::Error>) -> Error {
        failed(&self.path, source)
    }
}

fn failed(path: &Path, source: Arc<redb::Error>) -> Error {
    let path = path.to_owned();
    match &*source {
        redb::Error::DatabaseAlreadyOpen => Error::Locked { path },
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            Error::DiskFull { path, source: error.kind().into() }
        }
        _ => Error::Database { path, source },
    }
}

/// The action cache's results in a file; the least recently used are removed first.
#[derive(Debug)]
pub struct RedbActions {
    results: Arc<Results>,
    queue: Option<mpsc::Sender<Change>>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for RedbActions {
    /// Waits for queued changes, so that the file is closed when the store is dropped.
    fn drop(&mut self) {
        self.queue = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the action cache's writer panicked");
        }
    }
}

impl RedbActions {
    /// Opens the file, and creates it if missing.
    pub fn open(path: &Path, max_entries: u64, clock: Clock) -> Result<Self, Error> {
        Self::with_floor(path, Most { entries: max_entries, bytes: u64::MAX }, clock, Floor::default())
    }

    /// The same; results last used before the floor are gone.
    pub(super) fn with_floor(path: &Path, most: Most, clock: Clock, floor: Floor) -> Result<Self, Error> {
        let results = Arc::new(Results::open(path, most, clock, floor)?);
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

    /// Queues a change and waits until it is on disk.
    async fn write(&self, change: impl FnOnce(writer::Done) -> Change) -> Result<u64, Error> {
        let (done, committed) = oneshot::channel();
        self.queue.as_ref().ok_or(Error::Closed)?.send(change(done)).await.map_err(|_| Error::Closed)?;
        committed.await.map_err(|_| Error::Closed)?.map_err(|source| self.results.failed(source))
    }

    /// Total bytes of all results.
    pub(super) fn bytes(&self) -> u64 {
        self.results.with(table::bytes).unwrap_or_default()
    }

    /// The latest result for this action in this instance.
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

    /// The action with this hash that has a result in this instance.
    pub async fn by_hash(
        &self,
        instance: &str,
        function: DigestFunction,
        hash: &[u8; 32],
    ) -> Result<Option<Digest>, Error> {
        let (start, instance) = (table::start(function, hash), instance.to_owned());
        self.read(move |database| table::by_hash(database, &start, &instance)).await
    }

    /// Stores a result, used at this time, replacing any earlier one. When this returns, the result survives the
    /// process.
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

    /// Removes a result, if there is one. Its blobs stay.
    pub async fn remove(&self, instance: &str, action: &Digest) -> Result<(), Error> {
        let key = table::key(instance, action);
        self.write(|done| Change::Remove { key, done }).await.map(|_| ())
    }

    /// Records that a result was used at this time, without waiting. Uses within a minute of an earlier one are
    /// skipped; if the process ends before they are [saved](Self::write_uses), the result only seems a little older.
    pub fn used(&self, instance: &str, action: &Digest, at: Stamp) {
        if self.results.uses.lock().add(table::key(instance, action), at) {
            self.write_uses();
        }
    }

    /// Saves waiting uses in the background. Any other write saves them too.
    pub fn write_uses(&self) {
        if let Some(queue) = &self.queue {
            // If the queue is full, the writer will handle them anyway.
            let _ = queue.try_send(Change::Uses);
        }
    }

    /// Removes the results last used before this time; returns their number.
    pub(super) async fn expire(&self, before: Stamp) -> Result<u64, Error> {
        self.write(|done| Change::Expire { before, done }).await
    }

    /// The next `count` results after a place, least recently used first.
    pub(super) async fn page(&self, after: Option<Place>, count: usize) -> Result<Vec<Entry>, Error> {
        let rows = self.read(move |database| table::page(database, after, count)).await?;
        let entry = |(place, key, value): (Place, Vec<u8>, Vec<u8>)| {
            let action = table::action(&key)?;
            Some(Entry { place, action, result: decode(&action, &value)? })
        };
        let last = rows.last().map(|(place, ..)| *place);
        let mut entries: Vec<Entry> = rows.into_iter().filter_map(entry).collect();
        // A page of unreadable results is not the end.
        if let (true, Some(place)) = (entries.is_empty(), last) {
            entries = Box::pin(self.page(Some(place), count)).await?;
        }
        Ok(entries)
    }
}

/// A result and the time of its last use.
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
            tracing::error!(%action, %error, "cannot read a cached result; the action will run again");
            None
        }
    }
}

#[cfg(test)]
mod tests;
