//! Workers that left and are expected back for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Map;
use super::types::{Capacity, Millis, Requirements, WorkerId, WorkerOffer};
use super::workers::Terms;

/// A worker that left.
#[derive(Debug)]
struct Left {
    terms: Arc<Terms>,
    until: Millis,
}

/// All workers that are expected back. Those with the same terms are kept together, because many workers are alike.
#[derive(Debug, Default)]
pub(super) struct Away {
    by_name: BTreeMap<WorkerId, Left>,
    by_terms: Map<Arc<Terms>, BTreeSet<(Millis, WorkerId)>>,
    by_time: BTreeSet<(Millis, WorkerId)>,
}

impl Away {
    /// The workers of an earlier run.
    pub(super) fn remembered(workers: Vec<(WorkerOffer, Millis)>) -> Self {
        let mut away = Self::default();
        for (offer, until) in workers {
            let terms = Arc::new(Terms::of(&offer));
            away.expect(offer.worker, terms, until);
        }
        away
    }

    /// Expects a worker back until this time.
    pub(super) fn expect(&mut self, worker: WorkerId, terms: Arc<Terms>, until: Millis) {
        self.remove(&worker);
        self.by_time.insert((until, worker.clone()));
        self.by_terms.entry(terms.clone()).or_default().insert((until, worker.clone()));
        self.by_name.insert(worker, Left { terms, until });
    }

    /// Does not expect a worker any more; whether it was expected.
    pub(super) fn remove(&mut self, worker: &WorkerId) -> bool {
        let Some((worker, left)) = self.by_name.remove_entry(worker) else { return false };
        let entry = (left.until, worker);
        self.by_time.remove(&entry);
        if let Some(alike) = self.by_terms.get_mut(&left.terms) {
            alike.remove(&entry);
            if alike.is_empty() {
                self.by_terms.remove(&left.terms);
            }
        }
        true
    }

    /// Does not expect those any more whose time is over; whether there were any.
    pub(super) fn expire(&mut self, now: Millis) -> bool {
        let mut any = false;
        while let Some((_, worker)) = self.by_time.first().filter(|(until, _)| *until <= now) {
            let worker = worker.clone();
            any |= self.remove(&worker);
        }
        any
    }

    /// Until when a worker is expected that could run an action with these requirements; `None` if none is.
    pub(super) fn expected(&self, requirements: &Requirements) -> Option<Millis> {
        let able = self.by_terms.iter().filter(|(terms, _)| terms.allow(requirements));
        able.filter_map(|(_, alike)| Some(alike.last()?.0)).max()
    }

    /// Those that could run an action with these requirements, by name, and until when they are expected.
    pub(super) fn able<'a>(&'a self, requirements: &'a Requirements) -> impl Iterator<Item = (&'a WorkerId, Millis)> {
        let able = self.by_name.iter().filter(|(_, left)| left.terms.allow(requirements));
        able.map(|(worker, left)| (worker, left.until))
    }

    /// The capacities of those that could run an action with these requirements.
    pub(super) fn capacities<'a>(&'a self, requirements: &'a Requirements) -> impl Iterator<Item = Capacity> {
        self.by_terms.keys().filter(|terms| terms.allow(requirements)).map(|terms| terms.capacity)
    }
}
