//! Queues by what an action asks for: one class for each distinct [`Requirements`], so that all of a class fit the same workers.
//!
//! Invariant: within a class the order is priority, then the tenant's and the build's fair share, then the longest path, then age.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::shares::{ShareId, Shares};
use super::types::{Millis, Requirements};

/// Number of an action, in order of submission.
pub(super) type ActionId = u64;
/// Number of a class.
pub(super) type ClassId = usize;

/// Where an action stands in its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) priority: i32,
    pub(super) shares: (ShareId, ShareId),
    pub(super) path_weight: u64,
    pub(super) id: ActionId,
}

impl Position {
    /// What it is weighed by against others.
    pub(super) fn rank(&self, shares: &Shares) -> Rank {
        let (tenant, build) = self.shares;
        let times = (shares.virtual_time(tenant), shares.virtual_time(build));
        (self.priority, times.0, times.1, Reverse(self.path_weight), self.id)
    }
}

/// What decides between the heads of two classes; the smaller goes first.
pub(super) type Rank = (i32, u64, u64, Reverse<u64>, ActionId);

type Build = BTreeSet<(Reverse<u64>, ActionId)>;

#[derive(Debug, Default)]
struct Tenant {
    builds: HashMap<ShareId, Build>,
    order: BTreeSet<(u64, ShareId)>,
}

#[derive(Debug, Default)]
struct Level {
    tenants: HashMap<ShareId, Tenant>,
    order: BTreeSet<(u64, ShareId)>,
}

/// All queued actions with the same requirements.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) requirements: Requirements,
    /// Workers that offer what it asks for and are large enough, by slot.
    pub(super) workers: BTreeSet<usize>,
    /// The worker that is kept free for its head.
    pub(super) reserved: Option<usize>,
    /// Ids of what waits, oldest first.
    pub(super) waiting: BTreeSet<ActionId>,
    /// Those of them that would rather not go to the worker that failed them last: in no order, and in nobody's way.
    pub(super) wary: BTreeSet<ActionId>,
    /// When one of its actions was given a worker last.
    pub(super) served: Millis,
    /// Since when something waits in it and no worker that could run it takes work.
    pub(super) absent_since: Option<Millis>,
    /// When the first of what waits in it may be given up for that; no later than it is.
    pub(super) first_timeout: Millis,
    levels: BTreeMap<i32, Level>,
}

impl Class {
    pub(super) fn new(requirements: Requirements) -> Self {
        Class {
            requirements,
            workers: BTreeSet::new(),
            reserved: None,
            waiting: BTreeSet::new(),
            wary: BTreeSet::new(),
            served: 0,
            absent_since: None,
            first_timeout: 0,
            levels: BTreeMap::new(),
        }
    }

    pub(super) fn insert(&mut self, position: Position, shares: &Shares) {
        let (tenant_id, build_id) = position.shares;
        self.waiting.insert(position.id);
        let level = self.levels.entry(position.priority).or_default();
        let tenant = level.tenants.entry(tenant_id).or_insert_with(|| {
            level.order.insert((shares.virtual_time(tenant_id), tenant_id));
            Tenant::default()
        });
        let build = tenant.builds.entry(build_id).or_insert_with(|| {
            tenant.order.insert((shares.virtual_time(build_id), build_id));
            Build::default()
        });
        build.insert((Reverse(position.path_weight), position.id));
    }

    /// Adds an action that has a worker to avoid.
    pub(super) fn insert_wary(&mut self, id: ActionId) {
        self.waiting.insert(id);
        self.wary.insert(id);
    }

    pub(super) fn remove(&mut self, position: Position) {
        let (tenant_id, build_id) = position.shares;
        self.waiting.remove(&position.id);
        if self.wary.remove(&position.id) {
            return;
        }
        let Some(level) = self.levels.get_mut(&position.priority) else { return };
        let Some(tenant) = level.tenants.get_mut(&tenant_id) else { return };
        let Some(build) = tenant.builds.get_mut(&build_id) else { return };
        build.remove(&(Reverse(position.path_weight), position.id));
        if build.is_empty() {
            tenant.builds.remove(&build_id);
            tenant.order.retain(|(_, id)| *id != build_id);
        }
        if tenant.builds.is_empty() {
            level.tenants.remove(&tenant_id);
            level.order.retain(|(_, id)| *id != tenant_id);
        }
        if level.tenants.is_empty() {
            self.levels.remove(&position.priority);
        }
    }

    /// The action that goes next of those that avoid no worker, and what it is weighed by against other classes.
    pub(super) fn head(&mut self, shares: &Shares) -> Option<(Rank, ActionId)> {
        let (priority, level) = self.levels.iter_mut().next()?;
        let (tenant_time, tenant) = first(&mut level.order, shares)?;
        let tenant = level.tenants.get_mut(&tenant)?;
        let (build_time, build) = first(&mut tenant.order, shares)?;
        let (weight, id) = *tenant.builds.get(&build)?.first()?;
        Some(((*priority, tenant_time, build_time, weight, id), id))
    }
}

/// The share with the least virtual time. Times only grow, so that an entry is at worst too early: it is put right when it
/// comes up.
fn first(order: &mut BTreeSet<(u64, ShareId)>, shares: &Shares) -> Option<(u64, ShareId)> {
    loop {
        let (noted, id) = *order.first()?;
        let now = shares.virtual_time(id);
        if noted == now {
            return Some((noted, id));
        }
        order.pop_first();
        order.insert((now, id));
    }
}
