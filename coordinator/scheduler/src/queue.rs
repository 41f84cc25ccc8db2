//! Queues by requirements: one class for each distinct [`Requirements`], so that all actions of a class fit the same
//! workers.
//!
//! Invariant: within a class the order is priority, then the fair share of its `share` and of its build, then the longest
//! path, then age.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use super::Map;
use super::shares::{ShareId, Shares};
use super::slab::Id;
use super::types::{Millis, Requirements};

/// An action, in order of submission.
pub(super) type ActionId = Id;
/// A class, in order of creation.
pub(super) type ClassId = Id;
/// Workers with the same terms.
pub(super) type GroupId = Id;

/// An action's position in its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) priority: i32,
    pub(super) shares: (ShareId, ShareId),
    pub(super) path_weight: u64,
}

impl Position {
    /// The rank of the action with this id against others.
    pub(super) fn rank(&self, id: ActionId, shares: &Shares) -> Rank {
        let (share, build) = self.shares;
        let times = (shares.virtual_time(share), shares.virtual_time(build));
        (self.priority, times.0, times.1, Reverse(self.path_weight), id)
    }
}

/// The rank that decides between the heads of two classes; the smallest goes first.
pub(super) type Rank = (i32, u64, u64, Reverse<u64>, ActionId);

type Entry = (Reverse<u64>, ActionId);

/// Actions of one build. The first is kept apart, because it is looked at far more often than it is taken.
#[derive(Debug, Default)]
struct Build {
    first: Option<Entry>,
    others: BTreeSet<Entry>,
}

impl Build {
    fn insert(&mut self, entry: Entry) {
        let later = match self.first.replace(entry) {
            Some(first) if first < entry => {
                self.first = Some(first);
                Some(entry)
            }
            first => first,
        };
        self.others.extend(later);
    }

    fn remove(&mut self, entry: Entry) {
        if self.first == Some(entry) {
            self.first = self.others.pop_first();
        } else {
            self.others.remove(&entry);
        }
    }
}

/// Entries by time that may be left over, besides as many as there are shares.
const LEFT_OVER: usize = 16;

/// A share at a virtual time that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Noted {
    time: u64,
    share: ShareId,
    at: u32,
}

/// Shares by virtual time. Times only grow, so a noted one is at worst too early, and is corrected when it comes up; that of a
/// share without actions is dropped then.
#[derive(Debug)]
struct Order<T> {
    at: Map<ShareId, u32>,
    of: Vec<Option<(ShareId, T)>>,
    free: Vec<u32>,
    by_time: BinaryHeap<Reverse<Noted>>,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Order { at: Map::default(), of: Vec::new(), free: Vec::new(), by_time: BinaryHeap::new() }
    }
}

impl<T: Default> Order<T> {
    /// What belongs to a share, created if missing.
    fn entry(&mut self, share: ShareId, shares: &Shares) -> &mut T {
        let Order { at, of, free, by_time } = self;
        let at = *at.entry(share).or_insert_with(|| {
            let at = free.pop().unwrap_or(of.len() as u32);
            if at as usize == of.len() {
                of.push(None);
            }
            by_time.push(Reverse(Noted { time: shares.virtual_time(share), share, at }));
            at
        });
        &mut of[at as usize].get_or_insert_with(|| (share, T::default())).1
    }

    fn get_mut(&mut self, share: ShareId) -> Option<&mut T> {
        let at = *self.at.get(&share)?;
        Some(&mut self.of[at as usize].as_mut()?.1)
    }

    fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    fn remove(&mut self, share: ShareId) {
        let Some(at) = self.at.remove(&share) else { return };
        self.of[at as usize] = None;
        self.free.push(at);
        if self.by_time.len() > 2 * self.at.len() + LEFT_OVER {
            self.by_time =
                self.at.iter().map(|(share, at)| Reverse(Noted { time: 0, share: *share, at: *at })).collect();
        }
    }

    /// The share with the least virtual time, and what belongs to it.
    fn first(&mut self, shares: &Shares) -> Option<(u64, ShareId, &mut T)> {
        loop {
            let mut top = self.by_time.peek_mut()?;
            let Reverse(noted) = *top;
            let Noted { time, share, at } = noted;
            if self.of[at as usize].as_ref().is_none_or(|(there, _)| *there != share) {
                PeekMut::pop(top);
                continue;
            }
            let now = shares.virtual_time(share);
            if time == now {
                drop(top);
                return Some((time, share, &mut self.of[at as usize].as_mut()?.1));
            }
            *top = Reverse(Noted { time: now, ..noted });
        }
    }
}

