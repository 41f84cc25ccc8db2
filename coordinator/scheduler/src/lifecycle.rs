//! The life of actions, leases and workers: submitted, merged, lost, adopted, finished, given up.

use super::queue::Position;
use super::types::{
    ActionKey, Effect, Failure, LeaseId, Millis, Outcome, RunningLease, Submission, WaiterId, WorkerId, WorkerOffer,
};
use super::workers::{Terms, Worker};
use super::{Action, Lease, Scheduler};

impl Scheduler {
    pub(super) fn submit(&mut self, submission: Submission) {
        let Submission { waiter, key, requirements, share, build, priority, path_weight, inputs, wait_limit, once } =
            submission;
        let wait_limit = wait_limit.unwrap_or(self.config.queue_timeout);
        if let Some(id) = self.keys.get(&key).copied() {
            self.waiters.insert(waiter, id);
            return self.join(id, waiter, priority, wait_limit);
        }
        let id = self.next_action;
        self.next_action += 1;
        let shares = self.shares.open(&share, &build);
        let position = Position { priority, shares, path_weight, id };
        let action = Action {
            key: key.clone(),
            requirements,
            position,
            inputs,
            waiters: vec![waiter],
            attempts: 0,
            lease: None,
            submitted: self.now,
            queued: self.now,
            wait_limit,
            avoid: None,
            once,
        };
        self.actions.insert(id, action);
        self.keys.insert(key.clone(), id);
        self.waiters.insert(waiter, id);
        if let Some(lease) = self.orphans.remove(&key) {
            return self.adopt(id, lease);
        }
        self.wait(id);
    }

    fn join(&mut self, id: u64, waiter: WaiterId, priority: i32, wait_limit: Millis) {
        let Some(action) = self.actions.get_mut(&id) else { return };
        action.waiters.push(waiter);
        action.wait_limit = action.wait_limit.max(wait_limit);
        if priority >= action.position.priority {
            return;
        }
        if action.lease.is_some() {
            action.position.priority = priority;
            return;
        }
        self.dequeue(id);
        if let Some(action) = self.actions.get_mut(&id) {
            action.position.priority = priority;
        }
        self.enqueue(id);
    }

    /// Queues an action, assigns it if a worker has capacity, and gives it up if none ever can.
    fn wait(&mut self, id: u64) {
        let Some(action) = self.actions.get_mut(&id) else { return };
        action.queued = self.now;
        let requirements = action.requirements.clone();
        let class = self.class(&requirements);
        self.enqueue(id);
        // If others without a worker to avoid wait in the class, no worker has capacity.
        let class = &self.classes[class];
        if class.avoiding.contains(&id) || class.waiting.len() - class.avoiding.len() == 1 {
            self.place(id);
        }
    }

    pub(super) fn leave(&mut self, waiter: WaiterId) {
        let Some(id) = self.waiters.remove(&waiter) else { return };
        let Some(action) = self.actions.get_mut(&id) else { return };
        action.waiters.retain(|known| *known != waiter);
        if !action.waiters.is_empty() {
            return;
        }
        match action.lease {
            Some(lease) => {
                if let Some(lease) = self.leases.get_mut(&lease) {
                    lease.action = None;
                }
                self.cancel(lease);
                self.forget(id);
            }
            None => {
                let class = self.class_of.get(&action.requirements).copied();
                let kept = class.and_then(|class| self.classes[class].reserved);
                self.dequeue(id);
                self.forget(id);
                if let Some(slot) = kept {
                    self.fill(slot);
                }
            }
        }
    }

    fn cancel(&mut self, lease: LeaseId) {
        let slot = self.leases.get(&lease).map(|lease| lease.slot);
        if let Some(worker) = slot.and_then(|slot| self.workers.get(slot)) {
            self.effects.push(Effect::CancelLease { worker: worker.id.clone(), lease });
        }
    }

    /// Removes an action from everything but the queues; returns the waiting callers.
    pub(super) fn forget(&mut self, id: u64) -> Vec<WaiterId> {
        let Some(action) = self.actions.remove(&id) else { return Vec::new() };
        self.keys.remove(&action.key);
        self.shares.close(action.position.shares);
        for waiter in &action.waiters {
            self.waiters.remove(waiter);
        }
        action.waiters
    }

    fn adopt(&mut self, id: u64, lease: LeaseId) {
        let (Some(action), Some(record)) = (self.actions.get_mut(&id), self.leases.get_mut(&lease)) else { return };
        action.lease = Some(lease);
        action.attempts += 1;
        record.action = Some(id);
        record.orphan_until = None;
        let Some(worker) = self.workers.get_mut(record.slot) else { return };
        worker.remember(&action.inputs);
        let (key, worker) = (action.key.clone(), worker.id.clone());
        self.effects.push(Effect::Adopted { key, lease, worker });
    }

