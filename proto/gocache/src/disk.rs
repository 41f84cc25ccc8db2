//! Entries on this machine's disk: a file for each output, by its SHA-256, and one for each action that names its output.
//!
//! Invariant: a file with a final name is whole. Files are only removed when nobody has used them for days, so one that
//! was named to a running `go` stays.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::io::AsyncRead;

use super::protocol::Reader;
use crate::Error;

/// How old a date of use becomes before it is set again.
const USED: Duration = Duration::from_secs(60 * 60);
/// How often unused entries are looked for.
const TRIM: Duration = Duration::from_secs(24 * 60 * 60);
/// The file whose date is that of the last time.
const TRIMMED: &str = "trimmed";

/// A directory of entries.
#[derive(Debug)]
pub struct Disk {
    directory: PathBuf,
}

/// An output on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its SHA-256.
    pub output: Vec<u8>,
    /// Its size in bytes.
    pub size: u64,
    /// Its file.
    pub path: PathBuf,
}

impl Disk {
    /// Opens a directory of entries, and makes it if it is missing.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn open(directory: PathBuf) -> Result<Self, Error> {
        let absolute = std::path::absolute(&directory);
        let made = absolute.and_then(|directory| std::fs::create_dir_all(&directory).map(|()| directory));
        let directory = made.map_err(|source| Error::Directory { path: directory, source })?;
        Ok(Self { directory })
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.directory.join(name.get(..2).unwrap_or("00")).join(format!("{name}-{kind}"))
    }

    /// A new file.
    pub(super) fn begin(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new().prefix("new-").tempfile_in(&self.directory)
    }

    /// Whether an action has an entry.
    pub fn has(&self, action: &[u8]) -> bool {
        self.get(&hex::encode(action)).is_some()
    }

    /// The entry of an action.
    pub(super) fn get(&self, action: &str) -> Option<Found> {
        let entry = self.path(action, "a");
        let text = std::fs::read_to_string(&entry).ok()?;
        let (output, size) = text.trim_end().split_once(' ')?;
        let (id, size) = (hex::decode(output).ok().filter(|id| id.len() == 32)?, size.parse().ok()?);
        let path = self.path(output, "d");
        if std::fs::metadata(&path).ok()?.len() != size {
            return None;
        }
        used(&entry);
        used(&path);
        Some(Found { output: id, size, path })
    }

    /// Makes a complete file an output.
    pub(super) fn keep(&self, output: &str, size: u64, mut file: NamedTempFile) -> io::Result<Found> {
        let path = self.path(output, "d");
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        file.flush()?;
        // In a step, `go` is another user.
        kiln_system::set_mode(file.path(), 0o644)?;
        // One that is there is the same, and a running `go` may be reading it.
        if std::fs::metadata(&path).is_ok_and(|data| data.len() == size) {
            used(&path);
        } else {
            file.persist(&path).map_err(|error| error.error)?;
        }
        let id = hex::decode(output).map_err(io::Error::other)?;
        Ok(Found { output: id, size, path })
    }

    /// Makes an output the entry of an action.
    pub(super) fn name(&self, action: &str, found: &Found) -> io::Result<()> {
        let entry = self.path(action, "a");
        entry.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        let mut text = self.begin()?;
        writeln!(text, "{} {}", hex::encode(&found.output), found.size)?;
        text.persist(&entry).map_err(|error| error.error)?;
        Ok(())
    }

    /// Stores the body of a `put`; the inner error is for `go`, which goes on.
    pub(super) async fn receive(
        &self,
        output: &[u8],
        size: u64,
        reader: &mut Reader<impl AsyncRead + Unpin>,
    ) -> Result<Result<Found, String>, Error> {
        let mut file = self.begin();
        let (mut hasher, mut received) = (Sha256::new(), 0_u64);
        if size > 0 {
            reader
                .body(|piece| {
                    hasher.update(piece);
                    received = received.saturating_add(piece.len() as u64);
                    if let Ok(open) = &mut file
                        && let Err(error) = open.write_all(piece)
                    {
                        file = Err(error);
                    }
                })
                .await?;
        }
        let found = hasher.finalize();
        if received != size || found[..] != *output {
            return Ok(Err("the body is not what its size and `OutputID` say".to_owned()));
        }
        let kept = file.and_then(|file| self.keep(&hex::encode(found), size, file));
        Ok(kept.map_err(|error| format!("cannot write into `{}`: {error}", self.directory.display())))
    }

    /// Removes what nobody used for this long, if that was not done lately.
    pub fn trim(&self, life: Duration) {
        let mark = self.directory.join(TRIMMED);
        if age(&mark).is_some_and(|age| age < TRIM) || File::create(&mark).is_err() {
            return;
        }
        let below = |directory: &Path| std::fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in below(&self.directory) {
            let files = if entry.path().is_dir() { below(&entry.path()).collect() } else { vec![entry] };
            for file in files {
                if age(&file.path()).is_some_and(|age| age > life) {
                    let _ = std::fs::remove_file(file.path());
                }
            }
        }
    }
}

fn age(path: &Path) -> Option<Duration> {
    let at = std::fs::metadata(path).ok()?.modified().ok()?;
    Some(SystemTime::now().duration_since(at).unwrap_or_default())
}

/// Records a use.
fn used(path: &Path) {
    if age(path).is_some_and(|age| age > USED) {
        let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    }
}
