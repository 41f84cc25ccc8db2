//! Chooses the worker for an action, and the next action for a worker with free capacity.
//!
//! Invariant: after each event, no queued action fits a worker that accepts leases, unless that worker is reserved for
//! an action that has waited long, or the action waits for another worker than the one that failed it last.

use super::queue::{ActionId, Class, ClassId, Rank};
use super::types::{Capacity, Effect, Millis, Requirements};
use super::{Lease, Scheduler};

/// Number of classes above which those without waiting actions are removed.
const IDLE_CLASSES: usize = 4096;

impl Scheduler {
    /// The class for these requirements, created if missing.
    pub(super) fn class(&mut self, requirements: &Requirements) -> ClassId {
        if let Some(class) = self.class_of.get(requirements) {
            return *class;
        }
        if self.classes.len() >= IDLE_CLASSES && self.busy.len() < IDLE_CLASSES / 2 {
            self.forget_idle_classes();
        }
        let id = self.classes.len();
        let mut class = Class::new(requirements.clone());
        let matching: Vec<usize> =
            self.workers.iter().filter(|(_, worker)| worker.matches(requirements)).map(|(slot, _)| slot).collect();
        for slot in matching {
            class.workers.insert(slot);
            if let Some(worker) = self.workers.get_mut(slot) {
                worker.classes.insert(id);
            }
        }
        self.classes.push(class);
        self.class_of.insert(requirements.clone(), id);
        id
    }

