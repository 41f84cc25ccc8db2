//! Reads the directories of a tree.

#[cfg_attr(unix, path = "listing_unix.rs")]
#[cfg_attr(windows, path = "listing_windows.rs")]
mod own;

pub(crate) use own::{Directory, Entry, read};

/// What there is to say of an entry.
pub(crate) struct Looked<T> {
    pub(crate) found: Option<T>,
    /// Its path, if it is a directory that is read as well.
    pub(crate) below: Option<String>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(windows, allow(dead_code))]
pub(crate) enum Sort {
    File,
    Directory,
    Symlink,
    Socket,
    Pipe,
    Device,
    Unknown,
}
