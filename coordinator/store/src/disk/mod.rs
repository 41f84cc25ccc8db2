//! Blobs as files: `{sha256,blake3}/{first byte of the hash}/{hash}-{size}`, written in `tmp/` and then renamed. Small
//! blobs are in `packs/` instead, many in a file; a small blob that an earlier version stored stays the file that it is.
//!
//! What a killed process leaves in `tmp/` is removed at the next start; a rename makes a blob visible completely. After
//! a power cut a file may have lost bytes: files of the wrong size are dropped at the start, and any other damage is
//! detected by the first read, because only bytes hashed by this process are served; a file that changed since is hashed
//! again. A `durable` store syncs each blob before the index lists it, and packs none.
//!
//! Invariant: files are added and removed only under the index's lock, so the index lists exactly the existing files. A
//! packed blob is there before the index lists it, and is removed after.

mod batch;
mod bound;
mod budget;
mod collect;
mod read;
mod scan;
mod write;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use kiln_proto::digest::Digest;
use kiln_state::syncs::{self, Kernel, Syncs};
use parking_lot::{Mutex, MutexGuard};

pub use self::budget::Budget;
pub(crate) use self::collect::Unused;
use super::clock::{Clock, Stamp};
use super::floor::Floor;
use super::in_use::InUse;
use super::{BlobStore, BlobStream, BlobWriter, Error};
use kiln_index::{Evicted, Full, Index, Known, Located, Which};
use kiln_packs::{Packs, Place};
pub use kiln_units::Bound;

/// Bytes per read of a blob, and the maximum size of a stream's pieces.
pub const CHUNK_BYTES: usize = 1024 * 1024;

/// Default for the size of the largest blobs that are packed, in bytes.
pub const PACKED_BYTES: u64 = 64 * 1024;

/// Location and limits of a store.
#[derive(Debug, Clone)]
pub struct Config {
    /// The store's own directory.
    pub dir: PathBuf,
    /// Maximum bytes of blobs; beyond that, blobs that no result names are evicted first, then the oldest results with
    /// their blobs.
    pub capacity: Bound,
    /// The common limit with other stores.
    pub budget: Option<Budget>,
    /// Blobs of at most this many bytes are packed, unless the store is durable.
    pub packed_bytes: u64,
    /// What syncs a blob to disk before its write completes; `None` if blobs are not synced.
    pub durable: Option<Arc<dyn Syncs>>,
    /// The source of time.
    pub clock: Clock,
    /// What running work keeps.
    pub in_use: InUse,
}

/// Blobs in a directory on one disk.
#[derive(Debug, Clone)]
pub struct Disk {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    tmp: PathBuf,
    durable: Option<Arc<dyn Syncs>>,
    index: Mutex<Index>,
    packs: Packs,
    packed_bytes: u64,
    evictions: AtomicU64,
    clock: Clock,
    in_use: InUse,
    /// Raised before a named blob is removed.
    floor: Floor,
    took_named: AtomicBool,
    budget: Option<Budget>,
    _lock: File,
}

impl Disk {
    /// Everything in it.
    pub(crate) fn all(&self) -> Vec<Digest> {
        self.inner.index.lock().all().into_iter().map(|(digest, ..)| digest).collect()
    }

    /// Opens a store and lists its contents; creates it if missing. Blocks.
    pub fn open(config: Config) -> Result<Self, Error> {
        let Config { dir, capacity, budget, packed_bytes, durable, clock, in_use } = config;
        let packed_bytes = if durable.is_some() { 0 } else { packed_bytes.min(CHUNK_BYTES as u64) };
        let tmp = dir.join("tmp");
        let syncs = durable.as_deref().unwrap_or(&Kernel);
        syncs::make_directory(&tmp, syncs).map_err(|source| Error::io("make", &tmp, source))?;
        let lock = lock(&dir.join("lock"))?;
        scan::clear(&tmp)?;
        let floor = Floor::default();
        let limit = |held| match (&budget, capacity) {
            (None, capacity) => bound::bytes(capacity, &dir, held),
            // Without a smaller limit of its own, its blobs are evicted in one common order with all others.
            (Some(budget), capacity) => match (budget.settle(&dir, held), capacity) {
                (together, Bound::Bytes(bytes)) if bytes < together => bytes,
                _ => u64::MAX,
            },
        };
        let (packs, packed) = Packs::open(dir.join("packs"))?;
        let index = Mutex::new(scan::scan(&dir, (&packs, packed), limit, clock.now(), &floor, syncs)?);
        // What a killed process left may not be on the disk yet, and counts as stored from now on.
        if let Some(syncs) = &durable
            && index.lock().bytes() > 0
        {
            syncs.all(&dir).map_err(|source| Error::io("sync", &dir, source))?;
        }
        let (evictions, took_named) = (AtomicU64::new(0), AtomicBool::new(false));
        let inner = Arc::new(Inner {
            dir,
            tmp,
            durable,
            index,
            packs,
            packed_bytes,
            evictions,
            clock,
            in_use,
            floor,
            took_named,
            budget,
            _lock: lock,
        });
        if let Some(budget) = &inner.budget {
            budget.join(&inner);
        }
        Ok(Self { inner })
    }

