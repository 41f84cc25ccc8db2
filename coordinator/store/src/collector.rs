//! Garbage collection: removes what has not been used for long, and marks the blobs that results name.
//!
//! A collection first removes results that were not used within the configured lifetime, then blobs. This needs no list
//! of live blobs: using a result uses every blob that it names, so a blob's last use is never before that of a result
//! that names it. Marking only decides what is evicted first when the disk is full, and is skipped while there is room.
//!
//! Safe while builds run: [`super::in_use`] determines what they keep. If it is killed at any point, a collection has
//! only removed things that were due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::clock::Clock;
use super::disk::{Disk, Unused};
use super::s3::S3Blobs;
use super::{Error, RedbActions, Shared, Swept, Usage, whole};

/// Results read at a time while marking.
const PAGE: usize = 256;
/// Results are marked when the disk is at least this full, relative to its bound.
const MARK_FROM_PERCENT: u64 = 75;
/// How often uses are saved, and how often the disk may request a marking because it ran out of unnamed blobs.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Delay before the first collection, unless the interval is shorter.
const FIRST: Duration = Duration::from_secs(60);
/// Minimum interval between listings of the bucket: a listing costs a request per thousand objects.
const BUCKET_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of results.
    pub results: u64,
    /// Blobs on disk.
    pub disk: Swept,
    /// Blobs in the bucket.
    pub bucket: Swept,
    /// Number of marked results; `None` if marking was skipped.
    pub marked: Option<u64>,
}

/// Collects garbage in one coordinator's stores. Two collections never run at once.
#[derive(Debug)]
pub struct Collector {
    pub(super) results: Arc<RedbActions>,
    pub(super) disk: Disk,
    pub(super) usage: Option<Usage>,
    pub(super) shared: Option<Shared>,
    pub(super) bucket: Option<S3Blobs>,
    pub(super) life: Duration,
    pub(super) clock: Clock,
    pub(super) done: Done,
}

/// So long from now; now, if no clock goes so far.
fn soon(wait: Duration) -> tokio::time::Instant {
    let now = tokio::time::Instant::now();
    now.checked_add(wait).unwrap_or(now)
}

/// When each task was last done.
#[derive(Debug, Default)]
pub(super) struct Done {
    running: tokio::sync::Mutex<()>,
    marked: Mutex<Option<Instant>>,
    /// By the store's clock, so that it works with simulated time.
    bucket: Mutex<Option<u64>>,
}

impl Collector {
    /// Collects periodically, forever, and logs what was removed.
    pub async fn run(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval_at(soon(every.min(FIRST)), every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.collect_and_tell().await,
                _ = looks.tick() => self.look().await,
            }
        }
    }

    /// Does what is due between collections.
    async fn look(&self) {
        self.results.write_uses();
        if let Some(usage) = &self.usage {
            usage.look().await;
        }
        if self.disk.took_named() {
            let _one = self.done.running.lock().await;
            if let Err(error) = self.mark().await {
                tracing::warn!(%error, "cannot mark the blobs that results name; evicting by age alone");
            }
        }
    }

    async fn collect_and_tell(&self) {
        let began = Instant::now();
        match self.collect().await {
            Ok(report) => {
                let duration_ms = began.elapsed().as_millis() as u64;
                tracing::info!(
                    bytes = report.disk.bytes,
                    blobs = report.disk.blobs,
                    results = report.results,
                    bucket_bytes = report.bucket.bytes,
                    bucket_blobs = report.bucket.blobs,
                    marked = report.marked,
                    duration_ms,
                    "collected unused results and blobs"
                );
            }
            Err(error) => tracing::warn!(%error, "a collection ended early; the next one continues"),
        }
    }

    /// Runs one collection.
    ///
    /// # Errors
    /// If a store fails. Removals up to then stand; the next collection removes the rest.
    pub async fn collect(&self) -> Result<Report, Error> {
        let _one = self.done.running.lock().await;
        let before = self.clock.ago(self.life);
        let mut report = Report { results: self.results.expire(before).await?, ..Report::default() };
        let first = self.done.marked.lock().is_none();
        let fills = self.disk.percent() >= MARK_FROM_PERCENT;
        if first || fills || self.disk.took_named() {
            report.marked = Some(self.mark().await?);
        }
        report.disk = self.disk.sweep(before).await?;
        if let Some(shared) = &self.shared {
            shared.settle().await;
        }
        if let (Some(bucket), true) = (&self.bucket, self.bucket_is_due()) {
            report.bucket = bucket.sweep().await?;
            *self.done.bucket.lock() = Some(self.clock.now());
        }
        Ok(report)
    }

    /// The blobs that a result names; empty if some of them are gone already.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn named_by(&self, action: &Digest, result: &reapi::ActionResult) -> Result<Vec<Digest>, Error> {
        Ok(whole::named_by(Unused(&self.disk), action.function, result).await?.unwrap_or_default())
    }

    /// Removes those of these blobs that no result names any more and that running work does not use. The caller must
    /// already have removed the results that named them.
    ///
    /// # Errors
    /// If a store fails. Removals up to then stand.
    pub async fn free(&self, candidates: Vec<Digest>) -> Result<Swept, Error> {
        let _one = self.done.running.lock().await;
        self.mark().await?;
        self.disk.free(candidates).await
    }

    fn bucket_is_due(&self) -> bool {
        let every = BUCKET_EVERY.min(self.life.checked_div(8).unwrap_or_default());
        self.done.bucket.lock().is_none_or(|last| last <= self.clock.ago(every))
    }

    /// Marks the blobs that results name; returns the number of results. Results that are put meanwhile mark their own
    /// blobs.
    async fn mark(&self) -> Result<u64, Error> {
        self.disk.begin_marking();
        let (mut count, mut after) = (0_u64, None);
        loop {
            let page = self.results.page(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.place);
            count = count.saturating_add(page.len() as u64);
            for entry in page {
                let function: DigestFunction = entry.action.function;
                let named = whole::named_by(Unused(&self.disk), function, &entry.result).await?;
                self.disk.name(&named.unwrap_or_default(), entry.used());
            }
        }
        self.disk.end_marking();
        *self.done.marked.lock() = Some(Instant::now());
        Ok(count)
    }
}
