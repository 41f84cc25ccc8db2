//! Decorator: the empty blob always exists.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use kiln_proto::digest::Digest;

use super::{BlobStore, BlobStream, BlobWriter, Error};

/// Serves the empty blob itself, and everything else from the inner store. A digest of size 0 with any other hash names
/// nothing.
#[derive(Debug)]
pub struct WithEmpty {
    inner: Arc<dyn BlobStore>,
}

impl WithEmpty {
    /// Adds the empty blob to a store.
    pub fn new(inner: Arc<dyn BlobStore>) -> Self {
        Self { inner }
    }
}

fn is_empty_blob(digest: &Digest) -> bool {
    digest.is_empty() && *digest == Digest::empty(digest.function)
}

#[async_trait]
impl BlobStore for WithEmpty {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        if !digests.iter().any(is_empty_blob) {
            return self.inner.find_missing(digests).await;
        }
        let others: Vec<Digest> = digests.iter().copied().filter(|digest| !is_empty_blob(digest)).collect();
        self.inner.find_missing(&others).await
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        if is_empty_blob(digest) { Ok(Bytes::new()) } else { self.inner.get(digest).await }
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
        if !digests.iter().any(is_empty_blob) {
            return self.inner.get_many(digests).await;
        }
        let others: Vec<Digest> = digests.iter().copied().filter(|digest| !is_empty_blob(digest)).collect();
        let mut found = self.inner.get_many(&others).await.into_iter();
        let get = |digest: &Digest| {
            if is_empty_blob(digest) {
                return Ok(Bytes::new());
            }
            found.next().unwrap_or(Err(Error::NotFound { digest: *digest }))
        };
        digests.iter().map(get).collect()
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        match (is_empty_blob(digest), offset) {
            (false, _) => self.inner.read(digest, offset, limit).await,
            (true, 0) => Ok(futures::stream::empty().boxed()),
            (true, offset) => Err(Error::OutOfRange { digest: *digest, offset }),
        }
    }

    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        if is_empty_blob(digest) && data.is_empty() { Ok(()) } else { self.inner.put(digest, data).await }
    }

    async fn put_many(&self, blobs: Vec<(Digest, Bytes)>) -> Vec<Result<(), Error>> {
        let is_there = |(digest, data): &(Digest, Bytes)| is_empty_blob(digest) && data.is_empty();
        if !blobs.iter().any(is_there) {
            return self.inner.put_many(blobs).await;
        }
        let there: Vec<bool> = blobs.iter().map(is_there).collect();
        let others = blobs.into_iter().filter(|blob| !is_there(blob)).collect();
        let mut stored = self.inner.put_many(others).await.into_iter();
        there
            .into_iter()
            .map(|there| if there { Ok(()) } else { stored.next().unwrap_or(Err(Error::Closed)) })
            .collect()
    }

    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
        self.inner.write(digest).await
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    fn capacity(&self) -> u64 {
        self.inner.capacity()
    }
}
