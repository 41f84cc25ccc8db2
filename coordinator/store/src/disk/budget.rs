//! A common limit for the blobs of several stores: all tenants together on one disk.
//!
//! The least recently used blobs are evicted first, whichever store they belong to: first those that no result names,
//! then those that results name. Blobs used so recently that running work may need them are only taken from stores that
//! hold more than an equal part. So a tenant that fills the disk evicts what is old, and beyond that its own blobs.
//!
//! Invariant: no byte is written before all blobs and reservations together are within the limit. One lock is held
//! while blobs are evicted; an index's own lock is taken under it, never the other way round.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::{Bound, Inner, bound};
use crate::clock::Stamp;
use crate::{Error, usage};
use kiln_index::{Total, Which};

/// The common limit of several stores. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bound: Bound,
    tenants: PathBuf,
    capacity: OnceLock<u64>,
    total: Total,
    members: Mutex<Vec<Weak<Inner>>>,
    count: AtomicUsize,
}

/// A store while room is made.
struct Member {
    store: Arc<Inner>,
    own: bool,
    /// Blobs used since this time may be needed by work that is running or about to begin.
    kept_from: Stamp,
    /// Blobs used since this time may be needed by running work.
    held_from: Stamp,
}

impl Budget {
    /// A limit for stores of which all but the first are in `tenants/NAME/blobs`.
    pub fn new(bound: impl Into<Bound>, tenants: &Path) -> Self {
        let shared = Shared {
            bound: bound.into(),
            tenants: tenants.to_owned(),
            capacity: OnceLock::new(),
            total: Total::default(),
            members: Mutex::default(),
            count: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Bytes of blobs, including those being written.
    pub fn bytes(&self) -> u64 {
        self.shared.total.bytes()
    }

    /// The limit in bytes; `None` before the first store is open.
    pub fn capacity(&self) -> Option<u64> {
        self.shared.capacity.get().copied()
    }

    /// The limit for a store in `dir` that is about to join and holds `held` bytes.
    pub(super) fn settle(&self, dir: &Path, held: u64) -> u64 {
        *self.shared.capacity.get_or_init(|| match self.shared.bound {
            Bound::Bytes(bytes) => bytes,
            Bound::Share => {
                let tenants = std::fs::read_dir(&self.shared.tenants).into_iter().flatten().flatten();
                let others: u64 = tenants.map(|tenant| usage::measure(&tenant.path().join("blobs"))).sum();
                bound::bytes(Bound::Share, dir, held.saturating_add(others))
            }
        })
    }

    /// Counts this store's blobs from now on.
    pub(super) fn join(&self, store: &Arc<Inner>) {
        let mut members = self.shared.members.lock();
        store.index.lock().count_in(self.shared.total.clone());
        members.push(Arc::downgrade(store));
        self.make_room(&mut members, None);
    }

    /// Ensures that `bytes`, which `store` has reserved, are within the limit.
    ///
    /// # Errors
    /// If too much is being written. The caller keeps its reservation.
    pub(super) fn admit(&self, store: &Inner, bytes: u64) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        let capacity = self.shared.capacity.get().copied().unwrap_or(u64::MAX);
        let reserved = store.index.lock().reserved();
        if self.shared.count.load(Ordering::Acquire) > 1 {
            // A store's uploads may use at most half of what the uploads of others leave, so that some is left for the
            // next one.
            let others = self.shared.total.reserved().saturating_sub(reserved);
            let most = capacity.saturating_sub(others) / 2;
            if reserved > most {
                return Err(Error::Crowded { needed: bytes, most });
            }
        } else if reserved > capacity {
            return Err(Error::Full { needed: bytes, capacity, writing: reserved.saturating_sub(bytes) });
        }
        if self.bytes() <= capacity || self.make_room(&mut self.shared.members.lock(), Some(store)) {
            return Ok(());
        }
        let others = self.shared.total.reserved().saturating_sub(reserved);
        Err(Error::Crowded { needed: bytes, most: capacity.saturating_sub(others) })
    }

    /// Evicts until everything is within the limit; `false` if nothing is left to evict. The last resort is the blobs
    /// of `own`, whose reservation needs the space.
    fn make_room(&self, members: &mut Vec<Weak<Inner>>, own: Option<&Inner>) -> bool {
        members.retain(|member| member.strong_count() > 0);
        self.shared.count.store(members.len(), Ordering::Release);
        let capacity = self.shared.capacity.get().copied().unwrap_or(u64::MAX);
        if self.bytes() <= capacity {
            return true;
        }
        let member = |store: Arc<Inner>| Member {
            own: own.is_some_and(|own| std::ptr::eq(own, &*store)),
            kept_from: store.in_use.kept_from(),
            held_from: store.in_use.held_from(),
            store,
        };
        let members: Vec<Member> = members.iter().filter_map(Weak::upgrade).map(member).collect();
        while self.bytes() > capacity {
            let Some(turn) = next(&members, capacity) else { return false };
            turn.member.store.evict_first(turn.which, turn.before);
            // Asking every store again for each blob would make evictions slower with every tenant.
            while self.bytes() > capacity && turn.goes_on() {
                turn.member.store.evict_first(turn.which, turn.until);
            }
        }
        true
    }
}

/// A store whose blobs are evicted next.
struct Turn<'a> {
    member: &'a Member,
    which: Which,
    /// Only blobs that were last used before this are taken.
    before: Stamp,
    /// Another store has a blob that was last used then, or it is `before`.
    until: Stamp,
    /// The store keeps this many bytes.
    keeps: u64,
}

