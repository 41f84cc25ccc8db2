//! The farm's workers, each in a slot to which leases refer, in groups with the same terms, to which classes refer.
//!
//! Invariant: what is counted and ordered of a group follows from its workers, because they change only through
//! [`Workers::update`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use fixedbitset::FixedBitSet;

use super::Map;
use super::inputs::HolderId;
use super::queue::{ClassId, GroupId};
use super::slab::Slab;
use super::types::{Capacity, LeaseId, Millis, Requirements, WorkerId, WorkerOffer};

/// What a worker runs and what it refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Terms {
    /// The properties that it offers.
    pub(super) properties: BTreeSet<(String, String)>,
    /// The properties that an action must require.
    pub(super) demands: BTreeSet<(String, String)>,
    /// The tenants whose actions it runs; empty for all.
    pub(super) tenants: BTreeSet<String>,
    /// Its total capacity.
    pub(super) capacity: Capacity,
}

impl Terms {
    pub(super) fn of(offer: &WorkerOffer) -> Self {
        let WorkerOffer { properties, demands, tenants, capacity, .. } = offer.clone();
        Self { properties, demands, tenants, capacity }
    }

    /// A part of its CPU in millionths.
    pub(super) fn share(&self, milli_cpus: u32) -> u64 {
        u64::from(milli_cpus) * 1_000_000 / u64::from(self.capacity.milli_cpus.max(1))
    }

    fn serve(&self, tenant: &str) -> bool {
        self.tenants.is_empty() || self.tenants.contains(tenant)
    }

    /// Whether an idle worker with these terms could run an action with these requirements.
    pub(super) fn allow(&self, requirements: &Requirements) -> bool {
        self.capacity.holds(&requirements.capacity)
            && self.serve(&requirements.tenant)
            && requirements.properties.is_subset(&self.properties)
            && self.demands.is_subset(&requirements.properties)
    }
}

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) terms: Arc<Terms>,
    pub(super) group: GroupId,
    pub(super) used: Capacity,
    /// In ascending order.
    pub(super) leases: Vec<LeaseId>,
    pub(super) draining: bool,
    /// When its leases are lost; `None` while it is connected.
    pub(super) lost_at: Option<Millis>,
    /// The class that it is reserved for.
    pub(super) reserved_for: Option<ClassId>,
    /// What it is among those that have inputs.
    pub(super) holder: HolderId,
    /// Under which share of free CPU its group lists it.
    listed: Option<u64>,
    /// Whether that may have changed.
    changed: bool,
}

impl Worker {
    pub(super) fn free(&self) -> Capacity {
        self.terms.capacity.minus(&self.used)
    }

    pub(super) fn takes_leases(&self) -> bool {
        self.lost_at.is_none() && !self.draining
    }

    /// How much of its CPU is free, in millionths.
    pub(super) fn free_share(&self) -> u64 {
        self.terms.share(self.free().milli_cpus)
    }

    pub(super) fn begins(&mut self, lease: LeaseId, reserved: &Capacity) {
        if let Err(at) = self.leases.binary_search(&lease) {
            self.leases.insert(at, lease);
            self.used = self.used.plus(reserved);
        }
    }

    pub(super) fn ends(&mut self, lease: LeaseId, reserved: &Capacity) {
        if let Ok(at) = self.leases.binary_search(&lease) {
            self.leases.remove(at);
            self.used = self.used.minus(reserved);
        }
    }

