//! Reads the deliveries of an earlier version, which kept them in a separate file.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

const TAKEN: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("taken");
const JOBS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("jobs");

/// Memory for the file's pages.
const CACHE_BYTES: usize = 4 << 20;

/// The deliveries that were found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Keys of deliveries with the time each was received, in milliseconds since 1970.
    pub(super) taken: Vec<([u8; 32], u64)>,
    /// Keys of pushes with the push to be built, as JSON.
    pub(super) jobs: Vec<([u8; 32], Vec<u8>)>,
}

/// Reads the file.
pub(super) async fn read(path: &Path) -> Result<Found, redb::Error> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_from(&kiln_state::database::open(&path, CACHE_BYTES)?));
    read.await.map_err(|_| redb::Error::DatabaseClosed)?
}

fn read_from(database: &Database) -> Result<Found, redb::Error> {
    let (read, mut found) = (database.begin_read()?, Found::default());
    let (taken, jobs) = match (read.open_table(TAKEN), read.open_table(JOBS)) {
        (Ok(taken), Ok(jobs)) => (taken, jobs),
        // It was never used.
        (Err(redb::TableError::TableDoesNotExist(_)), _) => return Ok(found),
        (Err(error), _) | (_, Err(error)) => return Err(error.into()),
    };
    for row in taken.iter()? {
        let (key, at_ms) = row?;
        found.taken.push((*key.value(), at_ms.value()));
    }
    for row in jobs.iter()? {
        let (key, job) = row?;
        found.jobs.push((*key.value(), job.value().to_vec()));
    }
    Ok(found)
}

/// Writes a file as an earlier version did.
#[cfg(test)]
pub(super) fn write(path: &Path, taken: &[([u8; 32], u64)], jobs: &[([u8; 32], Vec<u8>)]) {
    let database = kiln_state::database::open(path, CACHE_BYTES).unwrap();
    let write = database.begin_write().unwrap();
    for (key, at_ms) in taken {
        write.open_table(TAKEN).unwrap().insert(key, at_ms).unwrap();
    }
    for (key, job) in jobs {
        write.open_table(JOBS).unwrap().insert(key, job.as_slice()).unwrap();
    }
    write.commit().unwrap();
}
