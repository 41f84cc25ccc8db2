//! What was found at each path that was looked at.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use kiln_proto::digest::Digest;

use super::sources::Sources;
use crate::manifest::{Read, Variant};
use crate::paths::absolute;

/// What is at a path.
#[derive(Debug, Clone, Copy)]
enum There {
    File(Read),
    Directory(Digest),
    Nothing,
}

/// The paths that were looked at. Each is asked for once.
pub(super) struct Known<'a> {
    sources: &'a dyn Sources,
    paths: HashMap<OsString, There>,
}

impl<'a> Known<'a> {
    pub(super) fn new(sources: &'a dyn Sources) -> Self {
        Self { sources, paths: HashMap::new() }
    }

    /// How many paths were looked at.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// The file at a path.
    pub(super) fn file(&mut self, path: &Path) -> Option<Read> {
        match self.look(path) {
            There::File(read) => Some(read),
            There::Directory(_) | There::Nothing => None,
        }
    }

    /// Whether there is a directory at a path.
    pub(super) fn is_directory(&mut self, path: &Path) -> bool {
        matches!(self.look(path), There::Directory(_))
    }

    fn look(&mut self, path: &Path) -> There {
        if let Some(there) = self.paths.get(path.as_os_str()) {
            return *there;
        }
        let there = match self.sources.digest(path) {
            Some(read) => There::File(read),
            None => self.sources.listing(path).map_or(There::Nothing, There::Directory),
        };
        self.paths.insert(path.as_os_str().to_owned(), there);
        there
    }

    /// The path of a name in a directory. Where it has `..`, the kernel is followed: what is before it must be a directory, and
    /// may be a symbolic link.
    pub(super) fn path(&self, directory: &Path, name: &[u8]) -> PathBuf {
        if is_plain(name) {
            let directory = directory.as_os_str().as_bytes();
            let separator: &[u8] = if directory.ends_with(b"/") { b"" } else { b"/" };
            return PathBuf::from(OsString::from_vec([directory, separator, name].concat()));
        }
        let name = Path::new(OsStr::from_bytes(name));
        let climbs = name.components().any(|component| component == Component::ParentDir);
        if let (true, Some(parent), Some(file)) = (climbs, name.parent(), name.file_name())
            && let Some(real) = self.sources.directory(&directory.join(parent))
        {
            return real.join(file);
        }
        absolute(directory, name)
    }

    /// Everything that was found, with directories that are missing.
    pub(super) fn into_variant(self, missing: Vec<PathBuf>) -> Variant {
        // By bytes first: maps of paths are then built almost without comparing paths, which is slow.
        let mut paths: Vec<(OsString, There)> = self.paths.into_iter().collect();
        paths.extend(missing.into_iter().map(|path| (path.into_os_string(), There::Nothing)));
        paths.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let (mut read, mut listed, mut absent) = (Vec::new(), Vec::new(), Vec::new());
        for (path, there) in paths {
            let path = PathBuf::from(path);
            match there {
                There::File(file) => read.push((path, file)),
                There::Directory(names) => listed.push((path, names)),
                There::Nothing => absent.push(path),
            }
        }
        Variant {
            read: read.into_iter().collect(),
            absent: absent.into_iter().collect(),
            listed: listed.into_iter().collect(),
        }
    }
}

/// Whether a name is relative, without `.`, `..` and empty parts.
fn is_plain(name: &[u8]) -> bool {
    name.split(|c| *c == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}
