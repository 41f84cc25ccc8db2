//! The farm's storage: blobs by digest, results by action, and the blobs of artifacts.
//!
//! One small trait for blobs; each additional ability is a decorator in its own file. [`Stores::open`] is the one place
//! where a configuration becomes a tree of stores.
//!
//! Invariant: bytes that leave a store match the digest that was requested, and a blob is visible completely or not at
//! all.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod actions;
mod artifacts_below;
mod believed;
mod breaker;
mod by_size;
mod checked;
mod chunks;
mod clock;
mod collector;
pub mod disk;
mod error;
pub mod files;
mod floor;
mod in_use;
mod metered;
mod nowhere;
mod own_actions;
mod recent;
pub mod recipes;
pub mod redis;
pub mod s3;
mod shared;
mod shared_actions;
mod status;
pub mod trees;
mod usage;
mod whole;
mod with_empty;

use kiln_state::{Distrusted, FarmKey};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::possession::Named;
use kiln_proto::reapi;

use actions::Most;
use own_actions::OwnActions;

pub use self::disk::{Bound, Budget};
pub use actions::RedbActions;
pub use artifacts_below::ArtifactsBelow;
pub use breaker::Health;
pub use by_size::BySize;
pub use chunks::Chunks;
pub use clock::{Clock, Stamp};
pub use collector::{Collector, Report};
pub use error::Error;
pub use in_use::{Hold, InUse};
use kiln_state::syncs::{Kernel, Syncs};
pub use metered::{Metered, MeteredActions, Metrics};
pub use nowhere::Nowhere;
pub use recent::Recent;
pub use shared::{Bond, Shared};
pub use shared_actions::SharedActions;
pub use usage::Usage;
pub use with_empty::WithEmpty;

/// A blob's bytes in pieces of at most [`disk::CHUNK_BYTES`]. An error ends the stream.
pub type BlobStream = BoxStream<'static, Result<Bytes, Error>>;

/// Concurrency of the default `get_many` and `put_many`.
const AT_ONCE: usize = 8;

/// Stores blobs by digest.
#[async_trait]
pub trait BlobStore: Send + Sync + Debug {
    /// Which of these are missing; extends the lifetime of the others.
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error>;

    /// Returns a whole blob, checked against its digest.
    async fn get(&self, digest: &Digest) -> Result<Bytes, Error>;

    /// Returns many small blobs in the same order, each as by [`get`](Self::get). All are in memory at once.
    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
        let gets: Vec<_> = digests.iter().map(|digest| self.get(digest)).collect();
        stream::iter(gets).buffered(AT_ONCE).collect().await
    }

    /// Reads a blob from `offset` on, at most `limit` bytes. A whole blob is checked while it streams, with its last
    /// piece held back until the check is done. A part is only read from a blob that was checked before.
    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error>;

    /// Stores a whole blob after checking its digest. An existing blob is left unchanged.
    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error>;

    /// Stores many small blobs, each as by [`put`](Self::put), and returns the results in the same order. All are in
    /// memory at once.
    async fn put_many(&self, blobs: Vec<(Digest, Bytes)>) -> Vec<Result<(), Error>> {
        let puts: Vec<_> =
            blobs.into_iter().map(|(digest, data)| async move { self.put(&digest, data).await }).collect();
        stream::iter(puts).buffered(AT_ONCE).collect().await
    }

    /// Stores a blob piece by piece.
    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error>;

    /// Bytes stored, including those being written.
    fn bytes(&self) -> u64;

    /// Maximum bytes that the store may hold.
    fn capacity(&self) -> u64;
}

/// A blob being written. Nothing is stored if it is dropped before [`commit`](Self::commit).
#[async_trait]
pub trait BlobWriter: Send {
    /// Appends bytes. If the call is dropped before it completes, nothing was appended.
    async fn write(&mut self, data: Bytes) -> Result<(), Error>;

    /// Checks the digest and makes the blob visible.
    async fn commit(self: Box<Self>) -> Result<(), Error>;
}

/// Stores results by action. Ignores the blobs that a result names: see [`Stores::cached_result`].
#[async_trait]
pub trait ActionStore: Send + Sync + Debug {
    /// The latest result for this action in this instance.
    async fn get(&self, instance: &str, action: &Digest) -> Result<Option<reapi::ActionResult>, Error>;

    /// Stores a result, replacing any earlier one. When this returns, the result survives the process.
    async fn put(&self, instance: &str, action: &Digest, result: reapi::ActionResult) -> Result<(), Error>;

    /// Removes a result, if there is one. Its blobs stay.
    async fn remove(&self, instance: &str, action: &Digest) -> Result<(), Error>;

