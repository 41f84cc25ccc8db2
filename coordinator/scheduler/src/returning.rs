//! The workers of an earlier run of the coordinator that are about to come back, perhaps with what they run.
//!
//! Invariant: until they are back, or their time is over, an action that one of them could be running is given to no other worker.

use std::collections::BTreeMap;

use super::Scheduler;
use super::queue::ClassId;
use super::types::{Config, Millis, Requirements, WorkerId};
use super::workers::Terms;

/// Workers that were connected when the earlier run ended.
#[derive(Debug, Default)]
pub(super) struct Returning {
    workers: BTreeMap<WorkerId, Terms>,
    until: Millis,
}

impl Returning {
    pub(super) fn new(config: &Config, now: Millis) -> Self {
        let expected = config.remembered.iter().filter(|(offer, _)| config.returning.contains(&offer.worker));
        let workers = expected.map(|(offer, _)| (offer.worker.clone(), Terms::of(offer)));
        Self { workers: workers.collect(), until: now.saturating_add(config.return_grace) }
    }

    /// Whether one of them could be running an action with these requirements.
    pub(super) fn may_run(&self, requirements: &Requirements) -> bool {
        self.workers.values().any(|terms| terms.allow(requirements))
    }

    /// Those that could be running an action with these requirements.
    pub(super) fn able(&self, requirements: &Requirements) -> Vec<WorkerId> {
        self.workers.iter().filter(|(_, terms)| terms.allow(requirements)).map(|(id, _)| id.clone()).collect()
    }

    /// When the others get what these have not brought; none if they are all back.
    pub(super) fn deadline(&self) -> Option<Millis> {
        (!self.workers.is_empty()).then_some(self.until)
    }
}

impl Scheduler {
    /// Whether a class's actions wait for workers that may be running them.
    pub(super) fn is_held(&self, class: ClassId) -> bool {
        self.returning.may_run(&self.classes[class].requirements)
    }

    /// Handles that a worker is back, and that what it brought is known.
    pub(super) fn returned(&mut self, worker: &WorkerId) {
        let Some(terms) = self.returning.workers.remove(worker) else { return };
        // As long as others like it are awaited, nothing else may begin.
        if !self.returning.workers.values().any(|other| *other == terms) {
            self.fill_all();
        }
    }

    /// Gives up on those that have not come back in time.
    pub(super) fn expire_returning(&mut self) {
        if self.returning.deadline().is_some_and(|until| until <= self.now) {
            self.returning.workers.clear();
            self.fill_all();
        }
    }

    fn fill_all(&mut self) {
        for slot in self.workers.iter().map(|(slot, _)| slot).collect::<Vec<_>>() {
            self.fill(slot);
        }
    }
}
