//! Directories in memory, and what is done to them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kiln_proto::digest::{Digest, DigestFunction};

use super::{Attributes, Directory, InvalidName, Node};
use crate::Encoded;
use crate::shape::{self, MAX_DEPTH};

/// Why an operation on trees cannot be done.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Error {
    /// Directories that must be read first; see [`read`](super::read()).
    #[error("{} directories are not in memory", .0.len())]
    Unread(Vec<Digest>),
    #[error("directory `{0}` has whiteouts: it belongs to a layer, and a root is expected")]
    NotRoot(Digest),
    #[error("the tree is deeper than {MAX_DEPTH} directories")]
    Depth,
    #[error("`/{path}` is not a directory")]
    NotDirectory { path: String },
    #[error("`/{path}` is a directory, and what is to be put there is not")]
    IsDirectory { path: String },
    #[error("nothing is at `/{path}`")]
    NotFound { path: String },
    #[error("too many symbolic links on the way to `/{path}`")]
    Links { path: String },
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// Directories of roots and layers in memory, by digest.
///
/// An operation that comes upon a directory that is not here goes on with what else it can, and then ends with [`Error::Unread`]:
/// whoever has a store reads these and does it again. What an operation makes is kept until [`take_made`](Self::take_made).
#[derive(Debug)]
pub struct Forest {
    function: DigestFunction,
    known: HashMap<Digest, Arc<Directory>>,
    unread: HashSet<Digest>,
    made: Vec<Encoded>,
}

impl Forest {
    /// An empty forest whose directories are named by digests of this function.
    pub fn new(function: DigestFunction) -> Self {
        Self { function, known: HashMap::new(), unread: HashSet::new(), made: Vec::new() }
    }

    /// Adds a directory that was read.
    pub fn add(&mut self, digest: Digest, directory: Arc<Directory>) {
        self.known.insert(digest, directory);
    }

    /// Adds a new directory and returns its digest.
    pub fn put(&mut self, directory: Directory) -> Digest {
        let data = directory.encode(self.function);
        let digest = self.function.digest(&data);
        if self.known.insert(digest, Arc::new(directory)).is_none() {
            self.made.push(Encoded { digest, data });
        }
        digest
    }

    /// The directories that were made since the last call, children before parents: what is to be stored.
    pub fn take_made(&mut self) -> Vec<Encoded> {
        std::mem::take(&mut self.made)
    }

    /// A directory that is in memory.
    pub fn get(&self, digest: &Digest) -> Option<&Arc<Directory>> {
        self.known.get(digest)
    }

    /// The digest function of its directories.
    pub fn function(&self) -> DigestFunction {
        self.function
    }

    /// Directories that are in memory.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no directory is in memory.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// A directory; where it is not in memory that is noted, and the operation cannot end well.
    pub(super) fn open(&mut self, digest: &Digest) -> Option<Arc<Directory>> {
        let found = self.known.get(digest).cloned();
        if found.is_none() {
            self.unread.insert(*digest);
        }
        found
    }

    /// Opens a directory of a root.
    pub(super) fn open_root(&mut self, digest: &Digest) -> Result<Option<Arc<Directory>>, Error> {
        let found = self.open(digest);
        match &found {
            Some(directory) if !directory.is_of_root() => Err(Error::NotRoot(*digest)),
            _ => Ok(found),
        }
    }

    /// Runs an operation that comes to nothing where a directory is not in memory.
    pub(super) fn whole<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<Option<T>, Error>) -> Result<T, Error> {
        self.unread.clear();
        let done = run(self)?;
        match done {
            Some(done) if self.unread.is_empty() => Ok(done),
            _ => Err(Error::Unread(self.unread.drain().collect())),
        }
    }
}

impl Directory {
    /// An empty directory with these attributes.
    pub fn empty(attributes: Attributes) -> Self {
        Self { attributes: Some(attributes), ..Self::default() }
    }

    /// Its measures.
    pub fn shape(&self) -> shape::Node {
        let lengths = self.entries.keys().map(|name| name.as_bytes().len());
        let below = self.entries.iter().filter_map(|(name, node)| match node {
            Node::Directory(digest) => Some((*digest, name.as_bytes().len())),
            Node::Leaf(_) | Node::Whiteout => None,
        });
        let entries = self.entries.len() as u64;
        shape::Node { entries, longest: lengths.max().unwrap_or(0), below: below.collect() }
    }

    /// Whether it can be part of a root: nothing in it is about another tree.
    pub fn is_of_root(&self) -> bool {
        self.attributes.is_some() && !self.opaque && !self.entries.values().any(|node| *node == Node::Whiteout)
    }
}
