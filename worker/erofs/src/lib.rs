//! Writes EROFS images that have names and attributes, and leave the content of files to a directory of objects.
//!
//! Invariant: equal nodes give equal bytes; what does not fit into the format is an error and no image.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod directory;
mod layout;
mod records;
mod xattrs;

use std::io::{self, Write};

use layout::Layout;

/// Bytes of a block.
const BLOCK: usize = 4096;

/// A node of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-user-ID and the like included.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was modified: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
    /// Extended attributes, by their whole names.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory: the names in it, and the place of each one's node in the list.
    Directory(Vec<(Vec<u8>, usize)>),
    /// A file with so many bytes, whose content is at this path of the directory of objects. The path begins with `/`; an empty file has none.
    File(u64, Vec<u8>),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device, by its major and minor number.
    Character(u32, u32),
    /// A block device, by its major and minor number.
    Block(u32, u32),
}

/// What does not fit into an image.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("a name or a link of {0} bytes is too long for an image")]
    Long(usize),
    #[error("the extended attribute `{0}` cannot be in an image")]
    Attribute(String),
    #[error("a file of {0} bytes is too large for an image")]
    Large(u64),
    #[error("the nodes are not a tree")]
    NotTree,
    #[error("the image would be too large")]
    Full,
    #[error("cannot write an image: {0}")]
    Io(#[from] io::Error),
}

/// Writes an image of these nodes, of which the first is the root directory. A node that several names stand for is a file with several links.
///
/// `marks`: what the names of overlayfs's own attributes begin with, `user.overlay.` or `trusted.overlay.`.
///
/// # Errors
/// If something does not fit into the format, or the image cannot be written.
pub fn write(nodes: &[Node], marks: &str, to: &mut impl Write) -> Result<(), Error> {
    Layout::of(nodes, marks)?.write(to)
}
