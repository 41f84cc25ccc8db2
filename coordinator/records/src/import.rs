//! Imports what earlier versions kept in three places: an index (`index.redb`), a file of events for each build
//! (`events/ID`), and a file with the request of each build that has not ended (`events/ID.request`).
//!
//! Invariant: only what was imported is removed. The directory is renamed once all of it is on disk in the journal, and
//! only a directory with that name is removed. An import that is repeated after a crash writes the same records in the
//! same places.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kiln_journal::{Batch, Durability};
use kiln_proto::v1::{Build, Status};
use prost::Message;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::mpsc;

use super::artifacts::order_key;
use super::{ARTIFACT_ORDER, ARTIFACTS, BUILDS, Error, REQUEST_IDS, REQUESTS, Records, SUBMISSIONS, stream};

const OLD_BUILDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("builds");
const OLD_REQUESTS: TableDefinition<'_, &str, &str> = TableDefinition::new("requests");
const OLD_ARTIFACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("artifacts");
const OLD_ORDER: TableDefinition<'_, u64, &str> = TableDefinition::new("artifact_order");

/// Memory for pages of the old index.
const CACHE_BYTES: usize = 16 << 20;
/// Bytes in one batch.
const BATCH_BYTES: usize = 4 << 20;
/// Longest plausible event; a longer one means a torn file.
const MAX_EVENT_BYTES: usize = 16 << 20;

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Records {
    /// Imports the builds and artifacts of an earlier version from its directory, if there are any.
    ///
    /// # Errors
    /// If they cannot be read, or the journal cannot be written. Nothing is removed then.
    pub async fn import(&self, directory: &Path) -> Result<(), Error> {
        let imported = directory.with_extension("imported");
        // An earlier start ended before the removal was complete.
        remove(&imported);
        if directory.join("index.redb").exists() {
            let failed = |source: Failed| Error::Import { path: directory.to_owned(), source };
            let (sender, mut batches) = mpsc::channel(2);
            let from = directory.to_owned();
            let reading = tokio::task::spawn_blocking(move || read(&from, &sender));
            while let Some(batch) = batches.recv().await {
                self.journal.commit(batch, Durability::Relaxed).await?;
            }
            let builds = reading.await.map_err(|error| failed(error.into()))?.map_err(failed)?;
            self.journal.settle().await?;
            // From here on nothing is imported again.
            fs::rename(directory, &imported).map_err(|error| failed(error.into()))?;
            tracing::info!(builds, directory = %directory.display(), "imported the builds of an earlier version");
            remove(&imported);
        }
        Ok(())
    }
}

/// Removes a directory that was imported, if there is one.
fn remove(imported: &Path) {
    match fs::remove_dir_all(imported) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, directory = %imported.display(), "cannot remove what was imported; remove it by hand");
        }
        _ => {}
    }
}

/// Sends everything in the directory in batches. Returns the number of builds.
fn read(directory: &Path, batches: &mpsc::Sender<Batch>) -> Result<u64, Failed> {
    let database = kiln_state::database::open(&directory.join("index.redb"), CACHE_BYTES)?;
    // A version that was killed at its first start may not have created all of them.
    let made = database.begin_write()?;
    made.open_table(OLD_BUILDS)?;
    made.open_table(OLD_REQUESTS)?;
    made.open_table(OLD_ARTIFACTS)?;
    made.open_table(OLD_ORDER)?;
    made.commit()?;
    let mut gathered = Gathered { batch: Batch::default(), batches };
    records(&database, &mut gathered)?;
    let mut builds = 0;
    for row in database.begin_read()?.open_table(OLD_BUILDS)?.iter()? {
        let (id, data) = row?;
        let (id, data) = (id.value(), Bytes::copy_from_slice(data.value()));
        events(&directory.join("events").join(id), &Arc::from(stream(id)), &mut gathered)?;
        if Build::decode(data.clone())?.status() == Status::Running {
            // Without its request it cannot be resumed; it is ended with this message.
            let request = fs::read(request_path(directory, id)).unwrap_or_default();
            gathered.add(|batch| batch.put(SUBMISSIONS, id, request))?;
        }
        gathered.add(|batch| batch.put(BUILDS, id, data))?;
        builds += 1;
    }
    gathered.flush()?;
    Ok(builds)
}

fn request_path(directory: &Path, id: &str) -> PathBuf {
    directory.join("events").join(id).with_extension("request")
}

fn records(database: &Database, gathered: &mut Gathered<'_>) -> Result<(), Failed> {
    let read = database.begin_read()?;
    for row in read.open_table(OLD_REQUESTS)?.iter()? {
        let (request, build) = row?;
        let (request, build) = (request.value(), build.value());
        gathered
            .add(|batch| batch.put(REQUESTS, request, build.to_owned()).put(REQUEST_IDS, build, request.to_owned()))?;
    }
    for row in read.open_table(OLD_ARTIFACTS)?.iter()? {
        let (id, data) = row?;
        gathered.add(|batch| batch.put(ARTIFACTS, id.value(), data.value().to_vec()))?;
    }
    for row in read.open_table(OLD_ORDER)?.iter()? {
        let (number, id) = row?;
        gathered.add(|batch| batch.put(ARTIFACT_ORDER, order_key(number.value()), id.value().to_owned()))?;
    }
    Ok(())
}

/// Reads a file of events, each preceded by its length. The last one may be torn.
fn events(path: &Path, stream: &Arc<str>, gathered: &mut Gathered<'_>) -> Result<(), Failed> {
    let mut file = match fs::File::open(path) {
        Ok(file) => io::BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for position in 0.. {
        let mut header = [0; 4];
        if file.read_exact(&mut header).is_err() {
            break;
        }
        let size = u32::from_le_bytes(header) as usize;
        let mut data = Vec::new();
        if size > MAX_EVENT_BYTES || file.by_ref().take(size as u64).read_to_end(&mut data)? < size {
            break;
        }
        gathered.add(|batch| batch.import(stream, position, data.into()))?;
    }
    Ok(())
}

/// Gathers changes into batches.
struct Gathered<'a> {
    batch: Batch,
    batches: &'a mpsc::Sender<Batch>,
}

impl Gathered<'_> {
    fn add(&mut self, change: impl FnOnce(Batch) -> Batch) -> Result<(), Failed> {
        self.batch = change(std::mem::take(&mut self.batch));
        if self.batch.bytes() < BATCH_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), Failed> {
        Ok(self.batches.blocking_send(std::mem::take(&mut self.batch))?)
    }
}
