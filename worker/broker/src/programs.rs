//! The programs that stand in for compilers, as files on disk.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_call::{PROGRAMS, SHIM};

/// The shim, which the broker's build script compiles.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kiln-call"));

/// When the shim was made, on every worker: ccache takes a compiler of the same size and time for the same.
const MODIFIED: SystemTime = SystemTime::UNIX_EPOCH;

/// The shim on disk, and the names under which jobs find it.
#[derive(Debug)]
pub(super) struct Programs {
    shim: PathBuf,
    names: BTreeSet<String>,
}

impl Programs {
    /// Writes the shim below this directory; it stands in for the compilers that `path` has.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn write(directory: &Path, path: &str) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let shim = directory.join(SHIM);
        let temporary = directory.join("tmp-shim");
        let _ = std::fs::remove_file(&temporary);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&temporary)?;
        io::Write::write_all(&mut file, PROGRAM)?;
        file.set_modified(MODIFIED)?;
        drop(file);
        std::fs::rename(&temporary, &shim)?;
        Ok(Self { shim, names: names(path) })
    }

    /// The compilers of the worker's own system.
    pub(super) fn of_system(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Puts the shim into a job's directory, also under these names.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn place(&self, directory: &Path, names: &BTreeSet<String>) -> io::Result<()> {
        let programs = directory.join(PROGRAMS);
        std::fs::create_dir(&programs)?;
        let own = programs.join(SHIM);
        if std::fs::hard_link(&self.shim, &own).is_err() {
            std::fs::copy(&self.shim, &own)?;
            std::fs::File::options().write(true).open(&own)?.set_modified(MODIFIED)?;
        }
        names.iter().try_for_each(|name| symlink(SHIM, programs.join(name)))
    }
}

/// The names of the compilers in these directories.
fn names(path: &str) -> BTreeSet<String> {
    let entries = std::env::split_paths(path).filter_map(|directory| std::fs::read_dir(directory).ok()).flatten();
    compilers_among(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()))
}

/// Those of these names that a compiler has.
pub(super) fn compilers_among(names: impl Iterator<Item = String>) -> BTreeSet<String> {
    names.filter(|name| kiln_calls::is_compiler(name.as_ref())).collect()
}
