//! Which results may have lost blobs to others that needed the room.
//!
//! A result's blobs were all used when the result was, or later. So a result that was used later than every named blob that was
//! evicted has all of its own, and the others go: none stays of which a blob is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::Stamp;

/// Results that were used last before this are gone. Cheap to clone; it only rises.
#[derive(Debug, Clone, Default)]
pub(super) struct Floor(Arc<AtomicU64>);

impl Floor {
    /// Results that were used last at this time or before may have lost blobs.
    pub(super) fn raise(&self, until: Stamp) {
        self.0.fetch_max(until.saturating_add(1), Ordering::AcqRel);
    }

    pub(super) fn get(&self) -> Stamp {
        self.0.load(Ordering::Acquire)
    }
}
