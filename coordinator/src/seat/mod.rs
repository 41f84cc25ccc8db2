//! A coordinator's seat in its farm: whether it leads, and what it serves.
//!
//! A farm of one coordinator has it lead from its start to its end. What it has only while it leads (workers, the queue, builds, journals)
//! is its [`Term`]; what it has in any case (stores, credentials, listeners) is its [`Base`].

mod base;
mod route;
mod term;

use std::sync::Arc;

use tokio::sync::watch;
use tonic::Status;

pub(crate) use base::{Base, Counted, Hooks};
pub(crate) use route::BySeat;
pub(crate) use term::Term;

/// What a coordinator is to its farm at the moment.
#[derive(Debug, Clone)]
pub(crate) enum Seat {
    /// It leads.
    Leads(Arc<Term>),
    /// Nobody is known to lead.
    Vacant,
}

/// A coordinator's seat as it changes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Seats(watch::Receiver<Seat>);

impl Seats {
    /// That of the only coordinator of a farm.
    pub(crate) fn alone(term: Term) -> Self {
        Self(watch::channel(Seat::Leads(Arc::new(term))).1)
    }

    /// What it is now.
    pub(crate) fn now(&self) -> Seat {
        self.0.borrow().clone()
    }

    /// The term in which it leads.
    ///
    /// # Errors
    /// `UNAVAILABLE` if it does not lead.
    pub(crate) fn term(&self) -> Result<Arc<Term>, Status> {
        match self.now() {
            Seat::Leads(term) => Ok(term),
            Seat::Vacant => Err(vacant()),
        }
    }
}

/// The answer to a call for the leader while there is none.
fn vacant() -> Status {
    Status::unavailable("no coordinator of the farm leads it at the moment; another takes over within seconds: try again")
}
