//! The states of files, looked up by name below the directory that has them.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::walk::State;
use super::{Error, Stat};

/// Looks files up, one after another.
#[derive(Default)]
pub(super) struct States {
    /// The directory of the last file, in which the next one most likely is too: the kernel then resolves only a name.
    directory: Option<(PathBuf, OwnedFd)>,
}

impl States {
    pub(super) fn of(&mut self, entry: &ignore::DirEntry) -> Result<State, Error> {
        let path = entry.path();
        let parent = path.parent().unwrap_or(path);
        let failed = |source: Errno| Error::Read { path: path.to_owned(), source: source.into() };
        if self.directory.as_ref().is_none_or(|(last, _)| last.as_os_str() != parent.as_os_str()) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(parent, flags, Mode::empty()).map_err(failed)?;
            self.directory = Some((parent.to_owned(), fd));
        }
        let stat = match &self.directory {
            Some((_, fd)) => rustix::fs::statat(fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW),
            None => rustix::fs::lstat(path),
        };
        stat.map(|stat| State { stat: Stat::of(&stat), executable: stat.st_mode & 0o100 != 0 }).map_err(failed)
    }
}
