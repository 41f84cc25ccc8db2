//! Waiting for absent workers: which ones are expected back, how long an action waits for them, and what its callers
//! are told.
//!
//! Invariant: an action is refused immediately only if no connected, expected or declared worker could run it;
//! otherwise it waits until its timeout.

use std::collections::BTreeMap;

use super::Scheduler;
use super::queue::ClassId;
use super::types::{ActionKey, Capacity, Effect, Failure, Millis, Requirements, Wait, WorkerId, WorkerOffer};
use super::workers::{Terms, Worker};

/// A worker that left and is expected back.
#[derive(Debug)]
pub(super) struct Away {
    terms: Terms,
    until: Millis,
}

impl Away {
    fn could_run(&self, requirements: &Requirements) -> bool {
        self.terms.allow(requirements)
    }
}

/// The workers of an earlier run.
pub(super) fn remembered(workers: Vec<(WorkerOffer, Millis)>) -> BTreeMap<WorkerId, Away> {
    let away = |(offer, until): (WorkerOffer, Millis)| (offer.worker.clone(), Away { terms: Terms::of(&offer), until });
    workers.into_iter().map(away).collect()
}

impl Scheduler {
    /// Expects a leaving worker back for a while.
    pub(super) fn expect_back(&mut self, worker: &Worker) {
        let until = self.now.saturating_add(self.config.remember_for);
        self.away.insert(worker.id.clone(), Away { terms: worker.terms.clone(), until });
    }

    /// Handles a worker's arrival: it is no longer expected, and workers that start with it have a moment to join.
    pub(super) fn worker_came(&mut self, slot: usize) {
        self.match_from = self.match_from.min(self.now.saturating_add(self.config.match_settle));
        if let Some(worker) = self.workers.get(slot) {
            self.away.remove(&worker.id);
        }
    }

    /// The next time when an action may have to be given up in a class whose workers are absent.
    pub(super) fn absent_deadline(&self, class: ClassId) -> Millis {
        let timeout = self.classes[class].first_timeout;
        if !self.classes[class].workers.is_empty() {
            return timeout;
        }
        let requirements = &self.classes[class].requirements;
        if self.config.pools.iter().any(|pool| pool.may_run(requirements)) {
            return timeout;
        }
        // Refused once no worker that could run it is expected any more.
        let expected = self.away.values().filter(|away| away.could_run(requirements)).map(|away| away.until).max();
        timeout.min(expected.unwrap_or(0).max(self.match_from))
    }

    /// Gives up on actions that no worker can run, and on those that have waited too long.
    pub(super) fn give_up(&mut self) {
        self.away.retain(|_, away| away.until > self.now);
        for class in self.busy.iter().copied().collect::<Vec<_>>() {
            let takes = |slot: &usize| self.workers.get(*slot).is_some_and(Worker::takes_leases);
            if self.classes[class].workers.iter().any(takes) {
                self.classes[class].absent_since = None;
                continue;
            }
            let since = *self.classes[class].absent_since.get_or_insert(self.now);
            if !self.is_possible(class) {
                self.refuse(class);
            } else if self.now >= self.classes[class].first_timeout {
                self.time_out(class, since);
            }
        }
    }

    /// Whether a worker that could run a class's actions may still come.
    fn is_possible(&self, class: ClassId) -> bool {
        let class = &self.classes[class];
        !class.workers.is_empty()
            || self.now < self.match_from
            || self.away.values().any(|away| away.could_run(&class.requirements))
            || self.config.pools.iter().any(|pool| pool.may_run(&class.requirements))
    }

    fn refuse(&mut self, class: ClassId) {
        let requirements = self.classes[class].requirements.clone();
        let reasons = self.unmet(&requirements);
        for id in self.classes[class].waiting.iter().copied().collect::<Vec<_>>() {
            self.fail(id, Failure::NoWorkerMatches { reasons: reasons.clone() });
        }
    }

    fn time_out(&mut self, class: ClassId, since: Millis) {
        let mut first = Millis::MAX;
        let mut reasons = None;
        for id in self.classes[class].waiting.iter().copied().collect::<Vec<_>>() {
            let Some(action) = self.actions.get(&id) else { continue };
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

    fn fail(&mut self, id: u64, failure: Failure) {
        let Some(key) = self.actions.get(&id).map(|action| action.key.clone()) else { return };
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
        let Some(class) = self.classes.get(class) else { return Vec::new() };
        let mut reasons = Vec::new();
        for worker in class.workers.iter().filter_map(|slot| self.workers.get(*slot)) {
            let how = match (worker.lost_at.is_some(), worker.draining) {
                (true, _) => "lost its connection",
                (false, true) => "is draining",
                (false, false) => "is busy",
            };
            reasons.push(format!("worker `{}` {how}", worker.id.0));
        }
        for (id, away) in self.away.iter().filter(|(_, away)| away.could_run(&class.requirements)) {
            let ago = self.config.remember_for.saturating_sub(away.until.saturating_sub(self.now));
            reasons.push(format!("worker `{}` left {} ago", id.0, in_words(ago)));
        }
        for pool in self.config.pools.iter().filter(|pool| pool.may_run(&class.requirements)) {
            reasons.push(format!("pool `{}` has no worker connected", pool.name));
        }
        if reasons.is_empty() { self.unmet(&class.requirements) } else { reasons }
    }

    /// The requested capacity, limited to that of the largest worker that could otherwise run it; unchanged if there is
    /// none.
    pub fn at_most_the_largest(&self, asked: &Requirements) -> Capacity {
        let any = Requirements { capacity: Capacity::default(), ..asked.clone() };
        let here =
            self.workers.iter().filter(|(_, worker)| worker.matches(&any)).map(|(_, worker)| worker.terms.capacity);
        let away = self.away.values().filter(|away| away.could_run(&any)).map(|away| away.terms.capacity);
        let sizes: Vec<Capacity> = here.chain(away).collect();
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
        let action = self.action(key).filter(|action| action.lease.is_none())?;
        let id = *self.class_of.get(&action.requirements)?;
        let class = &self.classes[id];
        if let Some(since) = class.absent_since {
            let over = action.queued.max(since).saturating_add(action.wait_limit);
            return Some(Wait::Worker { reasons: self.where_they_are(id), left: over.saturating_sub(self.now) });
        }
        let returning = self.returning.able(&class.requirements);
        if !returning.is_empty() {
            return Some(Wait::Return { workers: returning });
        }
        let rank = action.position.rank(&self.shares);
        let before = |id: &&u64| self.actions.get(id).is_some_and(|other| other.position.rank(&self.shares) < rank);
        let ahead = class.waiting.iter().filter(before).count();
        let mut holders = Vec::new();
        for worker in class.workers.iter().filter_map(|slot| self.workers.get(*slot)) {
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
