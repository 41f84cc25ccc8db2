//! Blobs in a bucket.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::digest::Digest;
use object_store::{Error as Failure, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutPayload};
use parking_lot::Mutex;

use super::Address;
use super::bucket::{Bucket, Kind};
use super::life::{Life, written};
use super::pieces::{self, Hashing, Known, Pieces};
use super::upload::{PART_BYTES, Upload};
use crate::clock::Clock;
use crate::{BlobStore, BlobStream, BlobWriter, Error, checked};

/// Maximum concurrent requests for objects.
const CONCURRENCY: usize = 32;

/// Blobs in one bucket.
#[derive(Debug, Clone)]
pub struct S3Blobs {
    pub(super) bucket: Bucket,
    pub(super) life: Life,
    /// Blobs that were hashed in this process.
    known: Arc<Mutex<Known>>,
}

impl S3Blobs {
    /// The health of the bucket.
    pub fn health(&self) -> crate::Health {
        self.bucket.breaker.health()
    }

    /// Opens a bucket whose blobs live for at least `life` after their last use. Sends one list request, so that a
    /// wrong name or key is detected now; a bucket that is only unavailable is used once it responds.
    ///
    /// # Errors
    /// If the address is invalid or the bucket refuses access.
    pub async fn open(address: &Address, life: Duration, clock: Clock) -> Result<Self, Error> {
        Ok(Self { bucket: Bucket::open(address).await?, life: Life::new(clock, life), known: Arc::default() })
    }

    async fn fetch(&self, digest: &Digest, options: GetOptions) -> Result<GetResult, Error> {
        let path = self.bucket.path(Kind::Blobs, digest);
        let found = self.bucket.call(digest, self.bucket.client.get_opts(&path, options)).await?;
        if found.meta.size != digest.size {
            self.drop_damaged(digest, &format!("{} bytes", found.meta.size)).await;
            return Err(Error::NotFound { digest: *digest });
        }
        let written = written(&found.meta);
        if self.life.is_due(written) {
            let (store, digest) = (self.clone(), *digest);
            tokio::spawn(async move { store.bucket.used(&store.life, &digest, written).await });
        }
        Ok(found)
    }

    /// Reads a whole blob, with its last piece held back until it is verified.
    async fn whole(&self, digest: Digest) -> Result<BlobStream, Error> {
        let found = self.fetch(&digest, GetOptions::default()).await?;
        let failed = self.clone();
        let pieces = found.into_stream().map(move |piece| piece.map_err(|error| failed.bucket.failed(&digest, error)));
        let checked = checked::whole(pieces.boxed(), digest, Some(digest.function.hasher()));
        let end = stream::once(std::future::ready(None));
        let (store, mut hashing) = (self.clone(), Some(Hashing::new()));
        let concluded = checked.map(Some).chain(end).filter_map(move |piece| {
            match &piece {
                Some(Ok(data)) => hashing.iter_mut().for_each(|hashing| hashing.update(data)),
                Some(Err(_)) => hashing = None,
                None => hashing.take().into_iter().for_each(|all| store.known.lock().insert(digest, all.finish())),
            }
            let store = store.clone();
            async move {
                if let Some(Err(Error::Corrupt { found, .. })) = &piece {
                    store.drop_damaged(&digest, &found.to_string()).await;
                }
                piece
            }
        });
        Ok(concluded.boxed())
    }

    /// The pieces of a blob. If this process has not hashed the blob yet, the whole blob is read.
    async fn pieces(&self, digest: &Digest) -> Result<Pieces, Error> {
        if let Some(known) = self.known.lock().get(digest) {
            return Ok(known);
        }
        let mut read = self.whole(*digest).await?;
        while let Some(data) = read.next().await {
            data.map_err(|error| if error.is_absent() { Error::NotFound { digest: *digest } } else { error })?;
        }
        self.known.lock().get(digest).ok_or(Error::NotFound { digest: *digest })
    }

    /// Reads a part of a blob, with the pieces around it.
    async fn part(&self, digest: &Digest, part: Range<u64>) -> Result<BlobStream, Error> {
        let pieces = self.pieces(digest).await?;
        let around = GetRange::Bounded(pieces::around(&part, digest.size));
        let found = self.fetch(digest, GetOptions { range: Some(around), ..Default::default() }).await?;
        let (store, digest) = (self.clone(), *digest);
        let bytes = found.into_stream().map(move |bytes| bytes.map_err(|error| store.bucket.failed(&digest, error)));
        let store = self.clone();
        let checked = pieces::part(bytes.boxed(), digest, pieces, part).then(move |bytes| {
            let store = store.clone();
            async move {
                if let Err(Error::Corrupt { found, .. }) = &bytes {
                    store.drop_damaged(&digest, &format!("a part that is {found}")).await;
                    return Err(Error::NotFound { digest });
                }
                bytes
            }
        });
        Ok(checked.boxed())
    }

    /// Removes an object that is not the blob that it is called after.
    async fn drop_damaged(&self, digest: &Digest, found: &str) {
        tracing::error!(%digest, found, bucket = self.bucket.shown, "dropped a damaged blob in the bucket");
        let _ = self.bucket.client.delete(&self.bucket.path(Kind::Blobs, digest)).await;
    }

    /// Whether a blob exists; counts as a use.
    async fn is_there(&self, digest: &Digest) -> Result<bool, Failure> {
        match self.bucket.client.head(&self.bucket.path(Kind::Blobs, digest)).await {
            Ok(object) if object.size == digest.size => self.bucket.used(&self.life, digest, written(&object)).await,
            Ok(_) | Err(Failure::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl BlobStore for S3Blobs {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let ask = |digest: Digest| async move {
            let there = self.bucket.call(&digest, self.is_there(&digest)).await?;
            Ok((!there).then_some(digest))
        };
        let answers = stream::iter(digests.to_vec()).map(ask).buffered(CONCURRENCY);
        answers.try_filter_map(|missing| std::future::ready(Ok(missing))).try_collect().await
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        let found = self.fetch(digest, GetOptions::default()).await?;
        let data = self.bucket.call(digest, found.bytes()).await?;
        let found = digest.function.digest(&data);
        if found != *digest {
            self.drop_damaged(digest, &found.to_string()).await;
            return Err(Error::NotFound { digest: *digest });
        }
        Ok(data)
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        let left = digest.size.checked_sub(offset).ok_or(Error::OutOfRange { digest: *digest, offset })?;
        let wanted = limit.map_or(left, |limit| left.min(limit));
        if wanted == 0 {
            return Ok(stream::empty().boxed());
        }
        let part = offset..offset.saturating_add(wanted);
        if wanted == digest.size { self.whole(*digest).await } else { self.part(digest, part).await }
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
        let path = self.bucket.path(Kind::Blobs, digest);
        let put = self.bucket.client.put(&path, PutPayload::from_bytes(data));
        self.bucket.call(digest, put).await.map(|_| ())
    }

    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
        Ok(Box::new(Upload::begin(&self.bucket, digest).await?))
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn capacity(&self) -> u64 {
        u64::MAX
    }
}