    /// How full it is in percent, alone or together with those that share its limit.
    pub(super) fn percent(&self) -> u64 {
        let percent =
            |bytes: u64, capacity: u64| bytes.saturating_mul(100).checked_div(capacity.max(1)).unwrap_or_default();
        let alone = percent(self.bytes(), self.capacity());
        let together = self.inner.budget.as_ref().and_then(|budget| Some(percent(budget.bytes(), budget.capacity()?)));
        alone.max(together.unwrap_or_default())
    }

    /// Changes the limit, and evicts what exceeds it.
    pub(super) fn set_capacity(&self, capacity: u64) {
        self.inner.set_capacity(capacity);
    }

    /// Which results may have lost blobs here.
    pub(super) fn floor(&self) -> Floor {
        self.inner.floor.clone()
    }
}

/// Locks the store for this process; the kernel releases the lock when the process ends in any way.
fn lock(path: &Path) -> Result<File, Error> {
    let file = File::create(path).map_err(|source| Error::io("make", path, source))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked { path: path.to_owned() }),
        Err(error) => Err(Error::io("lock", path, error.into())),
    }
}

/// Runs blocking work outside the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Closed),
    }
}

/// The path of a blob's file in the store at `dir`.
fn path_in(dir: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    let name = format!("{hex}-{}", digest.size);
    dir.join(digest.function.name()).join(hex.get(..2).unwrap_or_default()).join(name)
}

impl Inner {
    fn path(&self, digest: &Digest) -> PathBuf {
        path_in(&self.dir, digest)
    }

    /// Reserves bytes for a write, and evicts what is needed least.
    fn reserve(&self, bytes: u64) -> Result<(), Error> {
        let kept_from = self.in_use.kept_from();
        let mut index = self.index.lock();
        let capacity = index.capacity();
        let evicted = index.reserve(bytes, kept_from).map_err(|Full { writing }| Error::Full {
            needed: bytes,
            capacity,
            writing,
        })?;
        self.drop_evicted(index, evicted);
        self.settle_overhead(kept_from);
        match self.budget.as_ref().map_or(Ok(()), |budget| budget.admit(self, bytes)) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.release(bytes);
                Err(error)
            }
        }
    }

    /// Evicts more if the blocks of packs that could not be given back exceed the limit.
    fn settle_overhead(&self, kept_from: Stamp) {
        loop {
            let mut index = self.index.lock();
            let capacity = index.capacity();
            let evicted = index.set_capacity(capacity, kept_from);
            if evicted.blobs.is_empty() {
                return;
            }
            self.drop_evicted(index, evicted);
        }
    }

    /// Evicts the first of these blobs.
    fn evict_first(&self, which: Which, before: Stamp) {
        let mut index = self.index.lock();
        let mut evicted = Evicted::default();
        index.evict_first(which, before, &mut evicted);
        index.tell();
        self.drop_evicted(index, evicted);
    }

    /// Removes the files of evicted blobs. The floor is raised before others can see that they are gone.
    fn drop_evicted(&self, index: MutexGuard<'_, Index>, evicted: Evicted) {
        if let Some(until) = evicted.named_until {
            self.floor.raise(until);
            self.took_named.store(true, Ordering::Release);
        }
        self.discard(index, &evicted.blobs);
    }

    /// Removes blobs that the index no longer lists.
    fn discard(&self, mut index: MutexGuard<'_, Index>, gone: &[Located]) {
        let doomed = self.move_away(&mut index, gone);
        drop(index);
        remove(&doomed);
        let packed: Vec<(Digest, Place)> = gone.iter().filter_map(|gone| Some((gone.digest, gone.place?))).collect();
        self.free_packed(&packed);
    }

    /// Removes blobs from packs. What these take then is counted.
    fn free_packed(&self, packed: &[(Digest, Place)]) {
        if !packed.is_empty() {
            self.packs.free(packed);
            self.count_overhead();
        }
    }

    fn count_overhead(&self) {
        let mut index = self.index.lock();
        // Under the lock, so that an older sum never replaces a newer one.
        let overhead = self.packs.overhead();
        index.set_overhead(overhead);
    }

    fn set_capacity(&self, capacity: u64) {
        let kept_from = self.in_use.kept_from();
        let mut index = self.index.lock();
        if index.capacity() == capacity {
            return;
        }
        let evicted = index.set_capacity(capacity, kept_from);
        self.drop_evicted(index, evicted);
    }

    fn release(&self, bytes: u64) {
        self.index.lock().release(bytes);
    }

    /// Drops this exact copy of a blob, because it is damaged or missing; `false` if it was no longer listed.
    fn drop_blob(&self, digest: &Digest, known: Known) -> bool {
        let mut index = self.index.lock();
        let here = index.remove(digest, known.born);
        if here {
            self.discard(index, &[Located { digest: *digest, place: known.place }]);
        }
        here
    }

    /// Moves files out of sight: a rename is fast, while freeing a large file's blocks is not. The lock is held.
    fn move_away(&self, _index: &mut MutexGuard<'_, Index>, gone: &[Located]) -> Vec<PathBuf> {
        let away = |digest: &Digest| {
            let count = self.evictions.fetch_add(1, Ordering::Relaxed);
            let to = self.tmp.join(format!("evicted-{count}"));
            match std::fs::rename(self.path(digest), &to) {
                Ok(()) => Some(to),
                Err(error) => {
                    if error.kind() != io::ErrorKind::NotFound {
                        tracing::warn!(%digest, %error, "cannot evict a blob");
                    }
                    None
                }
            }
        };
        gone.iter().filter(|gone| gone.place.is_none()).filter_map(|gone| away(&gone.digest)).collect()
    }
}

