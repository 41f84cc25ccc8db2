//! One set of inputs that a call had.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_proto::digest::Digest;

/// A file that a call read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Read {
    /// Its content.
    pub digest: Digest,
    /// Whether it could be executed: part of the input tree, and so of the action's key.
    pub executable: bool,
}

/// The inputs of one run. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variant {
    /// Files that were read.
    pub read: BTreeMap<PathBuf, Read>,
    /// Paths that were looked for and did not exist. A file that appears there may shadow another.
    pub absent: BTreeSet<PathBuf>,
    /// Directories that were listed, each with a digest of its names.
    pub listed: BTreeMap<PathBuf, Digest>,
}
