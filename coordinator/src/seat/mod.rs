//! A coordinator's seat in its farm: whether it leads, and what it serves.
//!
//! A farm of one coordinator has it lead from its start to its end. Of several, one leads for as long as it has a lease; the others serve
//! blobs and results, and pass on the rest to it. What a coordinator has only while it leads (workers, the queue, builds, journals) is
//! its [`Term`]; what it has in any case (stores, credentials, listeners) is its [`Base`].

mod agreement;
mod base;
mod coordinators;
mod follow;
mod held;
mod leader;
mod route;
mod term;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use kiln_peers::Relay;
use tokio::sync::watch;
use tonic::Status;

pub use agreement::Agreement;
pub(crate) use base::{Base, Counted, Hooks};
pub(crate) use coordinators::Coordinators;
pub(crate) use follow::join;
use held::Held;
pub(crate) use leader::Leader;
pub(crate) use route::{BySeat, Common};
pub(crate) use term::Term;

/// What a coordinator is to its farm at the moment.
#[derive(Debug, Clone)]
pub(crate) enum Seat {
    /// It leads.
    Leads(Arc<Held>),
    /// It has the lease, and is about to lead.
    Begins,
    /// Another one leads, which is reached so.
    Follows(Relay),
    /// Nobody is known to lead.
    Vacant,
}

/// A seat, and since when it is the coordinator's.
#[derive(Debug, Clone)]
struct Taken {
    seat: Seat,
    since: SystemTime,
}

/// Gives a coordinator its seat.
#[derive(Debug)]
struct Chair(watch::Sender<Taken>);

impl Chair {
    fn new(seat: Seat) -> Self {
        Self(watch::channel(Taken { seat, since: SystemTime::now() }).0)
    }

    /// The coordinator has this seat from now on.
    fn take(&self, seat: Seat) {
        self.0.send_modify(|taken| {
            if std::mem::discriminant(&taken.seat) != std::mem::discriminant(&seat) {
                taken.since = SystemTime::now();
            }
            taken.seat = seat;
        });
    }
}

/// A coordinator's seat as it changes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Seats {
    seat: watch::Receiver<Taken>,
    /// Why this coordinator cannot find out who leads, as long as it cannot.
    trouble: watch::Receiver<Option<Arc<str>>>,
}

/// How long a call waits for a coordinator to lead: longer than until one has taken over from one that left in order.
const WAIT: Duration = Duration::from_secs(5);

impl Seats {
    /// That of the only coordinator of a farm.
    pub(crate) fn alone(term: Term) -> Self {
        let chair = Chair::new(Seat::Leads(Arc::new(Held::forever(term))));
        Self { seat: chair.0.subscribe(), trouble: watch::channel(None).1 }
    }

    /// What it is now.
    pub(crate) fn now(&self) -> Seat {
        self.seat.borrow().seat.clone()
    }

    /// The same, and since when it has been.
    fn now_since(&self) -> (Seat, SystemTime) {
        let Taken { seat, since } = self.seat.borrow().clone();
        (seat, since)
    }

    /// Why this coordinator cannot find out who leads, as long as it cannot.
    fn trouble(&self) -> Option<Arc<str>> {
        self.trouble.borrow().clone()
    }

    /// What it is once it is known who leads. Waits only where that helps: not while this coordinator cannot find it out, and for a call
    /// that another one passed on, only while this one is about to lead.
    async fn settled(&self, is_passed_on: bool) -> Seat {
        let (mut seat, mut trouble) = (self.seat.clone(), self.trouble.clone());
        let is_settled = |taken: &Taken| match taken.seat {
            Seat::Leads(_) | Seat::Follows(_) => true,
            Seat::Begins => false,
            Seat::Vacant => is_passed_on,
        };
        tokio::select! {
            biased;
            () = seat.wait_for(is_settled).map(drop) => {}
            () = trouble.wait_for(Option::is_some).map(drop) => {}
            () = tokio::time::sleep(WAIT) => {}
        }
        self.now()
    }

    /// Waits until another coordinator leads, for so long at most.
    pub(crate) async fn follows(&self, longest: Duration) {
        let mut seat = self.seat.clone();
        let _ = tokio::time::timeout(longest, seat.wait_for(|taken| matches!(taken.seat, Seat::Follows(_)))).await;
    }

    /// The answer to a call for the leader where none is known.
    fn vacant(&self) -> Status {
        match self.trouble() {
            Some(why) => Status::unavailable(format!(
                "this coordinator cannot find out which one leads the farm: {why}; others may know: try again, or at another address"
            )),
            None => Status::unavailable(
                "no coordinator of the farm leads it at the moment; another takes over within seconds: try again",
            ),
        }
    }

    /// The term in which it leads, if it does.
    pub(crate) fn held(&self) -> Option<Arc<Held>> {
        match self.now() {
            Seat::Leads(held) => Some(held),
            Seat::Begins | Seat::Follows(_) | Seat::Vacant => None,
        }
    }
}