    /// Why it cannot run this.
    pub(super) fn lacks(&self, requirements: &Requirements) -> String {
        let terms = &*self.terms;
        let mut lacks = Vec::new();
        for (name, value) in requirements.properties.difference(&terms.properties) {
            let offered: Vec<&str> = terms
                .properties
                .iter()
                .filter(|(offered, _)| offered == name)
                .map(|(_, value)| value.as_str())
                .collect();
            lacks.push(if offered.is_empty() {
                format!("is missing required {name}={value}")
            } else {
                format!("has {name}={}, but {name}={value} is required", offered.join(","))
            });
        }
        for (name, value) in terms.demands.difference(&requirements.properties) {
            lacks.push(format!("accepts only work that requires {name}={value}"));
        }
        if !terms.serve(&requirements.tenant) {
            lacks.push("is bound to other tenants".to_owned());
        }
        let (has, asked) = (terms.capacity, requirements.capacity);
        if has.milli_cpus < asked.milli_cpus {
            let cpus = |milli: u32| f64::from(milli) / 1000.0;
            lacks.push(format!("has {} CPUs, but {} are required", cpus(has.milli_cpus), cpus(asked.milli_cpus)));
        }
        if has.memory_bytes < asked.memory_bytes {
            let mib = |bytes: u64| bytes >> 20;
            lacks.push(format!(
                "has {} MiB of memory, but {} MiB are required",
                mib(has.memory_bytes),
                mib(asked.memory_bytes)
            ));
        }
        format!("worker `{}` {}", self.id.0, lacks.join(" and "))
    }
}

/// Workers with the same terms.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) terms: Arc<Terms>,
    /// The indices of the classes whose actions they can run.
    pub(super) classes: FixedBitSet,
    /// Number of its workers.
    members: usize,
    /// Number of those that take leases.
    pub(super) taking: usize,
    /// Those that take leases and are reserved for no class: the least loaded first, by the share of their CPU that is free. As of
    /// the last [`Workers::settle`].
    pub(super) open: BTreeSet<(Reverse<u64>, usize)>,
}

/// All workers. Slots are reused after a worker has left, the lowest first.
#[derive(Debug, Default)]
pub(super) struct Workers {
    slots: Vec<Option<Worker>>,
    free_slots: BinaryHeap<Reverse<usize>>,
    by_name: Map<WorkerId, usize>,
    names: BTreeMap<WorkerId, usize>,
    /// Disconnected workers, ordered by the time when their leases are lost.
    away: BTreeSet<(Millis, usize)>,
    pub(super) groups: Slab<Group>,
    group_of: Map<Arc<Terms>, GroupId>,
    /// Slots of workers whose place in their group may have changed.
    changed: Vec<usize>,
    /// Groups in which the first worker began to take leases, or the last one stopped.
    pub(super) turned: Vec<GroupId>,
}