    fn forget_idle_classes(&mut self) {
        let slots: Vec<usize> = self.workers.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if let Some(worker) = self.workers.get_mut(slot) {
                worker.classes.clear();
                worker.reserved_for = None;
            }
        }
        let kept: Vec<Class> =
            std::mem::take(&mut self.classes).into_iter().filter(|class| !class.waiting.is_empty()).collect();
        self.class_of.clear();
        self.busy = (0..kept.len()).collect();
        for (id, mut class) in kept.into_iter().enumerate() {
            class.reserved = None;
            for slot in &class.workers {
                if let Some(worker) = self.workers.get_mut(*slot) {
                    worker.classes.insert(id);
                }
            }
            self.class_of.insert(class.requirements.clone(), id);
            self.classes.push(class);
        }
    }

    pub(super) fn enqueue(&mut self, id: ActionId) {
        let Some(action) = self.actions.get(&id) else { return };
        let (requirements, position, avoiding) = (action.requirements.clone(), action.position, action.avoid.is_some());
        let class = self.class(&requirements);
        if avoiding {
            self.classes[class].insert_avoiding(id);
        } else {
            self.classes[class].insert(position, &self.shares);
        }
        self.busy.insert(class);
        // The newest action may have a shorter timeout than those already waiting.
        self.classes[class].first_timeout = 0;
    }

    pub(super) fn dequeue(&mut self, id: ActionId) {
        let Some(action) = self.actions.get(&id) else { return };
        let Some(class) = self.class_of.get(&action.requirements).copied() else { return };
        self.classes[class].remove(action.position);
        if self.classes[class].waiting.is_empty() {
            self.busy.remove(&class);
            self.classes[class].absent_since = None;
            self.release(class);
        }
    }

    /// Ends a reservation; the caller then fills the worker.
    pub(super) fn release(&mut self, class: ClassId) -> Option<usize> {
        let slot = self.classes[class].reserved.take()?;
        if let Some(worker) = self.workers.get_mut(slot) {
            worker.reserved_for = None;
        }
        Some(slot)
    }

    /// Assigns a queued action to a worker with free capacity, if there is one: the one with most of its inputs, else
    /// the least loaded.
    pub(super) fn place(&mut self, id: ActionId) {
        let Some(action) = self.actions.get(&id) else { return };
        let Some(class_id) = self.class_of.get(&action.requirements).copied() else { return };
        if self.is_held(class_id) {
            return;
        }
        let class = &self.classes[class_id];
        let mut best: Option<((bool, usize, u64), usize)> = None;
        for slot in &class.workers {
            let Some(worker) = self.workers.get(*slot) else { continue };
            let free = worker.free();
            let kept = worker.reserved_for.is_some_and(|class| class != class_id);
            if kept || !worker.takes_leases() || !free.holds(&action.requirements.capacity) {
                continue;
            }
            let share = u64::from(free.milli_cpus) * 1_000_000 / u64::from(worker.terms.capacity.milli_cpus.max(1));
            let affinity = if action.inputs.is_empty() { 0 } else { worker.affinity(&action.inputs) };
            let score = (action.avoid != Some(*slot), affinity, share);
            if best.is_none_or(|(known, _)| score > known) {
                best = Some((score, *slot));
            }
        }
        if let Some((_, slot)) = best.filter(|(score, _)| score.0 || self.only_choice(class_id, id)) {
            self.assign(id, slot);
        }
    }

    /// Whether only the worker that failed it last could run this action.
    fn only_choice(&self, class: ClassId, id: ActionId) -> bool {
        let avoid = self.actions.get(&id).and_then(|action| action.avoid);
        !self.classes[class]
            .workers
            .iter()
            .any(|slot| Some(*slot) != avoid && self.workers.get(*slot).is_some_and(|worker| worker.takes_leases()))
    }

    /// Assigns the next actions to a worker, for as long as it has capacity.
    pub(super) fn fill(&mut self, slot: usize) {
        loop {
            let Some(worker) = self.workers.get(slot) else { return };
            if !worker.takes_leases() {
                return;
            }
            let (free, reserved_for) = (worker.free(), worker.reserved_for);
            if free.milli_cpus == 0 {
                return;
            }
            let candidates: Vec<ClassId> = match reserved_for {
                Some(class) => vec![class],
                None if self.busy.len() < worker.classes.len() => {
                    self.busy.iter().filter(|class| worker.classes.contains(class)).copied().collect()
                }
                None => worker.classes.iter().filter(|class| self.busy.contains(class)).copied().collect(),
            };
            let mut best: Option<(Rank, ActionId)> = None;
            for class in candidates {
                if !free.holds(&self.classes[class].requirements.capacity) || self.is_held(class) {
                    continue;
                }
                let head = self.classes[class].head(&self.shares);
                let avoiding = self.classes[class].avoiding.iter().filter_map(|id| {
                    let action = self.actions.get(id)?;
                    let takes_it = action.avoid != Some(slot) || self.only_choice(class, *id);
                    takes_it.then(|| (action.position.rank(&self.shares), *id))
                });
                best = best.into_iter().chain(head).chain(avoiding).min();
            }
            let Some((_, id)) = best else { return };
            self.assign(id, slot);
        }
    }

    fn assign(&mut self, id: ActionId, slot: usize) {
        self.dequeue(id);
        let lease = self.lease_ids.next();
        let Some(action) = self.actions.get_mut(&id) else { return };
        let Some(worker) = self.workers.get_mut(slot) else { return };
        action.attempts += 1;
        action.lease = Some(lease);
        action.avoid = None;
        let reserved = action.requirements.capacity;
        if let Some(class) = self.class_of.get(&action.requirements) {
            self.classes[*class].served = self.now;
        }
        worker.used = worker.used.plus(&reserved);
        worker.leases.insert(lease);
        worker.remember(&action.inputs);
        self.shares.charge(action.position.shares, reserved.milli_cpus);
        let record = Lease { slot, key: action.key.clone(), reserved, action: Some(id), orphan_until: None };
        self.leases.insert(lease, record);
        self.effects.push(Effect::Assign {
            worker: worker.id.clone(),
            lease,
            key: action.key.clone(),
            attempt: action.attempts,
            reserved,
        });
        let class = worker.reserved_for;
        if let Some(class) = class {
            self.release(class);
        }
    }

    /// Whether a worker may be reserved for a class.
    pub(super) fn waits_for_reservation(&self, class: ClassId) -> bool {
        let class = &self.classes[class];
        class.reserved.is_none() && !class.requirements.opportunistic
    }

    /// How many more actions with these requirements would start at once.
    pub fn room(&mut self, requirements: &Requirements) -> usize {
        let class = self.class(requirements);
        if self.is_held(class) {
            return 0;
        }
        let (class, wanted) = (&self.classes[class], requirements.capacity);
        let fits = |slot: &usize| {
            let worker = self.workers.get(*slot)?;
            let is_open = worker.takes_leases() && worker.reserved_for.is_none();
            let free = if is_open { worker.free() } else { Capacity::default() };
            let by_cpus = free.milli_cpus / wanted.milli_cpus.max(1);
            let by_memory = free.memory_bytes.checked_div(wanted.memory_bytes).unwrap_or(u64::MAX);
            Some(u64::from(by_cpus).min(by_memory) as usize)
        };
        let free: usize = class.workers.iter().filter_map(fits).sum();
        free.saturating_sub(class.waiting.len())
    }

    /// Since when a class with waiting actions has not been served.
    pub(super) fn passed_over_since(&self, class: ClassId) -> Option<Millis> {
        let class = &self.classes[class];
        let oldest = self.actions.get(class.waiting.first()?)?;
        Some(oldest.submitted.max(class.served))
    }

    /// Reserves a worker for each class that was passed over for long: the one that is closest to being free. A class
    /// that is served slowly gets its turns and needs no reservation.
    pub(super) fn reserve(&mut self) {
        let mut long: Vec<(Millis, ClassId)> = self
            .busy
            .iter()
            .filter(|class| self.waits_for_reservation(**class) && !self.is_held(**class))
            .filter_map(|class| Some((self.passed_over_since(*class)?, *class)))
            .filter(|(since, _)| self.now >= since.saturating_add(self.config.reserve_after))
            .collect();
        long.sort_unstable();
        for (_, class) in long {
            let wanted = self.classes[class].requirements.capacity;
            let slot = self.classes[class]
                .workers
                .iter()
                .filter_map(|slot| Some((*slot, self.workers.get(*slot)?)))
                .filter(|(_, worker)| worker.takes_leases() && worker.reserved_for.is_none())
                .min_by_key(|(slot, worker)| (wanted.minus(&worker.free()), *slot))
                .map(|(slot, _)| slot);
            let Some(slot) = slot else { continue };
            self.classes[class].reserved = Some(slot);
            if let Some(worker) = self.workers.get_mut(slot) {
                worker.reserved_for = Some(class);
            }
        }
    }
}
