//! A tenant's usage of its quota: blobs, artifacts, results with their metadata, records of layers and builds, and
//! logs.
//!
//! Invariant: the total stays within the quota, except for what is written between two measurements of logs and
//! records. Cached blobs and results are evicted to make room for the rest. If the rest alone reaches the quota, new
//! builds are refused, because nothing that a user made is dropped without being asked.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::Disk;
use super::{BlobStore, RedbActions};

/// Results may use at most one part in this many of the quota; at least as much is left for blobs, because a build
/// needs some.
pub(super) const PART: u64 = 8;

/// Size of a nearly empty journal, which is not charged to its tenant.
const EMPTY_JOURNAL: u64 = 4 << 20;

/// One tenant's usage. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Usage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    quota: u64,
    data_dir: PathBuf,
    blobs: Disk,
    artifacts: Disk,
    results: Arc<RedbActions>,
    /// Bytes of records and logs, as last measured.
    records: AtomicU64,
}

impl Usage {
    pub(super) fn new(
        quota: u64,
        data_dir: &Path,
        (blobs, artifacts): (Disk, Disk),
        results: Arc<RedbActions>,
    ) -> Self {
        let inner =
            Inner { quota, data_dir: data_dir.to_owned(), blobs, artifacts, results, records: AtomicU64::new(0) };
        Self { inner: Arc::new(inner) }
    }

    /// Bytes used by anything other than cached blobs and results, which can be recreated.
    fn kept(&self) -> u64 {
        self.inner.artifacts.bytes().saturating_add(self.inner.records.load(Ordering::Relaxed))
    }

    /// Reduces the space for blobs by what everything else uses.
    pub fn settle(&self) {
        let beside = self.kept().saturating_add(self.inner.results.bytes());
        let left = self.inner.quota.saturating_sub(beside).max(self.inner.quota / PART);
        self.inner.blobs.set_capacity(left);
    }

    /// Measures records and logs.
    pub(super) async fn look(&self) {
        let directory = self.inner.data_dir.clone();
        let measured = tokio::task::spawn_blocking(move || {
            let journal = std::fs::metadata(directory.join("journal.redb"));
            // The file is longer than what was ever written to it: it grows by doubling.
            journal.map_or(0, |data| data.blocks().saturating_mul(512).saturating_sub(EMPTY_JOURNAL))
        });
        if let Ok(bytes) = measured.await {
            self.inner.records.store(bytes, Ordering::Relaxed);
        }
        self.settle();
    }

    /// Why new builds are refused, if they are.
    pub fn refuses(&self) -> Option<String> {
        let (kept, quota) = (self.kept(), self.inner.quota);
        (kept.saturating_add(quota / PART) > quota).then(|| {
            format!(
                "the tenant's artifacts, records and logs take {} MiB of its quota of {} MiB, which leaves no space to build; ask the \
                 farm's operator to raise `store` in `--quotas`, or to drop old artifacts with `--artifacts-size`",
                kept >> 20,
                quota >> 20
            )
        })
    }
}

/// Total size of the files below a directory; links are not followed.
pub(super) fn measure(directory: &Path) -> u64 {
    let (mut bytes, mut waiting) = (0_u64, vec![directory.to_owned()]);
    while let Some(at) = waiting.pop() {
        for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(data) if data.is_dir() => waiting.push(entry.path()),
                Ok(data) => bytes = bytes.saturating_add(data.len()),
                Err(_) => {}
            }
        }
    }
    bytes
}
