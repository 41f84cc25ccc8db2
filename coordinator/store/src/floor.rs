//! Tracks which results may have lost blobs to eviction.
//!
//! A result's blobs were all used when the result was, or later. So a result used after the last use of every evicted
//! named blob still has all of its own. Other results are removed, so none remains with a missing blob.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::Stamp;

/// Results last used before this time are gone. Cheap to clone; only increases.
#[derive(Debug, Clone, Default)]
pub(super) struct Floor(Arc<AtomicU64>);

impl Floor {
    /// Results last used at or before this time may have lost blobs.
    pub(super) fn raise(&self, until: Stamp) {
        self.0.fetch_max(until.saturating_add(1), Ordering::AcqRel);
    }

    pub(super) fn get(&self) -> Stamp {
        self.0.load(Ordering::Acquire)
    }
}