    pub(super) fn joined(&mut self, offer: WorkerOffer) {
        let WorkerOffer { worker: id, properties, demands, tenants, capacity, draining, running } = offer;
        let back = id.clone();
        let slot = match self.workers.slot(&id) {
            Some(slot) => slot,
            None => self.workers.add(Worker::new(id)),
        };
        self.workers.returns(slot);
        self.worker_came(slot);
        let Some(worker) = self.workers.get_mut(slot) else { return };
        let terms = Terms { properties, demands, tenants, capacity };
        let changed = worker.terms != terms;
        worker.terms = terms;
        worker.draining = draining;
        let named: Vec<LeaseId> = running.iter().map(|running| running.lease).collect();
        let unnamed: Vec<LeaseId> = worker.leases.iter().filter(|lease| !named.contains(lease)).copied().collect();
        if changed {
            self.match_classes(slot);
        }
        for running in running {
            self.brought(slot, running);
        }
        for lease in unnamed {
            self.lost(lease, "the worker came back without it");
        }
        self.returned(&back);
        self.fill(slot);
    }

    fn match_classes(&mut self, slot: usize) {
        let Some(worker) = self.workers.get_mut(slot) else { return };
        worker.classes.clear();
        for (id, class) in self.classes.iter_mut().enumerate() {
            if worker.matches(&class.requirements) {
                class.workers.insert(slot);
                worker.classes.insert(id);
            } else {
                class.workers.remove(&slot);
                if class.reserved == Some(slot) {
                    class.reserved = None;
                    worker.reserved_for = None;
                }
            }
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
        if let Some(worker) = self.workers.get_mut(slot) {
            worker.used = worker.used.plus(&reserved);
            worker.leases.insert(lease);
        }
        let record = Lease { slot, key: key.clone(), reserved, action: None, orphan_until: None };
        self.leases.insert(lease, record);
        match self.keys.get(&key).copied() {
            Some(id) if self.actions.get(&id).is_some_and(|action| action.lease.is_none()) => {
                self.dequeue(id);
                self.adopt(id, lease);
            }
            Some(_) => self.cancel(lease),
            None if self.orphans.contains_key(&key) => self.cancel(lease),
            None => {
                let until = self.now.saturating_add(self.config.orphan_grace);
                if let Some(record) = self.leases.get_mut(&lease) {
                    record.orphan_until = Some(until);
                }
                self.orphans.insert(key, lease);
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
        let Some(worker) = self.workers.remove(slot) else { return };
        self.expect_back(&worker);
        for class in &worker.classes {
            self.classes[*class].workers.remove(&slot);
        }
        // Slots are reused: no action may continue to avoid this one.
        let trusting: Vec<u64> =
            self.actions.iter().filter(|(_, action)| action.avoid == Some(slot)).map(|(id, _)| *id).collect();
        for id in trusting {
            self.dequeue(id);
            if let Some(action) = self.actions.get_mut(&id) {
                action.avoid = None;
            }
            self.wait(id);
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
        let avoiding: Vec<u64> =
            self.busy.iter().flat_map(|class| self.classes[*class].avoiding.iter().copied()).collect();
        avoiding.into_iter().for_each(|id| self.place(id));
    }

    /// Does not count this lease as an attempt, because nothing went wrong.
    fn uncount(&mut self, lease: LeaseId) {
        let action = self.leases.get(&lease).and_then(|lease| lease.action);
        if let Some(action) = action.and_then(|id| self.actions.get_mut(&id)) {
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
    fn end(&mut self, lease: LeaseId) -> Option<u64> {
        let record = self.leases.remove(&lease)?;
        self.ended.push(lease);
        if let Some(worker) = self.workers.get_mut(record.slot)
            && worker.leases.remove(&lease)
        {
            worker.used = worker.used.minus(&record.reserved);
        }
        if self.orphans.get(&record.key) == Some(&lease) {
            self.orphans.remove(&record.key);
        }
        record.action
    }

    fn retry(&mut self, id: u64, reason: String, avoid: Option<usize>) {
        let Some(action) = self.actions.get_mut(&id) else { return };
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
        let (Some(action), Some(worker)) = (self.actions.get(id), self.workers.get(*slot)) else { return };
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
        if let Some(worker) = self.workers.get_mut(slot) {
            worker.draining = on;
        }
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
        if !self.orphans.is_empty() {
            self.expire_orphans();
        }
        self.expire_returning();
        self.give_up();
        self.reserve();
    }

    fn expire_orphans(&mut self) {
        let mut over: Vec<(LeaseId, ActionKey)> = self
            .orphans
            .iter()
            .filter(|(_, lease)| {
                self.leases.get(lease).and_then(|lease| lease.orphan_until).is_none_or(|until| until <= self.now)
            })
            .map(|(key, lease)| (*lease, key.clone()))
            .collect();
        over.sort();
        for (lease, key) in over {
            self.orphans.remove(&key);
            if let Some(record) = self.leases.get_mut(&lease) {
                record.orphan_until = None;
            }
            self.cancel(lease);
        }
    }
}