impl Turn<'_> {
    /// Is the next blob to evict of the same store?
    fn goes_on(&self) -> bool {
        self.member.bytes() > self.keeps && self.member.first(self.which, self.until).is_some()
    }
}

/// The store that has the next blob to evict.
fn next(members: &[Member], capacity: u64) -> Option<Turn<'_>> {
    let holding = members.iter().filter(|member| member.bytes() > 0).count().max(1) as u64;
    let share = capacity.checked_div(holding).unwrap_or(capacity);
    oldest(members, Which::Loose, 0, |member| Some(member.kept_from))
        .or_else(|| oldest(members, Which::Named, 0, |member| Some(member.kept_from)))
        .or_else(|| oldest(members, Which::Any, share, |member| Some(member.held_from)))
        .or_else(|| oldest(members, Which::Any, share, |_| Some(Stamp::MAX)))
        .or_else(|| oldest(members, Which::Any, 0, |member| Some(member.held_from)))
        .or_else(|| oldest(members, Which::Any, 0, |member| member.own.then_some(Stamp::MAX)))
}

/// Of the stores that hold more than `keeps` bytes, the one whose first blob was used least recently. `before` says
/// which blobs of a store may be taken, if any.
fn oldest(members: &[Member], which: Which, keeps: u64, before: impl Fn(&Member) -> Option<Stamp>) -> Option<Turn<'_>> {
    let mut found: Option<(Stamp, Turn<'_>)> = None;
    for member in members.iter().filter(|member| keeps == 0 || member.bytes() > keeps) {
        let Some(before) = before(member) else { continue };
        let Some(used) = member.first(which, before) else { continue };
        match &mut found {
            Some((first, turn)) if *first <= used => turn.until = turn.until.min(used),
            _ => {
                let other = found.take().map_or(Stamp::MAX, |(first, _)| first);
                found = Some((used, Turn { member, which, before, until: before.min(other), keeps }));
            }
        }
    }
    found.map(|(_, turn)| turn)
}

impl Member {
    fn bytes(&self) -> u64 {
        self.store.index.lock().bytes()
    }

    /// When the first of these blobs was last used, if that was before this time.
    fn first(&self, which: Which, before: Stamp) -> Option<Stamp> {
        self.store.index.lock().first(which, before)
    }
}

#[cfg(test)]
mod tests;
