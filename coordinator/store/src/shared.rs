//! Decorator: combines this coordinator's own store with one that all coordinators share.
//!
//! Writes go to both stores, so that others find the blob through any coordinator. Reads try the own store first, and keep
//! there what they had to fetch; readers who need the same blob at the same time wait for one fetch.
//!
//! Invariants: coordinators of several farms ([`Bond::Loose`]) depend on nothing that is shared: a read that fails there
//! counts as a miss, and a write that fails there is only not shared. Coordinators of one farm ([`Bond::Firm`]) answer for
//! each other: what one of them acknowledges, or says is there, is in the shared store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
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

/// How long a coordinator of a farm of several relies on what it knows to be in the shared store.
const RELIED_ON: Duration = Duration::from_secs(5 * 60);

/// What the coordinators are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// Each serves a farm of its own, and is better off with what others have.
    Loose,
    /// They serve one farm.
    Firm,
}

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
    bond: Bond,
    /// Blobs that are being fetched.
    fetching: Arc<Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>>,
}

/// Blobs whose shared lifetime was extended recently, and blobs waiting for that.
#[derive(Debug, Default)]
struct Touches {
    last: HashMap<Digest, Stamp>,
    due: HashSet<Digest>,
}

impl Shared {
    /// Combines `own` and `shared`, in which unused blobs expire after `life`.
    pub fn new(own: Arc<dyn BlobStore>, shared: Arc<dyn BlobStore>, life: Duration, clock: Clock, bond: Bond) -> Self {
        let often = if bond == Bond::Firm { RELIED_ON } else { TOUCH_EVERY };
        let touch_every = millis(often.min(life.checked_div(4).unwrap_or_default()));
        let (touches, touching, fetching) = (Arc::default(), Arc::default(), Arc::default());
        Self { own, shared, clock, touch_every, touches, touching, bond, fetching }
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

    /// The end of a write that the own store has, with its result in the shared one.
    fn written(&self, digest: &Digest, result: Result<(), Error>) -> Result<(), Error> {
        match result {
            Ok(()) => self.touches.lock().remember(vec![*digest], self.clock.now()),
            Err(error) if self.bond == Bond::Firm => return Err(error),
            Err(error) => tracing::debug!(%digest, %error, "cannot share a blob"),
        }
        Ok(())
    }

    /// Copies a blob that the own store lacks to it. Whoever asks for the same blob meanwhile waits, and finds it there.
    async fn fetch(&self, digest: &Digest) -> Result<(), Error> {
        let lock = {
            let mut fetching = self.fetching.lock();
            fetching.retain(|_, lock| lock.strong_count() > 0);
            let known = fetching.get(digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                fetching.insert(*digest, Arc::downgrade(&lock));
                lock
            })
        };
        let _one = lock.lock().await;
        if self.own.find_missing(std::slice::from_ref(digest)).await?.is_empty() {
            return Ok(());
        }
        copy(&*self.shared, &*self.own, digest).await?;
        self.fetched(vec![*digest]).await;
        Ok(())
    }

    /// Fetches a blob; `false` if it cannot be kept here, and is there all the same. What is absent is not asked for twice.
    async fn fetch_if_kept(&self, digest: &Digest) -> Result<bool, Error> {
        match self.fetch(digest).await {
            Ok(()) => Ok(true),
            Err(Error::Full { .. } | Error::Crowded { .. } | Error::DiskFull { .. } | Error::Io { .. }) => Ok(false),
            Err(error) => Err(self.absent(digest, error)),
        }
    }

    /// Blobs that were fetched are used, and live on in the shared store.
    async fn fetched(&self, digests: Vec<Digest>) {
        let now = self.clock.now();
        if self.shared.find_missing(&digests).await.is_ok_and(|missing| missing.is_empty()) {
            self.touches.lock().remember(digests, now);
        }
    }

    /// What others of the same farm rely on as well: of these blobs, which the own store has, those that the shared one lacks
    /// and cannot be given.
    async fn not_shared(&self, here: Vec<Digest>) -> Result<Vec<Digest>, Error> {
        let before = self.clock.now().saturating_sub(self.touch_every);
        let unknown: Vec<Digest> = {
            let touches = self.touches.lock();
            here.into_iter().filter(|digest| touches.last.get(digest).is_none_or(|last| *last < before)).collect()
        };
        if unknown.is_empty() {
            return Ok(unknown);
        }
        self.share(&unknown).await?;
        let missing: HashSet<Digest> = self.shared.find_missing(&unknown).await?.into_iter().collect();
        let (missing, shared): (Vec<Digest>, Vec<Digest>) =
            unknown.into_iter().partition(|digest| missing.contains(digest));
        self.touches.lock().remember(shared, self.clock.now());
        Ok(missing)
    }
}

