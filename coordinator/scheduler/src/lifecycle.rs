//! The life of actions, leases and workers: submitted, merged, lost, adopted, finished, given up.

use std::collections::BTreeSet;

use super::queue::{ActionId, GroupId, Position};
use super::types::{
    Effect, Failure, LeaseId, Millis, Outcome, RunningLease, Submission, WaiterId, WorkerId, WorkerOffer,
};
use super::workers::Terms;
use super::{Action, Lease, Scheduler};

impl Scheduler {
    pub(super) fn submit(&mut self, submission: Submission) {
        let Submission { waiter, key, requirements, share, build, .. } = submission;
        let Submission { priority, path_weight, inputs, wait_limit, once, avoid, .. } = submission;
        let wait_limit = wait_limit.unwrap_or(self.config.queue_timeout);
        if let Some(id) = self.actions.with_key(&key) {
            return self.join(id, waiter, priority, wait_limit);
        }
        let shares = self.shares.open(&share, &build);
        let position = Position { priority, shares, path_weight };
        let class = self.class(&requirements);
        self.classes[class].actions += 1;
        let inputs = self.inputs.of(&inputs);
        let orphan = self.orphans.take(&key);
        let id = self.actions.add(Action {
            key,
            class,
            position,
            inputs,
            waiters: vec![waiter],
            attempts: 0,
            lease: None,
            submitted: self.now,
            queued: self.now,
            wait_limit,
            avoid: avoid.and_then(|worker| self.workers.slot(&worker)),
            once,
        });
        match orphan {
            Some(lease) => self.adopt(id, lease),
            None => self.wait(id),
        }
    }

    fn join(&mut self, id: ActionId, waiter: WaiterId, priority: i32, wait_limit: Millis) {
        self.actions.join(id, waiter);
        let Some(action) = self.actions.get_mut(id) else { return };
        action.wait_limit = action.wait_limit.max(wait_limit);
        if priority >= action.position.priority {
            return;
        }
        if action.lease.is_some() {
            action.position.priority = priority;
            return;
        }
        self.dequeue(id);
        if let Some(action) = self.actions.get_mut(id) {
            action.position.priority = priority;
        }
        self.enqueue(id);
    }

    /// Assigns an action if a worker has capacity; else queues it, and gives it up if none ever can.
    fn wait(&mut self, id: ActionId) {
        let Some(action) = self.actions.get_mut(id) else { return };
        action.queued = self.now;
        let class = &self.classes[action.class];
        // If others without a worker to avoid wait in the class, no worker has capacity.
        if (action.avoid.is_some() || class.waiting.len() == class.avoiding.len()) && self.place(id) {
            return;
        }
        self.enqueue(id);
    }

    pub(super) fn leave(&mut self, waiter: WaiterId) {
        let Some(id) = self.actions.leave(waiter) else { return };
        let Some(action) = self.actions.get(id).filter(|action| action.waiters.is_empty()) else { return };
        match action.lease {
            Some(lease) => {
                if let Some(lease) = self.leases.get_mut(&lease) {
                    lease.action = None;
                }
                self.cancel(lease);
                self.forget(id);
            }
            None => {
                let kept = self.classes[action.class].reserved;
                self.dequeue(id);
                self.forget(id);
                if let Some(slot) = kept {
                    self.fill(slot);
                }
            }
        }
    }

    pub(super) fn cancel(&mut self, lease: LeaseId) {
        let slot = self.leases.get(&lease).map(|lease| lease.slot);
        if let Some(worker) = slot.and_then(|slot| self.workers.get(slot)) {
            self.effects.push(Effect::CancelLease { worker: worker.id.clone(), lease });
        }
    }

    /// Removes an action from everything but the queues; returns the waiting callers.
    pub(super) fn forget(&mut self, id: ActionId) -> Vec<WaiterId> {
        let Some(action) = self.actions.remove(id) else { return Vec::new() };
        self.classes[action.class].actions -= 1;
        self.shares.close(action.position.shares);
        self.inputs.release(&action.inputs);
        action.waiters
    }

    fn adopt(&mut self, id: ActionId, lease: LeaseId) {
        let (Some(action), Some(record)) = (self.actions.get_mut(id), self.leases.get_mut(&lease)) else { return };
        action.lease = Some(lease);
        action.attempts += 1;
        action.avoid = None;
        record.action = Some(id);
        record.orphan_until = None;
        let Some(worker) = self.workers.get(record.slot) else { return };
        self.inputs.remember(worker.holder, &action.inputs);
        let (key, worker) = (action.key.clone(), worker.id.clone());
        self.effects.push(Effect::Adopted { key, lease, worker });
    }