/// Actions of one share, by build.
type Share = Order<Build>;
/// Actions of one priority, by share.
type Level = Order<Share>;

/// All queued actions with the same requirements.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) requirements: Arc<Requirements>,
    /// The workers that offer what it requires and are large enough.
    pub(super) groups: Vec<GroupId>,
    /// Number of its actions, whether they wait or run.
    pub(super) actions: usize,
    /// The waiting actions, oldest first.
    pub(super) waiting: BTreeSet<ActionId>,
    /// Those of them that avoid the worker that failed them last: unordered, and not blocking others.
    pub(super) avoiding: BTreeSet<ActionId>,
    /// The slot of the worker that is reserved for its head.
    pub(super) reserved: Option<usize>,
    /// Whether its actions wait for workers of an earlier run.
    pub(super) held: bool,
    /// When one of its actions was last assigned.
    pub(super) served: Millis,
    /// Since when actions wait in it although no worker that could run them accepts work.
    pub(super) absent_since: Option<Millis>,
    /// A lower bound of the time when the first waiting action may be given up for that reason.
    pub(super) first_timeout: Millis,
    /// Its place among the classes with waiting actions.
    pub(super) place: Option<usize>,
    /// Its entry in the timers.
    pub(super) timer: Option<Millis>,
    levels: BTreeMap<i32, Level>,
    /// The head when it was last looked for, unless an action came or went since then.
    head: Option<(Rank, (ShareId, ShareId))>,
}

impl Class {
    pub(super) fn new(requirements: Arc<Requirements>) -> Self {
        Class {
            requirements,
            groups: Vec::new(),
            actions: 0,
            waiting: BTreeSet::new(),
            avoiding: BTreeSet::new(),
            reserved: None,
            held: false,
            served: 0,
            absent_since: None,
            first_timeout: 0,
            place: None,
            timer: None,
            levels: BTreeMap::new(),
            head: None,
        }
    }

    pub(super) fn insert(&mut self, id: ActionId, position: Position, shares: &Shares) {
        let (share_id, build_id) = position.shares;
        self.head = None;
        self.waiting.insert(id);
        let share = self.levels.entry(position.priority).or_default().entry(share_id, shares);
        share.entry(build_id, shares).insert((Reverse(position.path_weight), id));
    }

    /// Adds an action that has a worker to avoid.
    pub(super) fn insert_avoiding(&mut self, id: ActionId) {
        self.waiting.insert(id);
        self.avoiding.insert(id);
    }

    /// Removes a waiting action; whether it was waiting here.
    pub(super) fn remove(&mut self, id: ActionId, position: Position) -> bool {
        let was_here = self.waiting.remove(&id);
        if was_here && !self.avoiding.remove(&id) {
            self.remove_ordered(id, position);
        }
        was_here
    }

    fn remove_ordered(&mut self, id: ActionId, position: Position) {
        let (share_id, build_id) = position.shares;
        let Some(level) = self.levels.get_mut(&position.priority) else { return };
        let Some(share) = level.get_mut(share_id) else { return };
        let Some(build) = share.get_mut(build_id) else { return };
        build.remove((Reverse(position.path_weight), id));
        self.head = None;
        if build.first.is_none() {
            share.remove(build_id);
        }
        if share.is_empty() {
            level.remove(share_id);
        }
        if level.is_empty() {
            self.levels.remove(&position.priority);
        }
    }

    /// The next action among those that avoid no worker: its rank against those of other classes.
    pub(super) fn head(&mut self, shares: &Shares) -> Option<Rank> {
        if let Some((rank, (share, build))) = self.head
            && (rank.1, rank.2) == (shares.virtual_time(share), shares.virtual_time(build))
        {
            return Some(rank);
        }
        let (priority, level) = self.levels.iter_mut().next()?;
        let (share_time, share_id, share) = level.first(shares)?;
        let (build_time, build_id, build) = share.first(shares)?;
        let (weight, id) = build.first?;
        let rank = (*priority, share_time, build_time, weight, id);
        self.head = Some((rank, (share_id, build_id)));
        Some(rank)
    }
}