impl Workers {
    pub(super) fn slot(&self, id: &WorkerId) -> Option<usize> {
        self.by_name.get(id).copied()
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Worker> {
        self.slots.get(slot)?.as_ref()
    }

    pub(super) fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id)
    }

    /// The group of workers with these terms.
    pub(super) fn group_of(&self, terms: &Terms) -> Option<GroupId> {
        self.group_of.get(terms).copied()
    }

    /// Adds a group without workers.
    pub(super) fn add_group(&mut self, terms: Terms, classes: FixedBitSet) -> GroupId {
        let terms = Arc::new(terms);
        let group = Group { terms: terms.clone(), classes, members: 0, taking: 0, open: BTreeSet::new() };
        let id = self.groups.insert(group);
        self.group_of.insert(terms, id);
        id
    }

    /// The slot that the next worker gets.
    pub(super) fn next_slot(&self) -> usize {
        self.free_slots.peek().map_or(self.slots.len(), |Reverse(slot)| *slot)
    }

    /// Adds a worker to this group.
    pub(super) fn add(&mut self, id: WorkerId, group: GroupId, holder: HolderId) -> usize {
        let slot = self.free_slots.pop().map_or(self.slots.len(), |Reverse(slot)| slot);
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.by_name.insert(id.clone(), slot);
        self.names.insert(id.clone(), slot);
        self.slots[slot] = Some(Worker {
            id,
            terms: Arc::default(),
            group,
            used: Capacity::default(),
            leases: Vec::new(),
            draining: false,
            lost_at: None,
            reserved_for: None,
            holder,
            listed: None,
            changed: false,
        });
        self.enter(slot, group);
        slot
    }

    /// Moves a worker to another group; returns the group that it leaves if nobody is left in it.
    pub(super) fn regroup(&mut self, slot: usize, group: GroupId) -> Option<(GroupId, Group)> {
        let emptied = self.exit(slot);
        self.enter(slot, group);
        emptied
    }

    fn enter(&mut self, slot: usize, id: GroupId) {
        let (Some(Some(worker)), Some(group)) = (self.slots.get_mut(slot), self.groups.get_mut(id)) else { return };
        worker.group = id;
        worker.terms = group.terms.clone();
        group.members += 1;
        if worker.takes_leases() {
            group.taking += 1;
            if group.taking == 1 {
                self.turned.push(id);
            }
        }
        self.update(slot, |_| ());
    }

    fn exit(&mut self, slot: usize) -> Option<(GroupId, Group)> {
        let worker = self.slots.get_mut(slot)?.as_mut()?;
        let id = worker.group;
        let group = self.groups.get_mut(id)?;
        if let Some(share) = worker.listed.take() {
            group.open.remove(&(Reverse(share), slot));
        }
        group.members -= 1;
        if worker.takes_leases() {
            group.taking -= 1;
            if group.taking == 0 {
                self.turned.push(id);
            }
        }
        if group.members > 0 {
            return None;
        }
        let group = self.groups.remove(id)?;
        self.group_of.remove(&group.terms);
        Some((id, group))
    }

    /// Changes a worker.
    pub(super) fn update<T>(&mut self, slot: usize, change: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        let worker = self.slots.get_mut(slot)?.as_mut()?;
        let before = worker.takes_leases();
        let result = change(worker);
        let after = worker.takes_leases();
        if before != after
            && let Some(group) = self.groups.get_mut(worker.group)
        {
            group.taking = if after { group.taking + 1 } else { group.taking - 1 };
            if group.taking == usize::from(after) {
                self.turned.push(worker.group);
            }
        }
        if !worker.changed {
            worker.changed = true;
            self.changed.push(slot);
        }
        Some(result)
    }

    /// Puts all workers in their places in their groups.
    pub(super) fn settle(&mut self) {
        for slot in self.changed.drain(..) {
            let Some(Some(worker)) = self.slots.get_mut(slot) else { continue };
            let Some(group) = self.groups.get_mut(worker.group) else { continue };
            worker.changed = false;
            let is_open = worker.takes_leases() && worker.reserved_for.is_none();
            let share = is_open.then(|| worker.free_share());
            if share == worker.listed {
                continue;
            }
            if let Some(share) = worker.listed {
                group.open.remove(&(Reverse(share), slot));
            }
            if let Some(share) = share {
                group.open.insert((Reverse(share), slot));
            }
            worker.listed = share;
        }
    }

    /// Removes a worker; also returns its group if nobody is left in it.
    pub(super) fn remove(&mut self, slot: usize) -> Option<(Worker, Option<(GroupId, Group)>)> {
        let emptied = self.exit(slot);
        let worker = self.slots.get_mut(slot)?.take()?;
        self.free_slots.push(Reverse(slot));
        self.by_name.remove(&worker.id);
        self.names.remove(&worker.id);
        if let Some(at) = worker.lost_at {
            self.away.remove(&(at, slot));
        }
        Some((worker, emptied))
    }

    /// Records that a worker disconnected; its leases are lost at `until`, unless it was disconnected before.
    pub(super) fn leaves(&mut self, slot: usize, until: Millis) {
        if self.get(slot).is_some_and(|worker| worker.lost_at.is_none()) {
            self.update(slot, |worker| worker.lost_at = Some(until));
            self.away.insert((until, slot));
        }
    }

    /// Records that a worker is connected again.
    pub(super) fn returns(&mut self, slot: usize) {
        if let Some(at) = self.get(slot).and_then(|worker| worker.lost_at) {
            self.update(slot, |worker| worker.lost_at = None);
            self.away.remove(&(at, slot));
        }
    }

    /// The next worker whose leases are lost, and when.
    pub(super) fn next_lost(&self) -> Option<(Millis, usize)> {
        self.away.first().copied()
    }

    /// All workers by name, with their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Worker)> {
        self.names.values().filter_map(|slot| Some((*slot, self.get(*slot)?)))
    }

    /// All workers by slot.
    pub(super) fn by_slot(&self) -> impl Iterator<Item = (usize, &Worker)> {
        self.slots.iter().enumerate().filter_map(|(slot, worker)| Some((slot, worker.as_ref()?)))
    }
}
