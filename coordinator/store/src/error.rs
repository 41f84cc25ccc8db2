//! Errors of the stores.

use std::io;
use std::path::{Path, PathBuf};

use kiln_proto::digest::Digest;

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("blob `{digest}` is not in the store; upload it, or run the action that produces it again")]
    NotFound { digest: Digest },
    #[error("the data sent for blob `{expected}` has the digest `{found}`; nothing was stored")]
    Mismatch { expected: Digest, found: Digest },
    #[error("more than {} bytes were sent for blob `{digest}`; nothing was stored", digest.size)]
    TooLong { digest: Digest },
    #[error("offset {offset} is beyond the {} bytes of blob `{digest}`", digest.size)]
    OutOfRange { digest: Digest, offset: u64 },
    #[error(
        "blob `{digest}` was damaged on the disk (its bytes are `{found}`) and was removed; upload or build it again"
    )]
    Corrupt { digest: Digest, found: Digest },
    #[error(
        "no space for {needed} more bytes: the store holds at most {capacity} and {writing} are being written; \
         raise `--store-size`, or a tenant's `store` in `--quotas`, or try again when other uploads are done"
    )]
    Full { needed: u64, capacity: u64, writing: u64 },
    #[error(
        "no space for {needed} more bytes: other tenants are writing too, and this one's uploads may use {most} bytes of the store; \
         try again when some are done, or ask the operator to raise `--store-size`"
    )]
    Crowded { needed: u64, most: u64 },
    #[error("the disk of `{path}` is full; free some space, or lower `--store-size`")]
    DiskFull {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is in use by another coordinator; stop that one, or choose another data directory")]
    Locked { path: PathBuf },
    #[error("cannot {doing} `{path}`: {source}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("an earlier write of blob `{digest}` failed; start again")]
    Abandoned { digest: Digest },
    #[error("the action cache `{path}` failed: {source}")]
    Database {
        path: PathBuf,
        #[source]
        source: std::sync::Arc<redb::Error>,
    },
    #[error("blob `{digest}` is too large for the shared cache, and no bucket is configured")]
    TooLarge { digest: Digest },
    #[error(transparent)]
    Redis(#[from] super::redis::Error),
    #[error("the bucket `{shown}` is unreachable: {why}")]
    S3 { shown: String, why: String },
    #[error("cannot use the bucket `{shown}`: {why}")]
    S3Refused { shown: String, why: String },
    #[error("the store is shutting down; try again")]
    Closed,
}

impl From<kiln_buckets::Error> for Error {
    fn from(kiln_buckets::Error { shown, why }: kiln_buckets::Error) -> Self {
        Self::S3Refused { shown, why }
    }
}

impl From<kiln_packs::Error> for Error {
    fn from(kiln_packs::Error { doing, path, source }: kiln_packs::Error) -> Self {
        Self::io(doing, &path, source)
    }
}

impl Error {
    /// An I/O error at a path; reports a full disk as such.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned(), source }
            }
            _ => Self::Io { doing, path: path.to_owned(), source },
        }
    }

    /// Whether the blob is currently unavailable.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Corrupt { .. })
    }
}