fn remove(paths: &[PathBuf]) {
    for path in paths {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove an evicted blob; the next start will");
        }
    }
}

#[async_trait]
impl BlobStore for Disk {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let now = self.inner.clock.now();
        let (mut missing, mut unsaved) = (Vec::new(), Vec::new());
        let mut index = self.inner.index.lock();
        for digest in digests {
            match index.touch(digest, now) {
                None => missing.push(*digest),
                Some(known) if known.unsaved => unsaved.push(Located { digest: *digest, place: known.place }),
                Some(_) => {}
            }
        }
        drop(index);
        self.inner.save(unsaved, now);
        Ok(missing)
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        if let Some(found) = self.inner.get_now(digest) {
            return found;
        }
        let (inner, digest) = (self.inner.clone(), *digest);
        blocking(move || inner.get(&digest)).await
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
        let (inner, wanted) = (self.inner.clone(), digests.to_vec());
        match tokio::task::spawn_blocking(move || inner.get_many(&wanted)).await {
            Ok(found) => found,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => digests.iter().map(|_| Err(Error::Closed)).collect(),
        }
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        let (inner, digest) = (self.inner.clone(), *digest);
        let size = digest.size;
        let left = size.checked_sub(offset).ok_or(Error::OutOfRange { digest, offset })?;
        let wanted = limit.map_or(left, |limit| left.min(limit));
        if (wanted == size && size <= CHUNK_BYTES as u64) || self.inner.is_packed(&digest) {
            let data = self.get(&digest).await?;
            let data = data.slice(offset as usize..offset.saturating_add(wanted) as usize);
            return Ok(stream::iter((!data.is_empty()).then_some(Ok(data))).boxed());
        }
        let reader = blocking(move || inner.reader(&digest, offset, wanted)).await?;
        Ok(read::stream(reader))
    }

    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        let (inner, digest) = (self.inner.clone(), *digest);
        blocking(move || write::put(&inner, &digest, data)).await
    }

    async fn put_many(&self, blobs: Vec<(Digest, Bytes)>) -> Vec<Result<(), Error>> {
        let (inner, count) = (self.inner.clone(), blobs.len());
        match tokio::task::spawn_blocking(move || inner.put_many(blobs)).await {
            Ok(results) => results,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => (0..count).map(|_| Err(Error::Closed)).collect(),
        }
    }

    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
        let capacity = self.capacity();
        if digest.size > capacity {
            return Err(Error::Full { needed: digest.size, capacity, writing: 0 });
        }
        if self.inner.packs_size(digest.size) {
            return Ok(Box::new(batch::SmallWriter::new(self.inner.clone(), *digest)));
        }
        Ok(Box::new(write::FileWriter::new(self.inner.clone(), *digest)))
    }

    fn bytes(&self) -> u64 {
        self.inner.index.lock().bytes()
    }

    fn capacity(&self) -> u64 {
        let together = self.inner.budget.as_ref().and_then(Budget::capacity);
        self.inner.index.lock().capacity().min(together.unwrap_or(u64::MAX))
    }
}
