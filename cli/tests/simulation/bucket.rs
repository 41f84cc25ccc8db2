//! A bucket that all coordinators reach, in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use kiln_proto::digest::Digest;
use kiln_store::{BlobStore, BlobStream, BlobWriter, Error};

/// Its blobs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Bucket(Arc<Mutex<HashMap<Digest, Bytes>>>);

#[async_trait]
impl BlobStore for Bucket {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let blobs = self.0.lock().unwrap();
        Ok(digests.iter().filter(|digest| !blobs.contains_key(digest)).copied().collect())
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        self.0.lock().unwrap().get(digest).cloned().ok_or(Error::NotFound { digest: *digest })
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        let data = self.get(digest).await?;
        let end = limit.map_or(data.len() as u64, |limit| (offset + limit).min(data.len() as u64));
        let part = data.slice(offset as usize..end as usize);
        Ok(stream::iter([Ok(part)]).boxed())
    }

    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        assert_eq!(digest.function.digest(&data), *digest);
        self.0.lock().unwrap().insert(*digest, data);
        Ok(())
    }

    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
        Ok(Box::new(Upload { bucket: self.clone(), digest: *digest, data: BytesMut::new() }))
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn capacity(&self) -> u64 {
        u64::MAX
    }
}

struct Upload {
    bucket: Bucket,
    digest: Digest,
    data: BytesMut,
}

#[async_trait]
impl BlobWriter for Upload {
    async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        self.data.extend_from_slice(&data);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), Error> {
        self.bucket.put(&self.digest, self.data.freeze()).await
    }
}
