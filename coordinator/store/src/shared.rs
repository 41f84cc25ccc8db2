//! Decorator: combines this coordinator's own store with one that all coordinators share.
//!
//! Writes go to both stores, so that others find the blob through any coordinator, and builds continue when the shared
//! store is unavailable. Reads try the own store first. Invariant: no failure of the shared store reaches a caller: a
//! read that fails there counts as a miss, and a write that fails there is only not shared.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::digest::Digest;
use parking_lot::Mutex;

use super::clock::{Clock, Stamp, millis};
use super::{BlobStore, BlobStream, BlobWriter, Error, copy};

/// Interval at which the shared lifetime of a blob in the own store is extended, unless lifetimes are short.
const TOUCH_EVERY: Duration = Duration::from_secs(60 * 60);
/// Maximum number of blobs with a remembered touch, and of blobs waiting for one.
const REMEMBERED: usize = 400_000;
/// Blobs touched at once.
const TOUCHES: usize = 4_096;
/// Blobs shared at once.
const CONCURRENCY: usize = 8;

/// Reads `own`, then `shared`; writes to both.
#[derive(Debug, Clone)]
pub struct Shared {
    own: Arc<dyn BlobStore>,
    shared: Arc<dyn BlobStore>,
    clock: Clock,
    /// Minimum milliseconds between two touches of a blob.
    touch_every: u64,
    touches: Arc<Mutex<Touches>>,
    /// Held by the task that touches.
    touching: Arc<tokio::sync::Mutex<()>>,
}

/// Blobs whose shared lifetime was extended recently, and blobs waiting for that.
#[derive(Debug, Default)]
struct Touches {
    last: HashMap<Digest, Stamp>,
    due: HashSet<Digest>,
}

impl Shared {
    /// Combines `own` and `shared`, in which unused blobs expire after `life`.
    pub fn new(own: Arc<dyn BlobStore>, shared: Arc<dyn BlobStore>, life: Duration, clock: Clock) -> Self {
        let touch_every = millis(TOUCH_EVERY.min(life / 4));
        Self { own, shared, clock, touch_every, touches: Arc::default(), touching: Arc::default() }
    }

    /// Ensures that these blobs are in the shared store, unless it rejects them: blobs that were evicted there are
    /// copied from here.
    ///
    /// # Errors
    /// If the shared store fails, so that a retry may help.
    pub async fn share(&self, digests: &[Digest]) -> Result<(), Error> {
        let missing = self.shared.find_missing(digests).await?;
        let copies = stream::iter(missing).map(|digest| async move {
            match copy(&*self.own, &*self.shared, &digest).await {
                Err(error @ (Error::TooLarge { .. } | Error::NotFound { .. })) => {
                    tracing::debug!(%digest, %error, "cannot share a blob");
                    Ok(())
                }
                result => result,
            }
        });
        copies.buffer_unordered(CONCURRENCY).try_collect().await
    }

    /// Extends the shared lifetime of blobs in the own store, in the background and at most once per [`TOUCH_EVERY`].
    fn touch(&self, here: impl Iterator<Item = Digest>) {
        let now = self.clock.now();
        {
            let Touches { last, due } = &mut *self.touches.lock();
            let before = now.saturating_sub(self.touch_every);
            let room = REMEMBERED.saturating_sub(due.len());
            due.extend(here.filter(|digest| last.get(digest).is_none_or(|last| *last < before)).take(room));
            if due.is_empty() {
                return;
            }
        }
        // The task that touches continues until nothing is due.
        if self.touching.try_lock().is_ok() {
            let store = self.clone();
            tokio::spawn(async move { store.settle().await });
        }
    }

    /// Extends the lifetimes that are due. If the shared store fails, they stay due.
    pub(super) async fn settle(&self) {
        let _one = self.touching.lock().await;
        loop {
            let now = self.clock.now();
            let some: Vec<Digest> = {
                let mut touches = self.touches.lock();
                let some: Vec<Digest> = touches.due.iter().take(TOUCHES).copied().collect();
                some.iter().for_each(|digest| {
                    touches.due.remove(digest);
                });
                some
            };
            if some.is_empty() {
                return;
            }
            let failed = self.shared.find_missing(&some).await.is_err();
            let mut touches = self.touches.lock();
            if failed {
                touches.due.extend(some);
                return;
            }
            touches.remember(some, now);
        }
    }

    fn written(&self, digest: &Digest, result: Result<(), Error>) {
        match result {
            Ok(()) => self.touches.lock().remember(vec![*digest], self.clock.now()),
            Err(error) => tracing::debug!(%digest, %error, "cannot share a blob"),
        }
    }
}

impl Touches {
    fn remember(&mut self, digests: Vec<Digest>, now: Stamp) {
        if self.last.len() + digests.len() > REMEMBERED {
            self.last.clear();
        }
        self.last.extend(digests.into_iter().map(|digest| (digest, now)));
    }
}

/// Treats a failure of the shared store as a missing blob.
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

    async fn put_many(&self, blobs: Vec<(Digest, Bytes)>) -> Vec<Result<(), Error>> {
        let results = self.own.put_many(blobs.clone()).await;
        let (digests, stored): (Vec<Digest>, Vec<_>) = blobs
            .into_iter()
            .zip(&results)
            .filter(|(_, result)| result.is_ok())
            .map(|(blob, _)| (blob.0, blob))
            .unzip();
        for (digest, shared) in digests.iter().zip(self.shared.put_many(stored).await) {
            self.written(digest, shared);
        }
        results
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

/// Writes to the own store, and copies to the shared one when the blob is complete and checked.
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
