//! Layers as tar archives, the form that OCI images have them in.
//!
//! A whiteout is an empty file `.wh.NAME`, an opaque directory one with an empty file `.wh..wh..opq` in it
//! (<https://github.com/opencontainers/image-spec/blob/main/layer.md>). Extended attributes are PAX records
//! `SCHILY.xattr.NAME`. Sockets have no place in an archive.

mod read;
mod write;

use std::io;

pub use read::read;
pub use write::{contents, write};

use super::{Error, InvalidName};

/// What a whiteout's name begins with.
const WHITEOUT: &[u8] = b".wh.";
/// The file that makes its directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What the PAX record of an extended attribute begins with.
const XATTR: &str = "SCHILY.xattr.";

/// An archive that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TarError {
    #[error("cannot read or write the archive: {0}")]
    Io(#[from] io::Error),
    #[error("`/{path}`: {reason}")]
    Entry { path: String, reason: String },
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Tree(#[from] Error),
}

fn entry(path: &[u8], reason: impl Into<String>) -> TarError {
    TarError::Entry { path: String::from_utf8_lossy(path).escape_debug().to_string(), reason: reason.into() }
}
