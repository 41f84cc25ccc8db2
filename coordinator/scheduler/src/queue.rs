//! Queues by requirements: one class for each distinct [`Requirements`], so that all actions of a class fit the same
//! workers.
//!
//! Invariant: within a class the order is priority, then the fair share of its `share` and of its build, then the longest
//! path, then age.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::shares::{ShareId, Shares};
use super::types::{Millis, Requirements};

/// Index of an action, in order of submission.
pub(super) type ActionId = u64;
/// Index of a class.
pub(super) type ClassId = usize;

/// An action's position in its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) priority: i32,
    pub(super) shares: (ShareId, ShareId),
    pub(super) path_weight: u64,
    pub(super) id: ActionId,
}

impl Position {
    /// Its rank against others.
    pub(super) fn rank(&self, shares: &Shares) -> Rank {
        let (share, build) = self.shares;
        let times = (shares.virtual_time(share), shares.virtual_time(build));
        (self.priority, times.0, times.1, Reverse(self.path_weight), self.id)
    }
}

/// The rank that decides between the heads of two classes; the smallest goes first.
pub(super) type Rank = (i32, u64, u64, Reverse<u64>, ActionId);

type Build = BTreeSet<(Reverse<u64>, ActionId)>;

#[derive(Debug, Default)]
struct Share {
    builds: HashMap<ShareId, Build>,
    order: BTreeSet<(u64, ShareId)>,
}

#[derive(Debug, Default)]
struct Level {
    shares: HashMap<ShareId, Share>,
    order: BTreeSet<(u64, ShareId)>,
}

/// All queued actions with the same requirements.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) requirements: Requirements,
    /// Slots of the workers that offer what it requires and are large enough.
    pub(super) workers: BTreeSet<usize>,
    /// The worker that is reserved for its head.
    pub(super) reserved: Option<usize>,
    /// The waiting actions, oldest first.
    pub(super) waiting: BTreeSet<ActionId>,
    /// Those of them that avoid the worker that failed them last: unordered, and not blocking others.
    pub(super) avoiding: BTreeSet<ActionId>,
    /// When one of its actions was last assigned.
    pub(super) served: Millis,
    /// Since when actions wait in it although no worker that could run them accepts work.
    pub(super) absent_since: Option<Millis>,
    /// A lower bound of the time when the first waiting action may be given up for that reason.
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
            avoiding: BTreeSet::new(),
            served: 0,
            absent_since: None,
            first_timeout: 0,
            levels: BTreeMap::new(),
        }
    }

    pub(super) fn insert(&mut self, position: Position, shares: &Shares) {
        let (share_id, build_id) = position.shares;
        self.waiting.insert(position.id);
        let level = self.levels.entry(position.priority).or_default();
        let share = level.shares.entry(share_id).or_insert_with(|| {
            level.order.insert((shares.virtual_time(share_id), share_id));
            Share::default()
        });
        let build = share.builds.entry(build_id).or_insert_with(|| {
            share.order.insert((shares.virtual_time(build_id), build_id));
            Build::default()
        });
        build.insert((Reverse(position.path_weight), position.id));
    }

    /// Adds an action that has a worker to avoid.
    pub(super) fn insert_avoiding(&mut self, id: ActionId) {
        self.waiting.insert(id);
        self.avoiding.insert(id);
    }

    pub(super) fn remove(&mut self, position: Position) {
        let (share_id, build_id) = position.shares;
        self.waiting.remove(&position.id);
        if self.avoiding.remove(&position.id) {
            return;
        }
        let Some(level) = self.levels.get_mut(&position.priority) else { return };
        let Some(share) = level.shares.get_mut(&share_id) else { return };
        let Some(build) = share.builds.get_mut(&build_id) else { return };
        build.remove(&(Reverse(position.path_weight), position.id));
        if build.is_empty() {
            share.builds.remove(&build_id);
            share.order.retain(|(_, id)| *id != build_id);
        }
        if share.builds.is_empty() {
            level.shares.remove(&share_id);
            level.order.retain(|(_, id)| *id != share_id);
        }
        if level.shares.is_empty() {
            self.levels.remove(&position.priority);
        }
    }

    /// The next action among those that avoid no worker, and its rank against other classes.
    pub(super) fn head(&mut self, shares: &Shares) -> Option<(Rank, ActionId)> {
        let (priority, level) = self.levels.iter_mut().next()?;
        let (share_time, share) = first(&mut level.order, shares)?;
        let share = level.shares.get_mut(&share)?;
        let (build_time, build) = first(&mut share.order, shares)?;
        let (weight, id) = *share.builds.get(&build)?.first()?;
        Some(((*priority, share_time, build_time, weight, id), id))
    }
}

/// The share with the least virtual time. Times only grow, so an entry is at worst too early, and is corrected when it
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
