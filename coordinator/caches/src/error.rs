//! Errors of cache mounts.

use kiln_proto::digest::Digest;

/// A cache mount cannot be read or published.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("the records of cache mounts cannot be used")]
    Journal(#[from] kiln_journal::Error),
    #[error("the journal has an invalid record of a cache mount: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    #[error("the store lacks {} blobs of the cache", .0.len())]
    Missing(Vec<Digest>),
    #[error("a cache cannot have this tree: {0}")]
    Refused(String),
    #[error(
        "cache `{id}` has {bytes} bytes; the farm keeps at most {most} (`--cache-mount-size`), so what it was before stays"
    )]
    TooLarge { id: String, bytes: u64, most: u64 },
}
