//! Whether what lies in the cache can be trusted: a machine that lost its power may have lost what was not on disk yet, and kept the
//! names of it.
//!
//! A note says during which boot of the machine the cache was in use, and whether it was written to disk in the end. It is on disk
//! before anything is changed.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Error, disk};

const CLOSED: &str = "closed";

/// The use of a cache by this process.
#[derive(Debug)]
pub struct Session {
    directory: PathBuf,
    boot: String,
    trusted: bool,
}

impl Session {
    /// Reads the last note, and writes that the cache is in use.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        fs::create_dir_all(directory).map_err(disk(directory))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let last = fs::read_to_string(directory.join("session")).unwrap_or_default();
        let last = last.trim();
        // A process that was killed leaves to the kernel what it wrote.
        let trusted = last == CLOSED || (!boot.is_empty() && last == boot);
        let session = Self { directory: directory.to_owned(), boot, trusted };
        session.note(&session.boot).map_err(disk(directory))?;
        Ok(session)
    }

    /// Whether what lies on disk is as this program left it.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Writes everything to disk, and then that it is there.
    pub fn close(&self) -> io::Result<()> {
        rustix::fs::syncfs(fs::File::open(&self.directory)?)?;
        self.note(CLOSED)
    }

    fn note(&self, text: &str) -> io::Result<()> {
        let (path, temporary) = (self.directory.join("session"), self.directory.join("session.tmp"));
        let mut file = fs::File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(&self.directory)?.sync_all()
    }
}
