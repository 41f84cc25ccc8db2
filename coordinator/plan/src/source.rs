//! The planner's view of a source tree.
//!
//! Invariant: the planner does no I/O. It requests a file by reading it; the caller supplies the requested files and
//! plans again, until nothing more is requested. So no fixed list of names limits which files a detector may read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// A source tree: its paths, and the content of the files that determine a plan.
pub trait Source {
    /// The relative paths of all files and symbolic links, sorted and separated by `/`.
    fn paths(&self) -> &[String];
    /// The content of a file. `None` if it does not exist or was not supplied yet: see [`MemorySource::unread`].
    fn read(&self, path: &str) -> Option<Vec<u8>>;
    /// The directory of the only member to build, if the tree is a workspace and only one is wanted.
    fn member(&self) -> Option<&str> {
        None
    }
}

/// A source tree whose files are supplied on request.
#[derive(Debug, Default)]
pub struct MemorySource {
    paths: Arc<Vec<String>>,
    /// Supplied files; `None` for a path that cannot be read as a file.
    files: BTreeMap<String, Option<Vec<u8>>>,
    unread: Mutex<BTreeSet<String>>,
}

impl MemorySource {
    /// A tree that consists of these files.
    pub fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self::with_paths([], files)
    }

    /// A tree with the files in `files`, and others whose content is not known yet.
    pub fn with_paths(paths: impl IntoIterator<Item = String>, files: BTreeMap<String, Vec<u8>>) -> Self {
        let mut all: Vec<String> = paths.into_iter().chain(files.keys().cloned()).collect();
        all.sort();
        all.dedup();
        let files = files.into_iter().map(|(path, content)| (path, Some(content))).collect();
        MemorySource { paths: Arc::new(all), files, unread: Mutex::default() }
    }

    /// Takes the paths that were read since the last call and have not been supplied.
    pub fn unread(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.unread.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The size of all files that were supplied, in bytes.
    pub fn supplied_bytes(&self) -> usize {
        self.files.values().flatten().map(Vec::len).sum()
    }

    /// Supplies a file; `None` if the path exists but is not a readable file.
    pub fn supply(&mut self, path: String, content: Option<Vec<u8>>) {
        self.files.insert(path, content);
    }
}

impl Clone for MemorySource {
    fn clone(&self) -> Self {
        MemorySource { paths: Arc::clone(&self.paths), files: self.files.clone(), unread: Mutex::default() }
    }
}

impl<N: Into<String>, C: Into<Vec<u8>>> FromIterator<(N, C)> for MemorySource {
    fn from_iter<I: IntoIterator<Item = (N, C)>>(files: I) -> Self {
        Self::new(files.into_iter().map(|(n, c)| (n.into(), c.into())).collect())
    }
}

impl Source for MemorySource {
    fn paths(&self) -> &[String] {
        &self.paths
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        match self.files.get(path) {
            Some(content) => content.clone(),
            None => {
                if self.paths.binary_search_by(|one| one.as_str().cmp(path)).is_ok() {
                    self.unread.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
                }
                None
            }
        }
    }
}
