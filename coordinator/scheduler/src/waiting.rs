//! Waiting for absent workers: which ones are expected back, how long an action waits for them, and what its callers
//! are told.
//!
//! Invariant: an action is refused immediately only if no connected, expected or declared worker could run it;
//! otherwise it waits until its timeout.

use std::collections::BTreeSet;

use super::Scheduler;
use super::queue::{Class, ClassId, GroupId};
use super::slab::Id;
use super::types::{ActionKey, Capacity, Effect, Failure, Millis, Requirements, Wait};
use super::workers::Worker;

impl Scheduler {
    /// Expects a leaving worker back for a while.
    pub(super) fn expect_back(&mut self, worker: &Worker) {
        let until = self.now.saturating_add(self.config.remember_for);
        self.away.expect(worker.id.clone(), worker.terms.clone(), until);
    }

    /// Handles a worker's arrival: it is no longer expected, and workers that start with it have a moment to join.
    pub(super) fn worker_came(&mut self, slot: usize) {
        let settled = self.now.saturating_add(self.config.match_settle);
        let was_expected = self.workers.get(slot).is_some_and(|worker| self.away.remove(&worker.id));
        if was_expected || settled < self.match_from {
            self.match_from = self.match_from.min(settled);
            self.classes.check_absent();
        }
    }

    /// The next time when an action may have to be given up in a class whose workers are absent.
    pub(super) fn absent_deadline(&self, class: ClassId) -> Millis {
        let class = &self.classes[class];
        if !class.groups.is_empty() || self.is_declared(&class.requirements) {
            return class.first_timeout;
        }
        // Refused once no worker that could run it is expected any more.
        let expected = self.away.expected(&class.requirements);
        class.first_timeout.min(expected.unwrap_or(0).max(self.match_from))
    }

    /// Whether a declared pool could run this.
    fn is_declared(&self, requirements: &Requirements) -> bool {
        self.config.pools.iter().any(|pool| pool.may_run(requirements))
    }

    /// Gives up on actions that no worker can run, and on those that have waited too long. Looks only at classes of which that may
    /// have changed.
    pub(super) fn give_up(&mut self) {
        if self.away.expire(self.now) {
            self.classes.check_absent();
        }
        for group in std::mem::take(&mut self.workers.turned) {
            let Some(group) = self.workers.group(group) else { continue };
            let busy = self.classes.busy().iter().copied();
            let able: Vec<ClassId> = busy.filter(|class| group.classes.contains(class.index as usize)).collect();
            able.into_iter().for_each(|class| self.classes.check(class));
        }
        for class in self.classes.take_unchecked(self.now) {
            if !self.classes[class].waiting.is_empty() {
                self.give_up_in(class);
            }
        }
    }

    fn give_up_in(&mut self, class: ClassId) {
        let takes = |group: &Id| self.workers.group(*group).is_some_and(|group| group.taking > 0);
        if self.classes[class].groups.iter().any(takes) {
            if self.classes.present(class) {
                self.classes.set_timer(class, Some(self.now));
            }
            return;
        }
        let since = self.classes.is_absent(class, self.now);
        if !self.is_possible(class) {
            return self.refuse(class);
        }
        if self.now >= self.classes[class].first_timeout {
            self.time_out(class, since);
        }
        if !self.classes[class].waiting.is_empty() {
            self.classes.set_timer(class, Some(self.absent_deadline(class)));
        }
    }

    /// Whether a worker that could run a class's actions may still come.
    fn is_possible(&self, class: ClassId) -> bool {
        let class = &self.classes[class];
        !class.groups.is_empty()
            || self.now < self.match_from
            || self.away.expected(&class.requirements).is_some()
            || self.is_declared(&class.requirements)
    }

    /// The waiting actions of a class, the oldest first.
    fn waiting(&self, class: ClassId) -> Vec<Id> {
        self.classes[class].waiting.iter().copied().collect()
    }

    fn refuse(&mut self, class: ClassId) {
        let requirements = self.classes[class].requirements.clone();
        let reasons = self.unmet(&requirements);
        for id in self.waiting(class) {
            self.fail(id, Failure::NoWorkerMatches { reasons: reasons.clone() });
        }
    }

    fn time_out(&mut self, class: ClassId, since: Millis) {
        let mut first = Millis::MAX;
        let mut reasons = None;
        for id in self.waiting(class) {
            let Some(action) = self.actions.get(id) else { continue };
            let (began, wait_limit) = (action.queued.max(since), action.wait_limit);
            let over = began.saturating_add(wait_limit);
            if over > self.now {
                first = first.min(over);
                continue;
            }
            let reasons = reasons.get_or_insert_with(|| self.where_they_are(class)).clone();
            self.fail(id, Failure::QueueTimeout { waited: self.now - began, reasons });
        }
        self.classes[class].first_timeout = first;
    }

