//! Decorator: small blobs that were read lately are read from memory.
//!
//! Trees are read directory by directory, most of which are those of the tree before: each would be a file to open, read and hash.
//!
//! Invariant: only what the inner store still has is served, and reading it is a use like any other.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::digest::Digest;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::{BlobStore, BlobStream, BlobWriter, Error};

/// Larger blobs are not kept, in bytes: few directories are.
const MAX_BLOB_BYTES: u64 = 64 << 10;
/// What all that is kept may take, in bytes, and with what each takes beside its content.
const MAX_BYTES: u64 = 24 << 20;
const OVERHEAD_BYTES: u64 = 128;
/// Blobs that are kept, roughly.
const BLOBS: usize = 16_384;

#[derive(Debug, Clone)]
struct Bulk;

impl Weighter<Digest, Bytes> for Bulk {
    fn weight(&self, _digest: &Digest, data: &Bytes) -> u64 {
        OVERHEAD_BYTES.saturating_add(data.len() as u64)
    }
}

/// A store that keeps what it read.
#[derive(Debug)]
pub struct Recent {
    inner: Arc<dyn BlobStore>,
    kept: Cache<Digest, Bytes, Bulk>,
}

impl Recent {
    /// Keeps what is read from a store whose `find_missing` is quicker than its `get`.
    pub fn new(inner: Arc<dyn BlobStore>) -> Self {
        Self { inner, kept: Cache::with_weighter(BLOBS, MAX_BYTES, Bulk) }
    }

    fn keep(&self, digest: &Digest, read: &Result<Bytes, Error>) {
        if let Ok(data) = read
            && digest.size <= MAX_BLOB_BYTES
        {
            // A part of a larger message would keep all of it.
            self.kept.insert(*digest, Bytes::copy_from_slice(data));
        }
    }

    /// Those of these blobs that are kept, if the inner store still has them.
    async fn known(&self, digests: &[Digest]) -> Result<Vec<Option<Bytes>>, Error> {
        let mut found: Vec<Option<Bytes>> = digests.iter().map(|digest| self.kept.get(digest)).collect();
        let asked: Vec<Digest> =
            digests.iter().zip(&found).filter(|(_, found)| found.is_some()).map(|(digest, _)| *digest).collect();
        if asked.is_empty() {
            return Ok(found);
        }
        for gone in self.inner.find_missing(&asked).await? {
            self.kept.remove(&gone);
            digests.iter().zip(&mut found).filter(|(digest, _)| **digest == gone).for_each(|(_, found)| *found = None);
        }
        Ok(found)
    }
}

#[async_trait]
impl BlobStore for Recent {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        self.inner.find_missing(digests).await
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        if let Some(data) = self.known(&[*digest]).await?.pop().flatten() {
            return Ok(data);
        }
        let read = self.inner.get(digest).await;
        self.keep(digest, &read);
        read
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
        let known = self.known(digests).await.unwrap_or_else(|_| vec![None; digests.len()]);
        let others: Vec<Digest> =
            digests.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(digest, _)| *digest).collect();
        let mut read = if others.is_empty() { Vec::new() } else { self.inner.get_many(&others).await }.into_iter();
        let mut all = Vec::with_capacity(digests.len());
        for (digest, known) in digests.iter().zip(known) {
            all.push(match known {
                Some(data) => Ok(data),
                None => {
                    let read = read.next().unwrap_or(Err(Error::NotFound { digest: *digest }));
                    self.keep(digest, &read);
                    read
                }
            });
        }
        all
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        self.inner.read(digest, offset, limit).await
    }

    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        self.inner.put(digest, data).await
    }

    async fn put_many(&self, blobs: Vec<(Digest, Bytes)>) -> Vec<Result<(), Error>> {
        self.inner.put_many(blobs).await
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kiln_proto::digest::DigestFunction;
    use parking_lot::Mutex;

    use super::*;

    /// One that counts what is read.
    #[derive(Debug, Default)]
    struct Counting {
        blobs: Mutex<std::collections::HashMap<Digest, Bytes>>,
        reads: AtomicUsize,
        looks: AtomicUsize,
    }

    #[async_trait]
    impl BlobStore for Counting {
        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
            self.looks.fetch_add(digests.len(), Ordering::Relaxed);
            let blobs = self.blobs.lock();
            Ok(digests.iter().filter(|digest| !blobs.contains_key(*digest)).copied().collect())
        }

        async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.blobs.lock().get(digest).cloned().ok_or(Error::NotFound { digest: *digest })
        }

        async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
            futures::future::join_all(digests.iter().map(|digest| self.get(digest))).await
        }

        async fn read(&self, digest: &Digest, _offset: u64, _limit: Option<u64>) -> Result<BlobStream, Error> {
            Err(Error::NotFound { digest: *digest })
        }

        async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
            self.blobs.lock().insert(*digest, data);
            Ok(())
        }

        async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
            Err(Error::NotFound { digest: *digest })
        }

        fn bytes(&self) -> u64 {
            0
        }

        fn capacity(&self) -> u64 {
            u64::MAX
        }
    }

    async fn stored(data: impl AsRef<[u8]>) -> (Arc<Counting>, Recent, Digest) {
        let inner = Arc::new(Counting::default());
        let digest = DigestFunction::Sha256.digest(data.as_ref());
        inner.put(&digest, Bytes::copy_from_slice(data.as_ref())).await.unwrap();
        (inner.clone(), Recent::new(inner), digest)
    }

    #[tokio::test]
    async fn what_is_read_again_comes_from_memory_and_is_a_use() {
        let (inner, recent, digest) = stored(b"a directory").await;
        let absent = DigestFunction::Sha256.digest(b"absent");
        for reads in [1, 1] {
            assert_eq!(recent.get(&digest).await.unwrap(), "a directory");
            assert_eq!(inner.reads.load(Ordering::Relaxed), reads);
        }
        assert_eq!(inner.looks.load(Ordering::Relaxed), 1, "a use of what is kept");
        let many = recent.get_many(&[absent, digest, digest]).await;
        assert!(many[0].is_err());
        assert_eq!(
            (many[1].as_ref().unwrap(), many[2].as_ref().unwrap()),
            (&"a directory".into(), &"a directory".into())
        );
        assert_eq!(inner.reads.load(Ordering::Relaxed), 2, "only what is not kept is asked for");
    }

    #[tokio::test]
    async fn what_the_store_lost_is_lost() {
        let (inner, recent, digest) = stored(b"a directory").await;
        recent.get(&digest).await.unwrap();
        inner.blobs.lock().clear();
        assert!(recent.get(&digest).await.is_err());
        assert!(recent.get_many(&[digest]).await[0].is_err());
        inner.put(&digest, Bytes::from_static(b"a directory")).await.unwrap();
        assert_eq!(recent.get(&digest).await.unwrap(), "a directory");
    }

    #[tokio::test]
    async fn what_is_large_is_not_kept() {
        let (inner, recent, digest) = stored(vec![7; MAX_BLOB_BYTES as usize + 1]).await;
        for reads in [1, 2] {
            recent.get(&digest).await.unwrap();
            assert_eq!(inner.reads.load(Ordering::Relaxed), reads);
        }
    }
}
