//! The workers of an earlier run of the coordinator that are about to come back, perhaps with what they run.
//!
//! Invariant: until they are back, or their time is over, an action that one of them could be running is given to no other worker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::queue::ClassId;
use super::types::{Config, Millis, Requirements, WorkerId};
use super::workers::Terms;
use super::{Map, Scheduler};

/// Workers that were connected when the earlier run ended.
#[derive(Debug, Default)]
pub(super) struct Returning {
    workers: BTreeMap<WorkerId, Arc<Terms>>,
    /// How many have the same terms.
    alike: Map<Arc<Terms>, usize>,
    until: Millis,
}

impl Returning {
    pub(super) fn new(config: &Config, now: Millis) -> Self {
        let expected = config.remembered.iter().filter(|(offer, _)| config.returning.contains(&offer.worker));
        let workers: BTreeMap<_, _> =
            expected.map(|(offer, _)| (offer.worker.clone(), Arc::new(Terms::of(offer)))).collect();
        let mut alike = Map::<Arc<Terms>, usize>::default();
        for terms in workers.values() {
            *alike.entry(terms.clone()).or_default() += 1;
        }
        Self { workers, alike, until: now.saturating_add(config.return_grace) }
    }

    /// Whether one of them could be running an action with these requirements.
    pub(super) fn may_run(&self, requirements: &Requirements) -> bool {
        self.alike.keys().any(|terms| terms.allow(requirements))
    }

    /// Those that could be running an action with these requirements.
    pub(super) fn able(&self, requirements: &Requirements) -> Vec<WorkerId> {
        self.workers.iter().filter(|(_, terms)| terms.allow(requirements)).map(|(id, _)| id.clone()).collect()
    }

    /// When the others get what these have not brought; none if they are all back.
    pub(super) fn deadline(&self) -> Option<Millis> {
        (!self.workers.is_empty()).then_some(self.until)
    }

    /// A worker is back; whether no other with its terms is awaited.
    fn remove(&mut self, worker: &WorkerId) -> bool {
        let Some(terms) = self.workers.remove(worker) else { return false };
        let Some(alike) = self.alike.get_mut(&terms) else { return false };
        *alike -= 1;
        if *alike > 0 {
            return false;
        }
        self.alike.remove(&terms);
        true
    }
}

impl Scheduler {
    /// Handles that a worker is back, and that what it brought is known.
    pub(super) fn returned(&mut self, worker: &WorkerId) {
        // As long as others like it are awaited, nothing else may begin.
        if self.returning.remove(worker) {
            self.let_go();
        }
    }

    /// Gives up on those that have not come back in time.
    pub(super) fn expire_returning(&mut self) {
        if self.returning.deadline().is_some_and(|until| until <= self.now) {
            self.returning.workers.clear();
            self.returning.alike.clear();
            self.let_go();
        }
    }

    /// Assigns what was held for workers that are not awaited any more.
    fn let_go(&mut self) {
        let mut released: Vec<ClassId> = Vec::new();
        for (id, class) in self.classes.iter_mut().filter(|(_, class)| class.held) {
            class.held = self.returning.may_run(&class.requirements);
            if !class.held && !class.waiting.is_empty() {
                released.push(id);
            }
        }
        let groups: BTreeSet<_> =
            released.iter().flat_map(|class| self.classes[*class].groups.iter().copied()).collect();
        let waits = |slot: &usize| self.workers.get(*slot).is_some_and(|worker| groups.contains(&worker.group));
        let slots: Vec<usize> = match groups.is_empty() {
            true => Vec::new(),
            false => self.workers.iter().map(|(slot, _)| slot).filter(waits).collect(),
        };
        for slot in slots {
            self.fill(slot);
        }
    }
}
