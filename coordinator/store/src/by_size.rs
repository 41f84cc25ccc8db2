//! Decorator: keeps small blobs in one store and large ones in another.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::digest::Digest;

use super::{BlobStore, BlobStream, BlobWriter, Error};

/// Blobs of at most `bound` bytes in `small`, larger ones in `large`.
#[derive(Debug)]
pub struct BySize {
    small: Arc<dyn BlobStore>,
    large: Arc<dyn BlobStore>,
    bound: u64,
}

impl BySize {
    /// Splits blobs at `bound` bytes.
    pub fn new(small: Arc<dyn BlobStore>, large: Arc<dyn BlobStore>, bound: u64) -> Self {
        Self { small, large, bound }
    }

    fn of(&self, digest: &Digest) -> &dyn BlobStore {
        if digest.size <= self.bound { &*self.small } else { &*self.large }
    }
}

#[async_trait]
impl BlobStore for BySize {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let (small, large): (Vec<Digest>, Vec<Digest>) =
            digests.iter().copied().partition(|digest| digest.size <= self.bound);
        let (small, large) = futures::join!(some_missing(&*self.small, &small), some_missing(&*self.large, &large));
        let mut missing = small?;
        missing.extend(large?);
        Ok(missing)
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        self.of(digest).get(digest).await
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
        if digests.iter().all(|digest| digest.size <= self.bound) {
            return self.small.get_many(digests).await;
        }
        let mut results = Vec::with_capacity(digests.len());
        for digest in digests {
            results.push(self.get(digest).await);
        }
        results
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        self.of(digest).read(digest, offset, limit).await
    }

    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        self.of(digest).put(digest, data).await
    }

    async fn put_many(&self, blobs: Vec<(Digest, Bytes)>) -> Vec<Result<(), Error>> {
        if blobs.iter().all(|(digest, _)| digest.size <= self.bound) {
            return self.small.put_many(blobs).await;
        }
        let mut results = Vec::with_capacity(blobs.len());
        for (digest, data) in blobs {
            results.push(self.put(&digest, data).await);
        }
        results
    }

    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
        self.of(digest).write(digest).await
    }

    fn bytes(&self) -> u64 {
        self.small.bytes().saturating_add(self.large.bytes())
    }

    fn capacity(&self) -> u64 {
        self.small.capacity().saturating_add(self.large.capacity())
    }
}

async fn some_missing(store: &dyn BlobStore, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
    if digests.is_empty() { Ok(Vec::new()) } else { store.find_missing(digests).await }
}
