//! A coordinator's seat in its farm: whether it leads, and what it serves.
//!
//! A farm of one coordinator has it lead from its start to its end. Of several, one leads for as long as it has a lease; the others serve
//! blobs and results, and pass on the rest to it. What a coordinator has only while it leads (workers, the queue, builds, journals) is
//! its [`Term`]; what it has in any case (stores, credentials, listeners) is its [`Base`].

mod agreement;
mod base;
mod follow;
mod held;
mod route;
mod term;

use std::sync::Arc;

use kiln_peers::Relay;
use tokio::sync::watch;
use tonic::Status;

pub use agreement::Agreement;
pub(crate) use base::{Base, Counted, Hooks};
pub(crate) use follow::join;
use held::Held;
pub(crate) use route::{BySeat, Common};
pub(crate) use term::Term;

/// What a coordinator is to its farm at the moment.
#[derive(Debug, Clone)]
pub(crate) enum Seat {
    /// It leads.
    Leads(Arc<Held>),
    /// Another one leads, which is reached so.
    Follows(Relay),
    /// Nobody is known to lead.
    Vacant,
}

/// A coordinator's seat as it changes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Seats(watch::Receiver<Seat>);

impl Seats {
    /// That of the only coordinator of a farm.
    pub(crate) fn alone(term: Term) -> Self {
        Self(watch::channel(Seat::Leads(Arc::new(Held::forever(term)))).1)
    }

    /// What it is now.
    pub(crate) fn now(&self) -> Seat {
        self.0.borrow().clone()
    }

    /// The term in which it leads, if it does.
    pub(crate) fn held(&self) -> Option<Arc<Held>> {
        match self.now() {
            Seat::Leads(held) => Some(held),
            Seat::Follows(_) | Seat::Vacant => None,
        }
    }
}

/// The answer to a call for the leader while there is none.
fn vacant() -> Status {
    Status::unavailable(
        "no coordinator of the farm leads it at the moment; another takes over within seconds: try again",
    )
}
