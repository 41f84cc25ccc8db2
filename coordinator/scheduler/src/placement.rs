//! Gives actions to workers: an action to the best worker with free capacity, and to a worker with free capacity the next
//! actions.
//!
//! Invariant: after each event, no queued action fits a worker that accepts leases, unless that worker is reserved for
//! an action that has waited long, or the action waits for another worker than the one that failed it last.

use fixedbitset::FixedBitSet;

use super::queue::{ActionId, ClassId, GroupId, Rank};
use super::types::{Effect, Requirements};
use super::workers::{Group, Terms};
use super::{Lease, Scheduler};

impl Scheduler {
    /// The class for these requirements, created if missing.
    pub(super) fn class(&mut self, requirements: &Requirements) -> ClassId {
        if let Some(class) = self.classes.of(requirements) {
            return class;
        }
        if self.classes.are_many() {
            self.forget_idle_classes();
        }
        let id = self.classes.add(requirements);
        let class = &mut self.classes[id];
        class.held = self.returning.may_run(requirements);
        for (group_id, group) in self.workers.groups.iter_mut() {
            if group.terms.allow(requirements) {
                group.classes.grow_and_insert(id.index as usize);
                class.groups.push(group_id);
            }
        }
        id
    }

    fn forget_idle_classes(&mut self) {
        for (id, class) in self.classes.sweep() {
            for group in class.groups {
                if let Some(group) = self.workers.groups.get_mut(group) {
                    group.classes.remove(id.index as usize);
                }
            }
        }
    }

    /// The group of workers with these terms, created if missing.
    pub(super) fn group(&mut self, terms: Terms) -> GroupId {
        if let Some(group) = self.workers.group_of(&terms) {
            return group;
        }
        let mut allowed = Vec::new();
        let mut indices = FixedBitSet::new();
        for (id, class) in self.classes.iter() {
            if terms.allow(&class.requirements) {
                allowed.push(id);
                indices.grow_and_insert(id.index as usize);
            }
        }
        let group = self.workers.add_group(terms, indices);
        for class in allowed {
            self.classes[class].groups.push(group);
        }
        group
    }

    /// Takes a group whose last worker is gone from its classes.
    pub(super) fn forget_group(&mut self, emptied: Option<(GroupId, Group)>) {
        let Some((id, group)) = emptied else { return };
        for (class_id, class) in self.classes.iter_mut() {
            if group.classes.contains(class_id.index as usize) {
                class.groups.retain(|known| *known != id);
            }
        }
        let busy = self.classes.busy().iter().copied();
        let bereft: Vec<ClassId> = busy.filter(|class| group.classes.contains(class.index as usize)).collect();
        bereft.into_iter().for_each(|class| self.classes.check(class));
    }

    pub(super) fn enqueue(&mut self, id: ActionId) {
        let Some(action) = self.actions.get(id) else { return };
        let (class, position) = (action.class, action.position);
        let due = action.submitted.max(self.classes[class].served).saturating_add(self.config.reserve_after);
        let one = &mut self.classes[class];
        if let Some(since) = one.absent_since {
            one.first_timeout = one.first_timeout.min(action.queued.max(since).saturating_add(action.wait_limit));
        }
        self.classes.insert(class, id, action.avoid.is_none().then_some(position), &self.shares);
        let one = &self.classes[class];
        if one.absent_since.is_none() && self.waits_for_reservation(class) && one.timer.is_none_or(|timer| due < timer)
        {
            self.classes.set_timer(class, Some(due));
        }
    }

    pub(super) fn dequeue(&mut self, id: ActionId) {
        let Some(action) = self.actions.get(id) else { return };
        let (class, position) = (action.class, action.position);
        if self.classes.remove(class, id, position) {
            self.release(class);
        }
    }

    /// Ends a reservation; the caller then fills the worker.
    pub(super) fn release(&mut self, class: ClassId) -> Option<usize> {
        let slot = self.classes[class].reserved.take()?;
        self.workers.update(slot, |worker| worker.reserved_for = None);
        if !self.classes[class].waiting.is_empty() {
            // It is seen at the end of this step whether it needs another.
            self.classes.set_timer(class, Some(self.now));
        }
        Some(slot)
    }