    /// The action with this hash that has a result in this instance on this coordinator's own disk, for protocols that
    /// name actions without their size.
    async fn by_hash(
        &self,
        _instance: &str,
        _function: DigestFunction,
        _hash: &[u8; 32],
    ) -> Result<Option<Digest>, Error> {
        Ok(None)
    }

    /// Records that a result was used at this time, and all blobs that it names no earlier. Returns at once.
    fn used(&self, _instance: &str, _action: &Digest, _at: Stamp) {}
}

/// Locations and limits of the stores.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory with `blobs/`, `actions.redb` and `artifacts/`; created if missing.
    pub data_dir: PathBuf,
    /// Maximum bytes in `blobs/`; blobs that no result names are evicted first, then the oldest results. Artifacts do
    /// not count.
    pub max_bytes: Bound,
    /// The common limit for the blobs of all tenants, if several share the disk.
    pub budget: Option<Budget>,
    /// All that a tenant holds counts against `max_bytes`: artifacts, results, records and logs too.
    pub counts_all: bool,
    /// Blobs of at most this many bytes share files; 0 stores each in a file of its own, as for a disk on which many
    /// small files cost nothing. Existing blobs stay as they are.
    pub packed_bytes: u64,
    /// Maximum bytes in `artifacts/`; the least recently used are removed beyond that.
    pub artifact_bytes: Bound,
    /// How long unused data is kept.
    pub life: Duration,
    /// A Redis shared by coordinators.
    pub redis: Option<RedisConfig>,
    /// A bucket shared by coordinators: for blobs too large for Redis, or for all blobs without Redis.
    pub s3: Option<s3::Address>,
    /// Another store that coordinators share, in place of these two.
    pub common: Option<Arc<dyn BlobStore>>,
    /// What the coordinators are to each other that share these. Artifacts of a firm bond are in the bucket.
    pub bond: Bond,
    /// The source of time.
    pub clock: Clock,
    /// What syncs artifacts to disk.
    pub syncs: Arc<dyn Syncs>,
    /// Metrics of the stores; `None` if they are not served.
    pub metrics: Option<Metrics>,
    /// The workers whose results do not count.
    pub distrusted: Distrusted,
}

/// What a collection removed from one store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Number of blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Swept {
    /// Counts blobs that were removed.
    fn add(&mut self, gone: impl Iterator<Item = Digest>) {
        for digest in gone {
            self.blobs = self.blobs.saturating_add(1);
            self.bytes = self.bytes.saturating_add(digest.size);
        }
    }
}

/// A Redis as the farm's cache.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Its address.
    pub address: redis::Address,
    /// Prefix of the farm's keys.
    pub prefix: String,
    /// Size limit of blobs stored there, in bytes.
    pub max_blob_bytes: u64,
    /// The key that seals values there; coordinators that share the Redis use the same.
    pub key: FarmKey,
}

impl Config {
    /// Stores on disk only.
    pub fn on_disk(data_dir: PathBuf, max_bytes: impl Into<Bound>) -> Self {
        let max_bytes = max_bytes.into();
        let artifact_bytes = Bound::Bytes(u64::MAX);
        Self {
            data_dir,
            max_bytes,
            budget: None,
            counts_all: false,
            packed_bytes: disk::PACKED_BYTES,
            artifact_bytes,
            life: DEFAULT_LIFE,
            redis: None,
            s3: None,
            common: None,
            bond: Bond::Loose,
            clock: Clock::system(),
            syncs: Arc::new(Kernel),
            metrics: None,
            distrusted: Distrusted::default(),
        }
    }
}

/// Default lifetime of unused data: 30 days.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long artifacts in a bucket are kept: nothing removes them.
const KEPT: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Maximum number of results in the action cache before the oldest are removed.
const MAX_ACTIONS: u64 = 1_000_000;

/// The farm's stores. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stores {
    /// The content-addressed store: bounded; reads fall through to `artifacts`.
    pub blobs: Arc<dyn BlobStore>,
    /// What of it is on this coordinator's own disk, and costs nothing but reading it.
    pub near: Arc<dyn BlobStore>,
    /// The same store, in chunks.
    pub chunks: Arc<Chunks>,
    /// Results as they were put, whether complete or not.
    pub actions: Arc<dyn ActionStore>,
    /// Blobs of accepted artifacts: kept forever unless a limit is configured, and on disk before `put` or `commit`
    /// returns.
    pub artifacts: Arc<dyn BlobStore>,
    /// The connection to Redis, if one is configured.
    pub redis: Option<redis::Link>,
    /// Keeps what running work may need.
    pub in_use: InUse,
    /// Removes unused data.
    pub collector: Arc<Collector>,
    /// Usage of a quota, if there is one.
    pub usage: Option<Usage>,
    metrics: Option<Metrics>,
    /// The workers whose results do not count.
    pub distrusted: Distrusted,
    /// The clock that uses are recorded by.
    pub clock: Clock,
    closures: Arc<whole::Closures>,
}