    fn fail(&mut self, id: Id, failure: Failure) {
        let Some(key) = self.actions.get(id).map(|action| action.key.clone()) else { return };
        self.dequeue(id);
        let waiters = self.forget(id);
        self.effects.push(Effect::Failed { key, waiters, failure });
    }

    /// What each worker lacks.
    fn unmet(&self, requirements: &Requirements) -> Vec<String> {
        let mut reasons: Vec<String> = self.workers.iter().map(|(_, worker)| worker.lacks(requirements)).collect();
        if reasons.is_empty() {
            reasons.push("no worker is connected".to_owned());
        }
        reasons
    }

    /// The state of the workers that could run a class's actions; or, if there are none, what the others lack.
    fn where_they_are(&self, class: ClassId) -> Vec<String> {
        let class = &self.classes[class];
        let mut reasons = Vec::new();
        for (_, worker) in self.workers_of(class) {
            let how = match (worker.lost_at.is_some(), worker.draining) {
                (true, _) => "lost its connection",
                (false, true) => "is draining",
                (false, false) => "is busy",
            };
            reasons.push(format!("worker `{}` {how}", worker.id.0));
        }
        for (id, until) in self.away.able(&class.requirements) {
            let ago = self.config.remember_for.saturating_sub(until.saturating_sub(self.now));
            reasons.push(format!("worker `{}` left {} ago", id.0, in_words(ago)));
        }
        for pool in self.config.pools.iter().filter(|pool| pool.may_run(&class.requirements)) {
            reasons.push(format!("pool `{}` has no worker connected", pool.name));
        }
        if reasons.is_empty() { self.unmet(&class.requirements) } else { reasons }
    }

    /// The workers that could run a class's actions, by slot.
    fn workers_of(&self, class: &Class) -> impl Iterator<Item = (usize, &Worker)> {
        let groups: BTreeSet<GroupId> = class.groups.iter().copied().collect();
        self.workers.by_slot().filter(move |(_, worker)| groups.contains(&worker.group))
    }

    /// The requested capacity, limited to that of the largest worker that could otherwise run it; unchanged if there is
    /// none.
    pub fn at_most_the_largest(&self, asked: &Requirements) -> Capacity {
        let any = Requirements { capacity: Capacity::default(), ..asked.clone() };
        let here = self.workers.groups.iter().filter(|(_, group)| group.terms.allow(&any));
        let here = here.map(|(_, group)| group.terms.capacity);
        let sizes: Vec<Capacity> = here.chain(self.away.capacities(&any)).collect();
        let fits = |one: &Capacity| one.holds(&asked.capacity);
        match sizes.iter().max_by_key(|one| (one.milli_cpus, one.memory_bytes)) {
            Some(largest) if !sizes.iter().any(fits) => Capacity {
                milli_cpus: asked.capacity.milli_cpus.min(largest.milli_cpus),
                memory_bytes: asked.capacity.memory_bytes.min(largest.memory_bytes),
            },
            _ => asked.capacity,
        }
    }

    /// What an action is waiting for; `None` if it is not waiting.
    pub fn wait_of(&self, key: &ActionKey) -> Option<Wait> {
        let asked = self.actions.with_key(key).filter(|id| self.actions.waits(*id))?;
        let action = self.actions.get(asked)?;
        let class = &self.classes[action.class];
        if let Some(since) = class.absent_since {
            let over = action.queued.max(since).saturating_add(action.wait_limit);
            let reasons = self.where_they_are(action.class);
            return Some(Wait::Worker { reasons, left: over.saturating_sub(self.now) });
        }
        let returning = self.returning.able(&class.requirements);
        if !returning.is_empty() {
            return Some(Wait::Return { workers: returning });
        }
        let rank = |id: Id| Some(self.actions.get(id)?.position.rank(id, &self.shares));
        let own = rank(asked)?;
        let ahead = class.waiting.iter().filter(|id| rank(**id).is_some_and(|other| other < own)).count();
        let mut holders = Vec::new();
        for (_, worker) in self.workers_of(class) {
            let keys = worker.leases.iter().filter_map(|lease| self.leases.get(lease));
            holders.extend(keys.map(|lease| (worker.id.clone(), lease.key.clone())));
        }
        Some(Wait::Room { ahead, holders })
    }
}

/// A duration in its largest unit.
fn in_words(ms: Millis) -> String {
    match ms / 1000 {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
