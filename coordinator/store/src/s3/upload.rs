//! Uploads a blob into the bucket in parts.

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::digest::{Digest, Hasher};
use object_store::{ObjectStoreExt, WriteMultipart};

use super::bucket::{Bucket, Kind};
use crate::{BlobWriter, Error};

/// Size of a multipart upload's parts; also the largest blob sent in one request. S3 requires at least 5 MiB.
pub(super) const PART_BYTES: usize = 8 << 20;
/// Concurrent parts.
const PARTS: usize = 4;

/// An upload in parts. If it is dropped, its parts are removed.
pub(super) struct Upload {
    bucket: Bucket,
    digest: Digest,
    hasher: Hasher,
    upload: Option<WriteMultipart>,
}

impl Upload {
    pub(super) async fn begin(bucket: &Bucket, digest: &Digest) -> Result<Self, Error> {
        let path = bucket.path(Kind::Blobs, digest);
        let upload = bucket.call(digest, bucket.client.put_multipart(&path)).await?;
        let upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        Ok(Self { bucket: bucket.clone(), digest: *digest, hasher: digest.function.hasher(), upload: Some(upload) })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(upload.abort());
        }
    }
}

#[async_trait]
impl BlobWriter for Upload {
    async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        if self.hasher.size() + data.len() as u64 > self.digest.size {
            return Err(Error::TooLong { digest: self.digest });
        }
        let Some(upload) = &mut self.upload else { return Err(Error::Abandoned { digest: self.digest }) };
        self.bucket.ready()?;
        upload.wait_for_capacity(PARTS).await.map_err(|error| self.bucket.failed(&self.digest, error))?;
        self.hasher.update(&data);
        upload.put(data);
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<(), Error> {
        let found = self.hasher.clone().finish();
        if found != self.digest {
            return Err(Error::Mismatch { expected: self.digest, found });
        }
        let Some(upload) = self.upload.take() else { return Err(Error::Abandoned { digest: self.digest }) };
        let finished = self.bucket.call(&self.digest, upload.finish()).await;
        finished.map(|_| ())
    }
}
