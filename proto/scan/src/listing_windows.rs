//! Reads the directories of a tree.

use std::fs::{DirEntry, FileType};
use std::io;
use std::path::{Path, PathBuf};

use super::{Looked, Sort};
use crate::{Error, Stat};

/// A directory that is being read.
pub(crate) struct Directory<'a> {
    /// Its path below the root; empty for the root.
    path: &'a str,
}

/// A name in a directory.
pub(crate) struct Entry(DirEntry);

impl Directory<'_> {
    /// The path of an entry; none if it is not in UTF-8.
    pub(crate) fn path_of(&self, entry: &Entry) -> Option<String> {
        let name = entry.0.file_name().into_string().ok()?;
        Some(if self.path.is_empty() { name } else { [self.path, "/", &name].concat() })
    }

    /// The path of an entry, for people.
    pub(crate) fn shown(&self, entry: &Entry) -> PathBuf {
        Path::new(self.path).join(entry.0.file_name())
    }
}

impl Entry {
    /// What it is.
    pub(crate) fn sort(&self, _of: &Directory<'_>) -> io::Result<Sort> {
        self.0.file_type().map(sort)
    }

    /// Its state, and its permission bits.
    pub(crate) fn state(&self, _of: &Directory<'_>) -> io::Result<(Stat, u32)> {
        let path = self.0.path();
        let data = path.symlink_metadata()?;
        // Only what it contains says whether it is a program.
        let mode =
            kiln_system::mode(&data) | if data.is_file() && crate::programs::is_program(&path) { 0o111 } else { 0 };
        Ok((Stat::new(&data), mode))
    }

    /// Where it leads, if it is a link; none if that is not in UTF-8.
    pub(crate) fn target(&self, _of: &Directory<'_>) -> io::Result<Option<String>> {
        kiln_system::read_link(&self.0.path())
    }
}

fn sort(file_type: FileType) -> Sort {
    if file_type.is_dir() {
        Sort::Directory
    } else if file_type.is_symlink() {
        Sort::Symlink
    } else if file_type.is_file() {
        Sort::File
    } else {
        Sort::Device
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
    let (mut waiting, mut found) = (vec![String::new()], Vec::new());
    while let Some(path) = waiting.pop() {
        let failed = |source| Error::Read { path: path.clone().into(), source };
        for entry in std::fs::read_dir(root.join(&path)).map_err(failed)? {
            let looked = look(&Directory { path: &path }, &Entry(entry.map_err(failed)?))?;
            found.extend(looked.found);
            waiting.extend(looked.below);
        }
    }
    Ok(found)
}