    /// Assigns a waiting action to a worker with free capacity, if there is one; whether there was.
    pub(super) fn place(&mut self, id: ActionId) -> bool {
        let Some(action) = self.actions.get_mut(id) else { return false };
        let (class, avoid) = (action.class, action.avoid);
        if self.classes[class].held {
            return false;
        }
        let inputs = std::mem::take(&mut action.inputs);
        let best = self.best_worker(class, &inputs, avoid);
        if let Some(action) = self.actions.get_mut(id) {
            action.inputs = inputs;
        }
        let only = avoid.filter(|slot| self.avoided_has_room(class, *slot) && self.only_choice(class, avoid));
        let Some(slot) = best.or(only) else { return false };
        self.assign(id, slot);
        true
    }

    /// Assigns the next actions to a worker, for as long as it has capacity.
    pub(super) fn fill(&mut self, slot: usize) {
        while let Some(id) = self.next_for(slot) {
            self.assign(id, slot);
        }
    }

    /// The waiting action that a worker should run next.
    fn next_for(&mut self, slot: usize) -> Option<ActionId> {
        let Self { workers, classes, actions, shares, .. } = self;
        let worker = workers.get(slot).filter(|worker| worker.takes_leases())?;
        let (free, group) = (worker.free(), workers.group(worker.group)?);
        if free.milli_cpus == 0 {
            return None;
        }
        let mut best: Option<Rank> = None;
        let mut avoided = Vec::new();
        for at in 0..classes.busy().len() {
            let id = classes.busy()[at];
            if worker.reserved_for.is_some_and(|reserved| reserved != id) || !group.classes.contains(id.index as usize)
            {
                continue;
            }
            let class = &mut classes[id];
            if class.held || !free.holds(&class.requirements.capacity) {
                continue;
            }
            best = best.into_iter().chain(class.head(shares)).min();
            for id in &class.avoiding {
                let Some(action) = actions.get(*id) else { continue };
                let rank = action.position.rank(*id, shares);
                match action.avoid == Some(slot) {
                    true => avoided.push((rank, action.class)),
                    false => best = best.into_iter().chain([rank]).min(),
                }
            }
        }
        let only = avoided.into_iter().filter(|(_, class)| self.only_choice(*class, Some(slot))).map(|(rank, _)| rank);
        best.into_iter().chain(only).min().map(|(.., id)| id)
    }

    fn assign(&mut self, id: ActionId, slot: usize) {
        let lease = self.lease_ids.next();
        self.dequeue(id);
        let Some(action) = self.actions.get_mut(id) else { return };
        action.attempts += 1;
        action.lease = Some(lease);
        action.avoid = None;
        let class = &mut self.classes[action.class];
        class.served = self.now;
        let reserved = class.requirements.capacity;
        let begun = self.workers.update(slot, |worker| {
            worker.begins(lease, &reserved);
            (worker.id.clone(), worker.holder, worker.reserved_for)
        });
        let Some((worker, holder, reserved_for)) = begun else { return };
        self.inputs.remember(holder, &action.inputs);
        self.shares.charge(action.position.shares, reserved.milli_cpus);
        let record = Lease { slot, key: action.key.clone(), reserved, action: Some(id), orphan_until: None };
        self.leases.insert(lease, record);
        self.effects.push(Effect::Assign {
            worker,
            lease,
            key: action.key.clone(),
            attempt: action.attempts,
            reserved,
        });
        if let Some(class) = reserved_for {
            self.release(class);
        }
    }

    /// How many more actions with these requirements would start at once.
    pub fn room(&mut self, requirements: &Requirements) -> usize {
        let class = self.class(requirements);
        self.workers.settle();
        let (class, wanted) = (&self.classes[class], requirements.capacity);
        if class.held {
            return 0;
        }
        let mut free = 0_u64;
        for group in class.groups.iter().filter_map(|group| self.workers.group(*group)) {
            for (_, slot) in &group.open {
                let Some(worker) = self.workers.get(*slot) else { continue };
                let room = worker.free();
                if room.milli_cpus < wanted.milli_cpus {
                    // Those that follow have no more.
                    break;
                }
                let by_cpus = room.milli_cpus / wanted.milli_cpus.max(1);
                let by_memory = room.memory_bytes.checked_div(wanted.memory_bytes).unwrap_or(u64::MAX);
                free += u64::from(by_cpus).min(by_memory);
            }
        }
        (free as usize).saturating_sub(class.waiting.len())
    }
}
