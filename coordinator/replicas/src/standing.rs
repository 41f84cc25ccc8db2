//! Where a replica stands.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::replica::{Replica, Term};

/// Who leads, as this replica knows.
#[derive(Debug, Clone, Default)]
pub enum Standing {
    /// Nobody is known to lead.
    #[default]
    Vacant,
    /// This replica does.
    Leads(Lead),
    /// Another one does.
    Follows {
        /// Which.
        leader: Replica,
        /// Its term.
        term: Term,
    },
}

/// The leadership of this replica, while it lasts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lead {
    /// Which term it is.
    pub term: Term,
    /// Cancelled before another replica can have the lease.
    pub over: CancellationToken,
    until: Arc<Mutex<Instant>>,
}

impl Lead {
    /// A leadership until then, unless it is extended.
    pub(crate) fn new(term: Term, until: Instant) -> Self {
        Self { term, over: CancellationToken::new(), until: Arc::new(Mutex::new(until)) }
    }

    pub(crate) fn extend(&self, until: Instant) {
        *self.until.lock() = until;
    }

    /// Whether it has ended. Compares clocks, so that a process that was stopped knows it at once when it continues.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled() || Instant::now() >= *self.until.lock()
    }
}
