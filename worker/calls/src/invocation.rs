//! A compiler call as a build tool makes it, and the files that its meaning depends on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A program's invocation inside a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// `argv[0]`: the name under which the program was called.
    pub program: OsString,
    /// The arguments, without `argv[0]`.
    pub arguments: Vec<OsString>,
    /// The absolute working directory.
    pub directory: PathBuf,
    /// The environment.
    pub environment: BTreeMap<OsString, OsString>,
}

/// What there is at a path, symbolic links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A device, a pipe, a socket.
    Other,
}

/// The files of a step, as the step sees them. All paths are absolute.
pub trait Files {
    /// The content of a regular file; `None` if there is none, or if it cannot be read.
    fn read(&self, path: &Path) -> Option<Vec<u8>>;

    /// What is at a path; `None` if there is nothing.
    fn kind(&self, path: &Path) -> Option<Kind>;
}