impl Shared {
    /// Treats a failure of the shared store as a missing blob, unless others of the farm may have it.
    fn absent(&self, digest: &Digest, error: Error) -> Error {
        match error {
            Error::OutOfRange { .. } | Error::NotFound { .. } => error,
            other if self.bond == Bond::Firm => other,
            other => {
                tracing::debug!(%digest, error = %other, "the shared store failed; the blob counts as absent");
                Error::NotFound { digest: *digest }
            }
        }
    }
}

impl Touches {
    fn remember(&mut self, digests: Vec<Digest>, now: Stamp) {
        if self.last.len().saturating_add(digests.len()) > REMEMBERED {
            self.last.clear();
        }
        self.last.extend(digests.into_iter().map(|digest| (digest, now)));
    }
}

#[async_trait]
impl BlobStore for Shared {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let absent_here = self.own.find_missing(digests).await?;
        let mut missing = Vec::new();
        if absent_here.len() < digests.len() {
            let absent: HashSet<&Digest> = absent_here.iter().collect();
            let here = digests.iter().filter(|digest| !absent.contains(digest)).copied();
            match self.bond {
                Bond::Loose => self.touch(here),
                Bond::Firm => missing = self.not_shared(here.collect()).await?,
            }
        }
        if absent_here.is_empty() {
            return Ok(missing);
        }
        match self.shared.find_missing(&absent_here).await {
            Ok(absent) => missing.extend(absent),
            Err(error) if self.bond == Bond::Firm => return Err(error),
            Err(_) => missing.extend(absent_here),
        }
        Ok(missing)
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        match self.own.get(digest).await {
            Err(error) if error.is_absent() => {}
            found => return found,
        }
        if self.fetch_if_kept(digest).await?
            && let Ok(found) = self.own.get(digest).await
        {
            return Ok(found);
        }
        self.shared.get(digest).await.map_err(|error| self.absent(digest, error))
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
        let mut found = self.own.get_many(digests).await;
        let is_absent = |result: &Result<Bytes, Error>| result.as_ref().is_err_and(Error::is_absent);
        let absent = found.iter().zip(digests).filter(|(found, _)| is_absent(found));
        let wanted: Vec<Digest> = absent.map(|(_, digest)| *digest).collect();
        if !wanted.is_empty() {
            let shared = self.shared.get_many(&wanted).await;
            let fetched =
                wanted.iter().zip(&shared).filter_map(|(digest, data)| Some((*digest, data.as_ref().ok()?.clone())));
            let fetched: Vec<(Digest, Bytes)> = fetched.collect();
            let used = fetched.iter().map(|(digest, _)| *digest).collect();
            for result in self.own.put_many(fetched).await {
                result.unwrap_or_else(|error| tracing::debug!(%error, "cannot keep a blob that was fetched"));
            }
            self.fetched(used).await;
            let missing = found.iter_mut().filter(|result| is_absent(result));
            for ((one, digest), result) in missing.zip(&wanted).zip(shared) {
                *one = result.map_err(|error| self.absent(digest, error));
            }
        }
        found
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        match self.own.read(digest, offset, limit).await {
            Err(error) if error.is_absent() => {}
            found => return found,
        }
        if self.fetch_if_kept(digest).await?
            && let Ok(found) = self.own.read(digest, offset, limit).await
        {
            return Ok(found);
        }
        self.shared.read(digest, offset, limit).await.map_err(|error| self.absent(digest, error))
    }

    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        self.own.put(digest, data.clone()).await?;
        let shared = self.shared.put(digest, data).await;
        self.written(digest, shared)
    }

    async fn put_many(&self, blobs: Vec<(Digest, Bytes)>) -> Vec<Result<(), Error>> {
        let mut results = self.own.put_many(blobs.clone()).await;
        let (kept, stored): (Vec<&mut Result<(), Error>>, Vec<_>) =
            results.iter_mut().zip(blobs).filter(|(result, _)| result.is_ok()).unzip();
        let digests: Vec<Digest> = stored.iter().map(|blob| blob.0).collect();
        for ((result, digest), shared) in kept.into_iter().zip(&digests).zip(self.shared.put_many(stored).await) {
            *result = self.written(digest, shared);
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
        self.store.written(&self.digest, shared)
    }
}