    pub(super) fn joined(&mut self, offer: WorkerOffer) {
        let WorkerOffer { worker: id, properties, demands, tenants, capacity, draining, running } = offer;
        let group = self.group(Terms { properties, demands, tenants, capacity });
        let slot = match self.workers.slot(&id) {
            Some(slot) => slot,
            None => {
                let holder = self.inputs.arrives(self.workers.next_slot());
                self.workers.add(id.clone(), group, holder)
            }
        };
        self.workers.returns(slot);
        self.worker_came(slot);
        self.workers.update(slot, |worker| worker.draining = draining);
        self.regroup(slot, group);
        let Some(worker) = self.workers.get(slot) else { return };
        let named: BTreeSet<LeaseId> = running.iter().map(|running| running.lease).collect();
        let unnamed: Vec<LeaseId> = worker.leases.iter().filter(|lease| !named.contains(lease)).copied().collect();
        for running in running {
            self.brought(slot, running);
        }
        for lease in unnamed {
            self.lost(lease, "the worker came back without it");
        }
        self.returned(&id);
        self.fill(slot);
    }

    /// Moves a worker to the group of its terms, and ends a reservation that these do not allow.
    fn regroup(&mut self, slot: usize, group: GroupId) {
        if self.workers.get(slot).is_none_or(|worker| worker.group == group) {
            return;
        }
        let emptied = self.workers.regroup(slot, group);
        self.forget_group(emptied);
        let reserved_for = self.workers.get(slot).and_then(|worker| worker.reserved_for);
        if let Some(class) = reserved_for.filter(|class| !self.classes[*class].groups.contains(&group)) {
            self.release(class);
        }
    }

    /// Handles a lease that a worker reports as running.
    fn brought(&mut self, slot: usize, running: RunningLease) {
        let RunningLease { lease, key, reserved } = running;
        if let Some(known) = self.leases.get(&lease) {
            // A lease that nobody waits for any more is cancelled again.
            if known.action.is_none() && known.orphan_until.is_none() {
                self.cancel(lease);
            }
            return;
        }
        self.workers.update(slot, |worker| worker.begins(lease, &reserved));
        let record = Lease { slot, key: key.clone(), reserved, action: None, orphan_until: None };
        self.leases.insert(lease, record);
        match self.actions.with_key(&key) {
            Some(id) if self.actions.waits(id) => {
                self.dequeue(id);
                self.adopt(id, lease);
            }
            Some(_) => self.cancel(lease),
            None if self.orphans.contains(&key) => self.cancel(lease),
            None => {
                let until = self.now.saturating_add(self.config.orphan_grace);
                if let Some(record) = self.leases.get_mut(&lease) {
                    record.orphan_until = Some(until);
                }
                self.orphans.insert(key, lease, until);
            }
        }
    }

    pub(super) fn disconnected(&mut self, worker: &WorkerId) {
        let until = self.now.saturating_add(self.config.disconnect_grace);
        let Some(slot) = self.workers.slot(worker) else { return };
        self.workers.leaves(slot, until);
        self.release_worker(slot);
        self.place_avoiding();
    }

    /// Allows another worker to be reserved instead of this one.
    fn release_worker(&mut self, slot: usize) {
        let class = self.workers.get(slot).and_then(|worker| worker.reserved_for);
        if let Some(class) = class {
            self.release(class);
        }
    }

    /// Removes a worker that left in order or was away for too long.
    pub(super) fn gone(&mut self, worker: &WorkerId, in_order: bool) {
        let Some(slot) = self.workers.slot(worker) else { return };
        self.release_worker(slot);
        let Some((worker, emptied)) = self.workers.remove(slot) else { return };
        self.inputs.leaves(worker.holder);
        self.expect_back(&worker);
        self.forget_group(emptied);
        // Slots are reused: no action may continue to avoid this one.
        for id in self.classes.avoiding() {
            if self.actions.get(id).is_some_and(|action| action.avoid == Some(slot)) {
                self.dequeue(id);
                if let Some(action) = self.actions.get_mut(id) {
                    action.avoid = None;
                }
                self.wait(id);
            }
        }
        let reason = format!("worker `{}` {}", worker.id.0, if in_order { "left" } else { "was lost" });
        for lease in worker.leases {
            if in_order {
                self.uncount(lease);
            }
            self.lost(lease, &reason);
        }
        self.place_avoiding();
    }

