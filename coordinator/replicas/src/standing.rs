//! Where a replica stands.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::holder::Moment;
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
    clock: Clock,
    until: Arc<Mutex<Moment>>,
}

impl Lead {
    /// A leadership until then, unless it is extended.
    pub(crate) fn new(term: Term, clock: Clock, until: Moment) -> Self {
        Self { term, over: CancellationToken::new(), clock, until: Arc::new(Mutex::new(until)) }
    }

    pub(crate) fn extend(&self, until: Moment) {
        *self.until.lock() = until;
    }

    /// Whether it has ended. Compares clocks, so that a process that was stopped knows it at once when it continues,
    /// and one whose machine was suspended too.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled() || self.clock.now() >= *self.until.lock()
    }
}