/// Copies a blob from one store to another, which verifies it.
pub async fn copy(from: &dyn BlobStore, to: &dyn BlobStore, digest: &Digest) -> Result<(), Error> {
    if digest.size <= disk::CHUNK_BYTES as u64 {
        return to.put(digest, from.get(digest).await?).await;
    }
    let mut writer = to.write(digest).await?;
    let mut pieces = from.read(digest, 0, None).await?;
    while let Some(piece) = pieces.next().await {
        writer.write(piece?).await?;
    }
    writer.commit().await
}

/// Copies the artifacts that a coordinator made alone to where all coordinators of its farm have them.
async fn share_artifacts(own: disk::Disk, common: Arc<dyn BlobStore>) {
    let all = own.all();
    let mut failed = 0_u64;
    for some in all.chunks(AT_ONCE) {
        let missing = common.find_missing(some).await.unwrap_or_else(|_| some.to_vec());
        for digest in missing {
            if let Err(error) = copy(&own, &*common, &digest).await {
                tracing::debug!(%digest, %error, "cannot share an artifact's blob");
                failed = failed.saturating_add(1);
            }
        }
    }
    if failed > 0 {
        tracing::warn!(
            failed,
            "some blobs of artifacts that this coordinator made alone are on its disk only; the next start tries again to share them"
        );
    }
}

impl Stores {
    /// The health of each store that is shared with other coordinators, by its name.
    pub fn shared_health(&self) -> Vec<(&'static str, Health)> {
        let redis = self.redis.as_ref().map(|link| ("Redis", link.health().borrow().clone()));
        let bucket = self.collector.bucket.as_ref().map(|bucket| ("bucket", bucket.health()));
        redis.into_iter().chain(bucket).collect()
    }

