//! Decorator: a store of this coordinator's own over one that all coordinators share.
//!
//! What is written goes to both, so that a colleague finds it through any coordinator, and so that builds under way go on when the
//! shared store is away. What is read comes from the own store first. Invariant: no failure of the shared store reaches a caller:
//! what cannot be had there is absent, and what cannot be written there is only not shared.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::digest::Digest;
use parking_lot::Mutex;

use super::{BlobStore, BlobStream, BlobWriter, Error, copy};

/// How often a blob of the own store has its life in the shared one extended.
const TOUCH_EVERY: Duration = Duration::from_secs(60 * 60);
/// Blobs whose last touch is remembered.
const REMEMBERED: usize = 400_000;
/// Blobs shared at once.
const CONCURRENCY: usize = 8;

/// Reads `own`, then `shared`; writes to both.
#[derive(Debug, Clone)]
pub struct Shared {
    own: Arc<dyn BlobStore>,
    shared: Arc<dyn BlobStore>,
    touched: Arc<Mutex<HashMap<Digest, Instant>>>,
    touching: Arc<AtomicBool>,
}

impl Shared {
    /// Puts `own` over `shared`.
    pub fn new(own: Arc<dyn BlobStore>, shared: Arc<dyn BlobStore>) -> Self {
        Self { own, shared, touched: Arc::default(), touching: Arc::default() }
    }

    /// Sees to it that these blobs are in the shared store, as far as it takes them: what was evicted there is copied from here.
    ///
    /// # Errors
    /// Where the shared store fails, so that trying again later may help.
    pub async fn share(&self, digests: &[Digest]) -> Result<(), Error> {
        let missing = self.shared.find_missing(digests).await?;
        let copies = stream::iter(missing).map(|digest| async move {
            match copy(&*self.own, &*self.shared, &digest).await {
                Err(error @ (Error::TooLarge { .. } | Error::NotFound { .. })) => {
                    tracing::debug!(%digest, %error, "a blob is not shared");
                    Ok(())
                }
                result => result,
            }
        });
        copies.buffer_unordered(CONCURRENCY).try_collect().await
    }

    /// Extends the shared life of blobs that are here, in the background and not more often than [`TOUCH_EVERY`].
    fn touch(&self, here: impl Iterator<Item = Digest>) {
        if self.touching.load(Ordering::Acquire) {
            return;
        }
        let now = Instant::now();
        let due: Vec<Digest> = {
            let mut touched = self.touched.lock();
            let due: Vec<Digest> = here
                .filter(|digest| touched.get(digest).is_none_or(|last| now.duration_since(*last) > TOUCH_EVERY))
                .collect();
            if touched.len() + due.len() > REMEMBERED {
                touched.clear();
            }
            touched.extend(due.iter().map(|digest| (*digest, now)));
            due
        };
        if due.is_empty() || self.touching.swap(true, Ordering::AcqRel) {
            return;
        }
        let (shared, touching) = (self.shared.clone(), self.touching.clone());
        tokio::spawn(async move {
            let _ = shared.find_missing(&due).await;
            touching.store(false, Ordering::Release);
        });
    }

    fn written(&self, digest: &Digest, result: Result<(), Error>) {
        match result {
            Ok(()) => {
                self.touched.lock().insert(*digest, Instant::now());
            }
            Err(error) => tracing::debug!(%digest, %error, "a blob is not shared"),
        }
    }
}

/// What the shared store fails at is absent.
fn absent(digest: &Digest, error: Error) -> Error {
    match error {
        Error::OutOfRange { .. } | Error::NotFound { .. } => error,
        other => {
            tracing::debug!(%digest, error = %other, "the shared store failed; the blob counts as absent");
            Error::NotFound { digest: *digest }
        }
    }
}

#[async_trait]
impl BlobStore for Shared {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let absent_here = self.own.find_missing(digests).await?;
        if absent_here.len() < digests.len() {
            let absent: std::collections::HashSet<&Digest> = absent_here.iter().collect();
            self.touch(digests.iter().filter(|digest| !absent.contains(digest)).copied());
        }
        if absent_here.is_empty() {
            return Ok(absent_here);
        }
        match self.shared.find_missing(&absent_here).await {
            Ok(missing) => Ok(missing),
            Err(_) => Ok(absent_here),
        }
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        match self.own.get(digest).await {
            Err(error) if error.is_absent() => self.shared.get(digest).await.map_err(|error| absent(digest, error)),
            found => found,
        }
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
        let mut found = self.own.get_many(digests).await;
        let is_absent = |result: &Result<Bytes, Error>| result.as_ref().is_err_and(Error::is_absent);
        let places: Vec<usize> = (0..found.len()).filter(|at| is_absent(&found[*at])).collect();
        let wanted: Vec<Digest> = places.iter().map(|at| digests[*at]).collect();
        if !wanted.is_empty() {
            let shared = self.shared.get_many(&wanted).await;
            for ((at, digest), result) in places.into_iter().zip(&wanted).zip(shared) {
                found[at] = result.map_err(|error| absent(digest, error));
            }
        }
        found
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        match self.own.read(digest, offset, limit).await {
            Err(error) if error.is_absent() => {
                self.shared.read(digest, offset, limit).await.map_err(|error| absent(digest, error))
            }
            found => found,
        }
    }

    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        self.own.put(digest, data.clone()).await?;
        let shared = self.shared.put(digest, data).await;
        self.written(digest, shared);
        Ok(())
    }

    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
        let own = self.own.write(digest).await?;
        Ok(Box::new(Writer { own, store: self.clone(), digest: *digest }))
    }

    fn bytes(&self) -> u64 {
        self.own.bytes()
    }

    fn capacity(&self) -> u64 {
        self.own.capacity()
    }
}

/// Writes to the own store, and copies to the shared one when the blob is whole and checked.
struct Writer {
    own: Box<dyn BlobWriter>,
    store: Shared,
    digest: Digest,
}

#[async_trait]
impl BlobWriter for Writer {
    async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        self.own.write(data).await
    }

    async fn commit(self: Box<Self>) -> Result<(), Error> {
        self.own.commit().await?;
        let shared = copy(&*self.store.own, &*self.store.shared, &self.digest).await;
        self.store.written(&self.digest, shared);
        Ok(())
    }
}
