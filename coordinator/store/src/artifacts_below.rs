//! Decorator: blobs that the bounded store lacks are read from the artifacts.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::digest::Digest;

use super::{BlobStore, BlobStream, BlobWriter, Error};

/// Reads from `upper`, then from `artifacts`; writes to `upper` only.
#[derive(Debug)]
pub struct ArtifactsBelow {
    upper: Arc<dyn BlobStore>,
    artifacts: Arc<dyn BlobStore>,
}

impl ArtifactsBelow {
    /// Combines `upper` and `artifacts`.
    pub fn new(upper: Arc<dyn BlobStore>, artifacts: Arc<dyn BlobStore>) -> Self {
        Self { upper, artifacts }
    }
}

#[async_trait]
impl BlobStore for ArtifactsBelow {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let missing = self.upper.find_missing(digests).await?;
        if missing.is_empty() { Ok(missing) } else { self.artifacts.find_missing(&missing).await }
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        match self.upper.get(digest).await {
            Err(error) if error.is_absent() => self.artifacts.get(digest).await,
            result => result,
        }
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
        let mut found = self.upper.get_many(digests).await;
        for (digest, result) in digests.iter().zip(&mut found) {
            if result.as_ref().is_err_and(Error::is_absent) {
                *result = self.artifacts.get(digest).await;
            }
        }
        found
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        match self.upper.read(digest, offset, limit).await {
            Err(error) if error.is_absent() => self.artifacts.read(digest, offset, limit).await,
            result => result,
        }
    }

    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        self.upper.put(digest, data).await
    }

    async fn put_many(&self, blobs: Vec<(Digest, Bytes)>) -> Vec<Result<(), Error>> {
        self.upper.put_many(blobs).await
    }

    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
        self.upper.write(digest).await
    }

    fn bytes(&self) -> u64 {
        self.upper.bytes()
    }

    fn capacity(&self) -> u64 {
        self.upper.capacity()
    }
}
