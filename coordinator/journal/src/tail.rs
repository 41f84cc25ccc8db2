//! How far a stream has come.
//!
//! Readers are shown entries as soon as they are committed, which may be before they are synced. A crash then loses entries that a reader
//! has seen, and a reader that comes back asks for what follows them. Therefore a stream never gets more than [`WINDOW`] positions ahead of
//! the disk, and after a start it continues so far beyond its last entry, and beyond where it continued after an earlier start: no position
//! is ever given out twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

/// How many positions of a stream may be shown before they are synced.
pub const WINDOW: u64 = 1 << 16;

/// How far a stream has come.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) name: Arc<str>,
    pub(crate) next: Mutex<u64>,
    pub(crate) committed: watch::Sender<u64>,
    synced: AtomicU64,
}

impl Tail {
    pub(crate) fn new(name: &str, next: u64) -> Arc<Self> {
        let (committed, synced) = (watch::Sender::new(next), AtomicU64::new(next));
        Arc::new(Self { name: name.into(), next: Mutex::new(next), committed, synced })
    }

    /// Entries before `end` can be read.
    pub(crate) fn commit(&self, end: u64) {
        self.committed.send_replace(end);
    }

    /// Entries before `end` are on the disk.
    pub(crate) fn sync(&self, end: u64) {
        self.synced.fetch_max(end, Ordering::Relaxed);
    }

    /// Whether entries before `end` may be shown only when they are on the disk.
    pub(crate) fn is_ahead(&self, end: u64) -> bool {
        end > self.synced.load(Ordering::Relaxed).saturating_add(WINDOW)
    }
}
