//! The transfer client: moves blobs between this process and a farm's content-addressed store.
//!
//! Small blobs go in batches, large ones as streams; what is there already is not sent.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tonic::transport::Channel;

use crate::digest::{Digest, DigestFunction};

/// A transfer that did not work.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("blob `{digest}` is not in the farm's store")]
    Missing { digest: Digest },
    #[error("blob `{digest}` came back with other content (`{found}`)")]
    Corrupt { digest: Digest, found: Digest },
    #[error("`{path}` changed while it was sent; expected `{expected}`, found `{found}`")]
    Changed { path: PathBuf, expected: Digest, found: Digest },
    #[error("cannot read or write `{path}`")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the farm refused a transfer: {}", .0.message())]
    Status(#[from] tonic::Status),
}

/// Where an upload's bytes are.
#[derive(Debug, Clone)]
pub enum Blob {
    /// In memory.
    Bytes(Bytes),
    /// In a file, read when it is sent.
    File(PathBuf),
}

/// What a transfer moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Blobs sent or received.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were there already.
    pub reused_bytes: u64,
}

/// A client of one farm and one instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    instance: String,
    function: DigestFunction,
}
