//! Garbage collection: what nobody used for long goes, and what results name is told apart from what they do not.
//!
//! A collection takes results away that were not used for the configured life, then blobs. No list of what is live is needed for
//! that: whoever uses a result uses every blob that it names, so a blob is never older than a result that names it. Marking all that
//! results name only decides what goes first when the disk is full, and is left out while it is not.
//!
//! Safe beside running builds: [`super::in_use`] says what they keep. Killed at any point, a collection has only removed things that
//! were to go.

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

/// Results that are read at once while they are marked.
const PAGE: usize = 256;
/// From this share of the disk's bound on, results are marked.
const MARK_FROM_PERCENT: u64 = 75;
/// How often uses are written down, and the disk may ask for a marking because it ran out of what no result names.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// When the first collection begins, where the interval is not shorter.
const FIRST: Duration = Duration::from_secs(60);
/// The bucket is listed at least so rarely: a listing costs a request for every thousand objects.
const BUCKET_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Results.
    pub results: u64,
    /// Blobs of the disk.
    pub disk: Swept,
    /// Blobs of the bucket.
    pub bucket: Swept,
    /// Results that were marked; none where the disk has room.
    pub marked: Option<u64>,
}

/// Collects on one coordinator's stores. Two collections never run at once.
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

/// What was done when.
#[derive(Debug, Default)]
pub(super) struct Done {
    running: tokio::sync::Mutex<()>,
    marked: Mutex<Option<Instant>>,
    /// By the store's clock, so that a test's days count.
    bucket: Mutex<Option<u64>>,
}

impl Collector {
    /// Collects every so often, for ever; says what went.
    pub async fn run(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + every.min(FIRST), every);
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

    /// What is due between collections.
    async fn look(&self) {
        self.results.write_uses();
        if let Some(usage) = &self.usage {
            usage.look().await;
        }
        if self.disk.took_named() {
            let _one = self.done.running.lock().await;
            if let Err(error) = self.mark().await {
                tracing::warn!(%error, "cannot mark what results name; the disk makes room by age alone");
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

    /// Collects once.
    ///
    /// # Errors
    /// Where a store fails. What was removed by then stays so; the next collection removes the rest.
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

    /// The blobs that a result names; none where some of them are gone already.
    ///
    /// # Errors
    /// Where the disk fails.
    pub async fn named_by(&self, action: &Digest, result: &reapi::ActionResult) -> Result<Vec<Digest>, Error> {
        Ok(whole::named_by(Unused(&self.disk), action.function, result).await?.unwrap_or_default())
    }

    /// Removes those of these blobs that no result names any more, and that running work does not use. Whoever calls has removed the
    /// results that named them.
    ///
    /// # Errors
    /// Where a store fails; what was removed by then stays so.
    pub async fn free(&self, candidates: Vec<Digest>) -> Result<Swept, Error> {
        let _one = self.done.running.lock().await;
        self.mark().await?;
        self.disk.free(candidates).await
    }

    fn bucket_is_due(&self) -> bool {
        let every = BUCKET_EVERY.min(self.life / 8);
        self.done.bucket.lock().is_none_or(|last| last <= self.clock.ago(every))
    }

    /// Marks what results name; how many results there are. What is put meanwhile is marked by itself.
    async fn mark(&self) -> Result<u64, Error> {
        self.disk.begin_marking();
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.results.page(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.place);
            count += page.len() as u64;
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
