//! Opens embedded databases (redb), and creates those that do not exist.
//!
//! Invariant: a file with a database's name is complete. redb creates a file in several writes, so it is created under
//! another name and then renamed. A coordinator that was killed in between starts again normally.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageError};

use crate::unsynced::Unsynced;

/// Opens the database at `path`, creating it if necessary; at most `cache_bytes` of it are kept in memory.
///
/// # Errors
/// If it cannot be read or created, or another process has it open.
pub fn open(path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError> {
    make(path)?;
    Database::builder().set_cache_size(cache_bytes).open(path)
}

/// Like [`open`], but nothing is ever synced to the disk: commits survive the process, but a power cut may leave a file
/// that cannot be opened.
///
/// # Errors
/// Like [`open`].
pub fn open_unsynced(path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError> {
    make(path)?;
    let file = File::options().read(true).write(true).open(path).map_err(failed)?;
    Database::builder().set_cache_size(cache_bytes).create_with_backend(Unsynced(FileBackend::new(file)?))
}

fn failed(error: io::Error) -> DatabaseError {
    DatabaseError::Storage(StorageError::Io(error))
}

/// Creates the database if it does not exist.
fn make(path: &Path) -> Result<(), DatabaseError> {
    if !is_made(path).map_err(failed)? {
        let beside = path.with_extension("new");
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        drop(Database::create(&beside)?);
        move_to(&beside, path).map_err(failed)?;
    }
    Ok(())
}

fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    match to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Whether the database exists. A file that an earlier version was killed while creating is moved aside: redb writes
/// the first bytes of a file last, so nothing was ever stored in it.
fn is_made(path: &Path) -> io::Result<bool> {
    let mut first = [0; 8];
    let length = match File::open(path) {
        Ok(file) => file.take(first.len() as u64).read(&mut first)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if length > 0 && first != [0; 8] {
        return Ok(true);
    }
    tracing::warn!(path = %path.display(), "a database file is incomplete; creating a new one");
    std::fs::rename(path, path.with_extension("unfinished"))?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use redb::{ReadableDatabase, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<&str, u64> = TableDefinition::new("table");

    fn put(path: &Path, value: u64) {
        let database = open(path, 1 << 20).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(TABLE).unwrap().insert("key", value).unwrap();
        write.commit().unwrap();
    }

    fn get(path: &Path) -> Option<u64> {
        let database = open(path, 1 << 20).unwrap();
        let read = database.begin_read().unwrap();
        read.open_table(TABLE).ok()?.get("key").unwrap().map(|found| found.value())
    }

    #[test]
    fn what_was_stored_is_there_and_what_was_never_finished_is_begun_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index.redb");
        put(&path, 7);
        // Another attempt to create it, which was killed, left its own file.
        std::fs::write(path.with_extension("new"), [0; 100]).unwrap();
        assert_eq!(get(&path), Some(7));
        for unfinished in [&b""[..], &[0; 4096]] {
            std::fs::write(&path, unfinished).unwrap();
            assert_eq!(get(&path), None, "{} bytes", unfinished.len());
            put(&path, 8);
            assert_eq!(get(&path), Some(8));
        }
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index.redb");
        std::fs::write(&path, "notes of somebody").unwrap();
        assert!(open(&path, 1 << 20).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "notes of somebody");
    }
}
