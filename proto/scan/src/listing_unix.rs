//! Reads the directories of a tree on all processors.
//!
//! Names are looked up below the open directory that has them: of a long path, the kernel resolves each part once and not once for
//! each file. No link is followed.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Looked, Sort};
use crate::{Error, Stat};
use open::Open;

/// Threads, at most.
const MOST_THREADS: usize = 8;

/// A directory that is being read.
pub(crate) struct Directory<'a> {
    fd: OwnedFd,
    /// Its path below the root; empty for the root.
    path: &'a str,
}

/// A name in a directory.
pub(crate) struct Entry {
    name: CString,
    file_type: FileType,
}

impl Directory<'_> {
    /// The path of an entry; none if it is not in UTF-8.
    pub(crate) fn path_of(&self, entry: &Entry) -> Option<String> {
        let name = entry.name.to_str().ok()?;
        Some(if self.path.is_empty() { name.to_owned() } else { [self.path, "/", name].concat() })
    }

    /// The path of an entry, for people.
    pub(crate) fn shown(&self, entry: &Entry) -> PathBuf {
        Path::new(self.path).join(OsStr::from_bytes(entry.name.as_bytes()))
    }
}

impl Entry {
    /// What it is.
    pub(crate) fn sort(&self, of: &Directory<'_>) -> io::Result<Sort> {
        let file_type = match self.file_type {
            // Some file systems do not say it with the name.
            FileType::Unknown => FileType::from_raw_mode(self.stat(of)?.st_mode),
            known => known,
        };
        Ok(match file_type {
            FileType::RegularFile => Sort::File,
            FileType::Directory => Sort::Directory,
            FileType::Symlink => Sort::Symlink,
            FileType::Socket => Sort::Socket,
            FileType::Fifo => Sort::Pipe,
            FileType::BlockDevice | FileType::CharacterDevice => Sort::Device,
            FileType::Unknown => Sort::Unknown,
        })
    }

    fn stat(&self, of: &Directory<'_>) -> io::Result<rustix::fs::Stat> {
        Ok(rustix::fs::statat(&of.fd, &self.name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Its state, and its permission bits.
    pub(crate) fn state(&self, of: &Directory<'_>) -> io::Result<(Stat, u32)> {
        let stat = self.stat(of)?;
        // Types differ between systems.
        #[allow(clippy::unnecessary_cast)]
        let mode = stat.st_mode as u32 & 0o7777;
        Ok((Stat::of(&stat), mode))
    }

    /// Where it leads, if it is a link; none if that is not in UTF-8.
    pub(crate) fn target(&self, of: &Directory<'_>) -> io::Result<Option<String>> {
        Ok(rustix::fs::readlinkat(&of.fd, &self.name, Vec::new())?.into_string().ok())
    }
}

/// Reads a directory and those below it that `look` wants. The order is any.
///
/// # Errors
/// The first that `look` has, or if a directory cannot be read.
pub(crate) fn read<T: Send>(
    root: &Path,
    look: &(impl Fn(&Directory<'_>, &Entry) -> Result<Looked<T>, Error> + Sync),
) -> Result<Vec<T>, Error> {
    let failed = |path: &str, source: Errno| Error::Read { path: path.into(), source: source.into() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(root, flags, Mode::empty()).map_err(|source| failed("", source))?;
    let open = Open::new(String::new());
    let work = || {
        let mut found = Vec::new();
        while let Some(taken) = open.take() {
            let path = taken.path();
            // A directory that a link has replaced since is not read.
            let at = if path.is_empty() { "." } else { path };
            let fd = rustix::fs::openat(top.as_fd(), at, flags | OFlags::NOFOLLOW, Mode::empty());
            let directory = Directory { fd: fd.map_err(|source| failed(path, source))?, path };
            list(&directory, look, &mut found, &open)?;
            taken.ended_well();
        }
        Ok::<_, Error>(found)
    };
    let threads = thread::available_parallelism().map_or(2, |count| count.get().min(MOST_THREADS));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(found) => all.extend(found?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

/// Looks at everything in a directory.
fn list<T>(
    directory: &Directory<'_>,
    look: &impl Fn(&Directory<'_>, &Entry) -> Result<Looked<T>, Error>,
    found: &mut Vec<T>,
    open: &Open,
) -> Result<(), Error> {
    let failed = |source: Errno| Error::Read { path: directory.path.into(), source: source.into() };
    for entry in Dir::read_from(&directory.fd).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let looked = look(directory, &Entry { name: name.to_owned(), file_type: entry.file_type() })?;
        found.extend(looked.found);
        if let Some(path) = looked.below {
            open.add(path);
        }
    }
    Ok(())
}

/// The directories that are still to be read.
mod open {
    use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

    #[derive(Default)]
    struct State {
        paths: Vec<String>,
        /// Directories that are being read, and may add more.
        reading: usize,
        failed: bool,
    }

    pub(super) struct Open {
        state: Mutex<State>,
        changed: Condvar,
    }

    impl Open {
        pub(super) fn new(path: String) -> Self {
            let state = State { paths: vec![path], ..State::default() };
            Self { state: Mutex::new(state), changed: Condvar::new() }
        }

        fn state(&self) -> MutexGuard<'_, State> {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// The next one; waits for those that are being read. None at the end, or after a failure.
        pub(super) fn take(&self) -> Option<Taken<'_>> {
            let mut state = self.state();
            loop {
                if state.failed {
                    return None;
                }
                if let Some(path) = state.paths.pop() {
                    state.reading = state.reading.saturating_add(1);
                    return Some(Taken { open: self, path, failed: true });
                }
                if state.reading == 0 {
                    return None;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }

        pub(super) fn add(&self, path: String) {
            self.state().paths.push(path);
            self.changed.notify_one();
        }
    }

    /// A directory that is being read. Unless that ends well, nothing else is read either.
    pub(super) struct Taken<'a> {
        open: &'a Open,
        path: String,
        failed: bool,
    }

    impl Taken<'_> {
        pub(super) fn path(&self) -> &str {
            &self.path
        }

        pub(super) fn ended_well(mut self) {
            self.failed = false;
        }
    }

    impl Drop for Taken<'_> {
        fn drop(&mut self) {
            let mut state = self.open.state();
            state.reading = state.reading.saturating_sub(1);
            state.failed |= self.failed;
            if state.failed || state.reading == 0 {
                drop(state);
                self.open.changed.notify_all();
            }
        }
    }
}
