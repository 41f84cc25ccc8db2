//! The record of what Kiln wrote to a directory, stored in that directory.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;

/// The file name of the record in a directory with only Kiln's output.
pub(super) const OWN: &str = kiln_scan::OUTPUT_RECORD;
/// The file name of the record in a directory with other files.
pub(super) const SHARED: &str = kiln_scan::SHARED_OUTPUT_RECORD;

/// The version of the format.
const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub(super) entries: BTreeMap<String, Entry>,
}

/// An entry for one name in the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Identifies the content.
    pub(super) content: String,
    /// The states in which it is unmodified, as returned by [`super::state::of`].
    pub(super) states: Vec<String>,
}

impl Default for Record {
    fn default() -> Self {
        Self { version: VERSION, entries: BTreeMap::new() }
    }
}

impl Record {
    /// Reads the record from a file; an empty one if it is missing.
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        let bad = |reason: String| Error::Record { path: path.to_owned(), reason };
        let data = match std::fs::read(path) {
            Ok(data) => data,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(bad(error.to_string())),
        };
        let record: Self = serde_json::from_slice(&data).map_err(|error| bad(error.to_string()))?;
        if record.version != VERSION {
            return Err(bad(format!("version {} where {VERSION} was expected", record.version)));
        }
        Ok(record)
    }

    /// Replaces the file atomically.
    pub(super) fn save(&self, path: &Path) -> Result<(), Error> {
        let write = |source| Error::Write { path: path.to_owned(), source };
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".kiln-").tempfile_in(dir).map_err(write)?;
        serde_json::to_writer(&mut file, self).map_err(|error| write(error.into()))?;
        file.persist(path).map_err(|error| write(error.error))?;
        Ok(())
    }
}
