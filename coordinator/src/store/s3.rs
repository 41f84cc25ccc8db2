//! Blobs in a bucket of S3 or what speaks its protocol: for what is too large for Redis, or for all that is shared.
//!
//! Objects are named `{prefix}/blobs/1/{function}/{first byte of the hash}/{hash}-{size}`. An upload becomes visible when it is
//! complete. Credentials, region and endpoint come from the usual `AWS_…` variables.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::digest::{Digest, Hasher};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};

use super::{BlobStore, BlobStream, BlobWriter, Error};

/// Parts of a multipart upload; also the largest blob that goes in one request. At least 5 MiB, by S3's own rule.
const PART_BYTES: usize = 8 << 20;
/// Parts under way at once.
const PARTS: usize = 4;
/// Questions for objects under way at once.
const CONCURRENCY: usize = 32;

/// Blobs in one bucket.
#[derive(Debug, Clone)]
pub struct S3Blobs {
    bucket: Arc<AmazonS3>,
    prefix: String,
    shown: String,
}

impl S3Blobs {
    /// Blobs at `s3://BUCKET[/PREFIX]`. Asks the bucket for one listing, so that a wrong name or key is found out now.
    ///
    /// # Errors
    /// In words, where the URL is none or the bucket refuses.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::S3 { shown: url.to_owned(), why };
        let parsed = url::Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        if parsed.scheme() != "s3" {
            return Err(wrong(format!("its scheme is `{}`; expected `s3://BUCKET[/PREFIX]`", parsed.scheme())));
        }
        let name = parsed.host_str().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| wrong("it names no bucket; expected `s3://BUCKET[/PREFIX]`".to_owned()))?;
        let bucket = AmazonS3Builder::from_env()
            .with_bucket_name(name)
            .with_retry(object_store::RetryConfig {
                max_retries: 3,
                retry_timeout: std::time::Duration::from_secs(20),
                ..Default::default()
            })
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let prefix = match parsed.path().trim_matches('/') {
            "" => "blobs/1".to_owned(),
            prefix => format!("{prefix}/blobs/1"),
        };
        let store = Self { bucket: Arc::new(bucket), prefix, shown: url.to_owned() };
        let mut listing = store.bucket.list(Some(&Path::from(store.prefix.as_str())));
        match listing.try_next().await {
            Ok(_) => Ok(store),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    fn path(&self, digest: &Digest) -> Path {
        let hex = digest.hex();
        Path::from(format!("{}/{}/{}/{hex}-{}", self.prefix, digest.function.name(), &hex[..2], digest.size))
    }

    fn failed(&self, digest: &Digest, error: object_store::Error) -> Error {
        match error {
            object_store::Error::NotFound { .. } => Error::NotFound { digest: *digest },
            other => Error::S3 { shown: self.shown.clone(), why: other.to_string() },
        }
    }

    async fn damaged(&self, digest: &Digest, found: Digest) -> Error {
        tracing::error!(%digest, %found, bucket = self.shown, "a blob in the bucket is damaged; it is dropped");
        let _ = self.bucket.delete(&self.path(digest)).await;
        Error::Corrupt { digest: *digest, found }
    }
}

#[async_trait]
impl BlobStore for S3Blobs {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let ask = |digest: Digest| async move {
            match self.bucket.head(&self.path(&digest)).await {
                Ok(object) if object.size == digest.size => Ok(None),
                Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(Some(digest)),
                Err(error) => Err(self.failed(&digest, error)),
            }
        };
        let answers = stream::iter(digests.to_vec()).map(ask).buffered(CONCURRENCY);
        answers.try_filter_map(|missing| std::future::ready(Ok(missing))).try_collect().await
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        let found = self.bucket.get(&self.path(digest)).await.map_err(|error| self.failed(digest, error))?;
        let data = found.bytes().await.map_err(|error| self.failed(digest, error))?;
        let found = digest.function.digest(&data);
        if found == *digest { Ok(data) } else { Err(self.damaged(digest, found).await) }
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        let left = digest.size.checked_sub(offset).ok_or(Error::OutOfRange { digest: *digest, offset })?;
        let wanted = limit.map_or(left, |limit| left.min(limit));
        let mut options = GetOptions::default();
        if wanted < digest.size {
            options.range = Some(GetRange::Bounded(offset..offset + wanted));
        }
        let path = self.path(digest);
        let found = self.bucket.get_opts(&path, options).await.map_err(|error| self.failed(digest, error))?;
        let (store, digest) = (self.clone(), *digest);
        let pieces = found.into_stream().map(move |piece| piece.map_err(|error| store.failed(&digest, error)));
        let hasher = (wanted == digest.size).then(|| digest.function.hasher());
        Ok(super::checked::whole(pieces.boxed(), digest, hasher))
    }

    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        let found = digest.function.digest(&data);
        if found != *digest {
            return Err(Error::Mismatch { expected: *digest, found });
        }
        if data.len() > PART_BYTES {
            let mut writer = self.write(digest).await?;
            writer.write(data).await?;
            return writer.commit().await;
        }
        let put = self.bucket.put(&self.path(digest), PutPayload::from_bytes(data)).await;
        put.map(|_| ()).map_err(|error| self.failed(digest, error))
    }

    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
        let upload = self.bucket.put_multipart(&self.path(digest)).await.map_err(|error| self.failed(digest, error))?;
        let upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let hasher = digest.function.hasher();
        Ok(Box::new(Upload { store: self.clone(), digest: *digest, hasher, upload: Some(upload) }))
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn capacity(&self) -> u64 {
        u64::MAX
    }
}

/// An upload in parts. Given up, its parts are removed.
struct Upload {
    store: S3Blobs,
    digest: Digest,
    hasher: Hasher,
    upload: Option<WriteMultipart>,
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
        upload.wait_for_capacity(PARTS).await.map_err(|error| self.store.failed(&self.digest, error))?;
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
        let finished = upload.finish().await;
        finished.map(|_| ()).map_err(|error| self.store.failed(&self.digest, error))
    }
}
