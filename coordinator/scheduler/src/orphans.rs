//! Leases that workers brought and nobody has asked for.

use std::collections::BTreeSet;

use super::types::{ActionKey, LeaseId, Millis};
use super::{Map, Scheduler};

/// Leases by action, and when each is cancelled.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    by_key: Map<ActionKey, (LeaseId, Millis)>,
    by_time: BTreeSet<(Millis, LeaseId, ActionKey)>,
}

impl Orphans {
    pub(super) fn contains(&self, key: &ActionKey) -> bool {
        self.by_key.contains_key(key)
    }

    pub(super) fn insert(&mut self, key: ActionKey, lease: LeaseId, until: Millis) {
        self.by_time.insert((until, lease, key.clone()));
        self.by_key.insert(key, (lease, until));
    }

    /// Removes the lease of an action.
    pub(super) fn take(&mut self, key: &ActionKey) -> Option<LeaseId> {
        let (key, (lease, until)) = self.by_key.remove_entry(key)?;
        self.by_time.remove(&(until, lease, key));
        Some(lease)
    }

    /// Removes this lease, if it is one of them.
    pub(super) fn remove(&mut self, key: &ActionKey, lease: LeaseId) {
        if self.by_key.get(key).is_some_and(|(known, _)| *known == lease) {
            self.take(key);
        }
    }

    /// When the next one is cancelled.
    pub(super) fn next(&self) -> Option<Millis> {
        Some(self.by_time.first()?.0)
    }
}

impl Scheduler {
    pub(super) fn expire_orphans(&mut self) {
        let mut over = Vec::new();
        while let Some((_, lease, key)) = self.orphans.by_time.first().filter(|(until, ..)| *until <= self.now) {
            let (lease, key) = (*lease, key.clone());
            self.orphans.take(&key);
            over.push(lease);
        }
        over.sort_unstable();
        for lease in over {
            if let Some(record) = self.leases.get_mut(&lease) {
                record.orphan_until = None;
            }
            self.cancel(lease);
        }
    }
}