    /// Opens the stores, and creates missing ones. Blocks while it lists the disk.
    ///
    /// # Errors
    /// If the disk cannot be used, or the address or credentials of a shared store are wrong. A shared store that is
    /// only unavailable is not an error.
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let (clock, life) = (config.clock.clone(), config.life);
        let metered = |name, store| metered::blobs(config.metrics.as_ref(), name, store);
        let in_use = InUse::new(clock.clone());
        let on_disk = |name: &str, capacity, budget, durable| {
            let (clock, in_use, packed_bytes) = (clock.clone(), in_use.clone(), config.packed_bytes);
            let dir = config.data_dir.join(name);
            disk::Disk::open(disk::Config { dir, capacity, budget, packed_bytes, durable, clock, in_use })
        };
        let disk = on_disk("blobs", config.max_bytes, config.budget.clone(), None)?;
        let artifacts = on_disk("artifacts", config.artifact_bytes, None, Some(config.syncs.clone()))?;
        let bucket = match &config.s3 {
            Some(address) => Some(s3::S3Blobs::open(address, life, clock.clone()).await?),
            None => None,
        };
        let redis = match &config.redis {
            Some(found) => Some((redis::Link::open(found.address.clone()).await?, found)),
            None => None,
        };
        let behind = bucket.clone().map(|bucket| metered("s3", Arc::new(bucket)));
        let keys = |found: &RedisConfig| redis::Keys::new(&found.prefix, life, found.key.clone());
        let shared: Option<Arc<dyn BlobStore>> = match &redis {
            None => config.common.clone().or(behind),
            Some((link, found)) => {
                let small = metered("redis", Arc::new(redis::RedisBlobs::new(link.clone(), keys(found))));
                let large = behind.unwrap_or_else(|| Arc::new(Nowhere));
                Some(Arc::new(BySize::new(small, large, found.max_blob_bytes)))
            }
        };
        let own = metered("disk", Arc::new(Recent::new(Arc::new(disk.clone()))));
        let shared = shared.map(|shared| Shared::new(own.clone(), shared, life, clock.clone(), config.bond));
        // Shared data is complete even if this disk has lost blobs of it.
        let floor = if shared.is_some() { floor::Floor::default() } else { disk.floor() };
        let results = config.data_dir.join("actions.redb");
        let quota = config.counts_all.then(|| disk.capacity());
        let most = Most { entries: MAX_ACTIONS, bytes: quota.map_or(u64::MAX, |quota| quota / usage::PART) };
        let results = Arc::new(RedbActions::with_floor(&results, most, clock.clone(), floor)?);
        let usage =
            quota.map(|quota| Usage::new(quota, &config.data_dir, (disk.clone(), artifacts.clone()), results.clone()));
        if let Some(usage) = &usage {
            usage.look().await;
        }
        let collector = Collector {
            results: results.clone(),
            disk: disk.clone(),
            usage: usage.clone(),
            shared: shared.clone(),
            bucket,
            life,
            clock: clock.clone(),
            done: Default::default(),
        };
        let blobs: Arc<dyn BlobStore> = match &shared {
            Some(shared) => Arc::new(shared.clone()),
            None => own.clone(),
        };
        let results = OwnActions::new(results, disk, blobs.clone(), clock.clone(), usage.clone());
        let mut actions = metered::actions(config.metrics.as_ref(), "disk", Arc::new(results));
        if let (Some((link, found)), Some(shared)) = (&redis, shared) {
            let theirs = redis::RedisActions::new(link.clone(), keys(found));
            let theirs = metered::actions(config.metrics.as_ref(), "redis", Arc::new(theirs));
            actions = SharedActions::new(actions, theirs, Arc::new(shared), link.health());
        }
        let actions: Arc<dyn ActionStore> = Arc::new(believed::Believed::new(actions, config.distrusted.clone()));
        let disk_of_artifacts = artifacts.clone();
        let mut artifacts = metered("artifacts", Arc::new(artifacts));
        if config.bond == Bond::Firm {
            let common: Option<Arc<dyn BlobStore>> = match (&config.common, &config.s3) {
                (Some(common), _) => Some(common.clone()),
                (None, Some(address)) => {
                    let bucket = s3::S3Blobs::open(&address.below("artifacts"), KEPT, clock.clone()).await?;
                    Some(metered("s3", Arc::new(bucket)))
                }
                (None, None) => None,
            };
            if let Some(common) = common {
                // Read from the disk as other blobs are; what this coordinator made alone, before it shared a farm, stays readable.
                let shared = Shared::new(own.clone(), common.clone(), KEPT, clock.clone(), config.bond);
                tokio::spawn(share_artifacts(disk_of_artifacts, common));
                artifacts = Arc::new(ArtifactsBelow::new(Arc::new(shared), artifacts));
            }
        }
        let artifacts: Arc<dyn BlobStore> = Arc::new(WithEmpty::new(artifacts));
        let chunks = Arc::new(Chunks::new(Arc::new(ArtifactsBelow::new(blobs, artifacts.clone()))));
        Ok(Self {
            blobs: Arc::new(WithEmpty::new(chunks.clone())),
            near: own,
            chunks,
            actions,
            artifacts,
            redis: redis.map(|(link, _)| link),
            in_use,
            collector: Arc::new(collector),
            usage,
            metrics: config.metrics.clone(),
            distrusted: config.distrusted.clone(),
            clock,
            closures: Arc::default(),
        })
    }

    /// The cached result of an action, if it is complete: every blob it names (files, trees and their contents, root
    /// directories, stdout, stderr) is present, and its lifetime is extended. If the action cache fails, the action
    /// counts as not cached, and the farm continues.
    pub async fn cached_result(&self, instance: &str, action: &Digest) -> Result<Option<reapi::ActionResult>, Error> {
        let result = self.look_up(instance, action).await;
        if let (Some(metrics), Ok(found)) = (&self.metrics, &result) {
            metrics.looked_up(found.is_some());
        }
        result
    }

    /// Every blob that a result names, with those below its trees and directories; none where one of these is not to be had, is no such message,
    /// or is larger than any that the farm takes. The leaves may be absent.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn named_by(&self, named: &Named) -> Result<Option<Vec<Digest>>, Error> {
        whole::named_in(trees::Stored(&*self.blobs), named, Some(&self.closures)).await
    }

    async fn look_up(&self, instance: &str, action: &Digest) -> Result<Option<reapi::ActionResult>, Error> {
        let found = match self.actions.get(instance, action).await {
            Err(error @ (Error::Database { .. } | Error::DiskFull { .. })) => {
                tracing::warn!(%action, %error, "the action cache failed; the action counts as not cached");
                None
            }
            found => found?,
        };
        let Some(result) = found else { return Ok(None) };
        // Taken before the blobs are looked up, which uses them: they are never older than the result.
        let at = self.clock.now();
        if !whole::is_whole(&*self.blobs, &self.closures, action.function, &result).await? {
            return Ok(None);
        }
        self.actions.used(instance, action, at);
        Ok(Some(result))
    }
}