    /// Tries to place actions that avoid a worker: after a worker left, the avoided one may be the only choice.
    fn place_avoiding(&mut self) {
        for id in self.classes.avoiding() {
            self.place(id);
        }
    }

    /// Does not count this lease as an attempt, because nothing went wrong.
    fn uncount(&mut self, lease: LeaseId) {
        let action = self.leases.get(&lease).and_then(|lease| lease.action);
        if let Some(action) = action.and_then(|id| self.actions.get_mut(id)) {
            action.attempts = action.attempts.saturating_sub(1);
        }
    }

    /// Handles a lease that its worker no longer runs.
    fn lost(&mut self, lease: LeaseId, reason: &str) {
        if let Some(id) = self.end(lease) {
            self.retry(id, reason.to_owned(), None);
        }
    }

    /// Removes a lease from its worker; returns the action that it ran.
    fn end(&mut self, lease: LeaseId) -> Option<ActionId> {
        let record = self.leases.remove(&lease)?;
        self.ended.push(lease);
        self.workers.update(record.slot, |worker| worker.ends(lease, &record.reserved));
        if record.orphan_until.is_some() {
            self.orphans.remove(&record.key, lease);
        }
        record.action
    }

    fn retry(&mut self, id: ActionId, reason: String, avoid: Option<usize>) {
        let Some(action) = self.actions.get_mut(id) else { return };
        action.lease = None;
        action.avoid = avoid;
        let (key, attempts) = (action.key.clone(), action.attempts);
        if action.once {
            let waiters = self.forget(id);
            return self.effects.push(Effect::Failed { key, waiters, failure: Failure::Lost { reason } });
        }
        if attempts >= self.config.max_attempts {
            let waiters = self.forget(id);
            let failure = Failure::AttemptsExhausted { attempts, last: reason };
            return self.effects.push(Effect::Failed { key, waiters, failure });
        }
        let waiters = action.waiters.clone();
        self.effects.push(Effect::Requeued { key, waiters, reason });
        self.wait(id);
    }

    pub(super) fn started(&mut self, lease: LeaseId) {
        let Some(Lease { action: Some(id), slot, .. }) = self.leases.get(&lease) else { return };
        let (Some(action), Some(worker)) = (self.actions.get(*id), self.workers.get(*slot)) else { return };
        let (key, worker, waiters) = (action.key.clone(), worker.id.clone(), action.waiters.clone());
        self.effects.push(Effect::Started { key, worker, waiters });
    }

    pub(super) fn finished(&mut self, worker: &WorkerId, lease: LeaseId, outcome: Outcome) {
        let Some(slot) = self.workers.slot(worker) else { return };
        let Some(record) = self.leases.get(&lease).filter(|record| record.slot == slot) else { return };
        let (key, orphaned) = (record.key.clone(), record.orphan_until.is_some());
        let action = self.end(lease);
        match (action, outcome) {
            (Some(id), Outcome::Completed) => {
                let waiters = self.forget(id);
                self.effects.push(Effect::Completed { key, lease, waiters });
            }
            (Some(id), Outcome::WorkerFault(reason)) => {
                self.retry(id, format!("worker `{}`: {reason}", worker.0), Some(slot));
            }
            (None, Outcome::Completed) if orphaned => {
                self.effects.push(Effect::Completed { key, lease, waiters: Vec::new() });
            }
            (None, _) => {}
        }
        self.fill(slot);
    }

    pub(super) fn drain(&mut self, worker: &WorkerId, on: bool) {
        let Some(slot) = self.workers.slot(worker) else { return };
        self.workers.update(slot, |worker| worker.draining = on);
        if on {
            self.release_worker(slot);
            self.place_avoiding();
        } else {
            self.fill(slot);
        }
    }

    /// Handles everything that only the passage of time causes.
    pub(super) fn expire(&mut self) {
        while let Some((_, slot)) = self.workers.next_lost().filter(|(at, _)| *at <= self.now) {
            let Some(worker) = self.workers.get(slot).map(|worker| worker.id.clone()) else { break };
            self.gone(&worker, false);
        }
        self.expire_orphans();
        self.expire_returning();
        self.give_up();
        self.reserve();
        self.settle_timers();
        self.inputs.tidy();
    }
}
