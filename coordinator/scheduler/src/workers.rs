//! The farm's workers, each in a slot to which leases and classes refer.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use super::queue::ClassId;
use super::types::{Capacity, LeaseId, Millis, Requirements, WorkerId, WorkerOffer};

/// Number of input directories remembered of each worker.
const REMEMBERED_INPUTS: usize = 4096;

/// What a worker runs and what it refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    pub(super) terms: Terms,
    pub(super) used: Capacity,
    pub(super) leases: BTreeSet<LeaseId>,
    pub(super) draining: bool,
    /// When its leases are lost; `None` while it is connected.
    pub(super) lost_at: Option<Millis>,
    /// Classes whose actions it can run.
    pub(super) classes: BTreeSet<ClassId>,
    /// The class that it is reserved for.
    pub(super) reserved_for: Option<ClassId>,
    recent: HashSet<u64>,
    recent_order: VecDeque<u64>,
}

impl Worker {
    pub(super) fn new(id: WorkerId) -> Self {
        Worker {
            id,
            terms: Terms::default(),
            used: Capacity::default(),
            leases: BTreeSet::new(),
            draining: false,
            lost_at: None,
            classes: BTreeSet::new(),
            reserved_for: None,
            recent: HashSet::new(),
            recent_order: VecDeque::new(),
        }
    }

    pub(super) fn free(&self) -> Capacity {
        self.terms.capacity.minus(&self.used)
    }

    pub(super) fn takes_leases(&self) -> bool {
        self.lost_at.is_none() && !self.draining
    }

    /// Whether it could ever run this if it were idle.
    pub(super) fn matches(&self, requirements: &Requirements) -> bool {
        self.terms.allow(requirements)
    }

    pub(super) fn remember(&mut self, inputs: &[u64]) {
        for input in inputs {
            if self.recent.insert(*input) {
                self.recent_order.push_back(*input);
            }
        }
        while self.recent_order.len() > REMEMBERED_INPUTS {
            if let Some(old) = self.recent_order.pop_front() {
                self.recent.remove(&old);
            }
        }
    }

    /// How many of these inputs it recently had.
    pub(super) fn affinity(&self, inputs: &[u64]) -> usize {
        inputs.iter().filter(|input| self.recent.contains(input)).count()
    }

    /// Why it cannot run this.
    pub(super) fn lacks(&self, requirements: &Requirements) -> String {
        let terms = &self.terms;
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

/// All workers. Slots are reused after a worker has left.
#[derive(Debug, Default)]
pub(super) struct Workers {
    slots: Vec<Option<Worker>>,
    by_name: BTreeMap<WorkerId, usize>,
    /// Disconnected workers, ordered by the time when their leases are lost.
    away: BTreeSet<(Millis, usize)>,
}

impl Workers {
    pub(super) fn slot(&self, id: &WorkerId) -> Option<usize> {
        self.by_name.get(id).copied()
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Worker> {
        self.slots.get(slot)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Worker> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(super) fn add(&mut self, worker: Worker) -> usize {
        let id = worker.id.clone();
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(worker);
        self.by_name.insert(id, slot);
        slot
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<Worker> {
        let worker = self.slots.get_mut(slot)?.take()?;
        self.by_name.remove(&worker.id);
        if let Some(at) = worker.lost_at {
            self.away.remove(&(at, slot));
        }
        Some(worker)
    }

    /// Records that a worker disconnected; its leases are lost at `until`, unless it was disconnected before.
    pub(super) fn leaves(&mut self, slot: usize, until: Millis) {
        let Some(worker) = self.get_mut(slot).filter(|worker| worker.lost_at.is_none()) else { return };
        worker.lost_at = Some(until);
        self.away.insert((until, slot));
    }

    /// Records that a worker is connected again.
    pub(super) fn returns(&mut self, slot: usize) {
        if let Some(at) = self.get_mut(slot).and_then(|worker| worker.lost_at.take()) {
            self.away.remove(&(at, slot));
        }
    }

    /// The next worker whose leases are lost, and when.
    pub(super) fn next_lost(&self) -> Option<(Millis, usize)> {
        self.away.first().copied()
    }

    /// All workers by name, with their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Worker)> {
        self.by_name.values().filter_map(|slot| Some((*slot, self.get(*slot)?)))
    }
}
