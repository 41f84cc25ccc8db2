//! A store that holds nothing: used for blobs too large for the shared cache if there is no bucket.

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::digest::Digest;

use super::{BlobStore, BlobStream, BlobWriter, Error};

/// Rejects all writes and contains nothing.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere;

fn absent(digest: &Digest) -> Error {
    Error::NotFound { digest: *digest }
}

#[async_trait]
impl BlobStore for Nowhere {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        Ok(digests.to_vec())
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        Err(absent(digest))
    }

    async fn read(&self, digest: &Digest, _offset: u64, _limit: Option<u64>) -> Result<BlobStream, Error> {
        Err(absent(digest))
    }

    async fn put(&self, digest: &Digest, _data: Bytes) -> Result<(), Error> {
        Err(Error::TooLarge { digest: *digest })
    }

    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
        Err(Error::TooLarge { digest: *digest })
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn capacity(&self) -> u64 {
        0
    }
}
