//! The progress of a piece of work in bytes: updated by the work, and read by the display.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes done and bytes to do. Clones share their counts.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    total: AtomicU64,
}

impl Meter {
    /// Starts again with this many bytes to do.
    pub fn restart(&self, total: u64) {
        self.0.done.store(0, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// Adds bytes to do.
    pub fn expect(&self, bytes: u64) {
        self.0.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes done.
    pub fn advance(&self, bytes: u64) {
        self.0.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes done and bytes to do. The former never exceeds the latter, if that is known.
    pub fn read(&self) -> (u64, u64) {
        let (done, total) = (self.0.done.load(Ordering::Relaxed), self.0.total.load(Ordering::Relaxed));
        (if total == 0 { done } else { done.min(total) }, total)
    }
}
