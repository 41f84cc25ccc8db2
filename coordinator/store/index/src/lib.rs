//! The blobs on disk, ordered by their last use, within a limit of bytes.
//!
//! There are two orders: blobs that a cached result names, and all others. The others are evicted first, then named
//! ones. Recently used blobs are only evicted if nothing else is left, and then the oldest of both first.
//!
//! Linked lists through a table: an entry takes about 210 bytes of memory, and every operation except a collection's
//! scans takes constant time. Invariant: `bytes + reserved <= capacity` after every call but
//! [`set_overhead`](Index::set_overhead).

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod order;
mod scan;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_proto::digest::Digest;

use self::order::{Links, Order};
use kiln_packs::{Place, Stamp};

/// One blob's place in the order of use.
#[derive(Debug)]
struct Slot {
    digest: Digest,
    links: Links,
    born: u64,
    verified: bool,
    version: Option<Version>,
    /// Whether a cached result names it, as far as is known.
    named: bool,
    /// The last marking that found it named.
    mark: u64,
    used: Stamp,
    /// The last use that is saved on disk.
    saved: Stamp,
    place: Option<Place>,
}

impl Slot {
    fn known(&self) -> Known {
        let Self { born, verified, version, place, .. } = *self;
        Known { born, verified, version, unsaved: false, place }
    }

    fn located(&self) -> Located {
        Located { digest: self.digest, place: self.place }
    }
}

/// What is known of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Distinguishes this copy from earlier and later ones of the same digest.
    pub born: u64,
    /// Whether its bytes were hashed in this process.
    pub verified: bool,
    /// The version of its file that was hashed in this process; `None` if it is not known.
    pub version: Option<Version>,
    /// Whether its last use should be saved on disk.
    pub unsaved: bool,
    /// Where it is in a pack; `None` if it is a file.
    pub place: Option<Place>,
}

impl Known {
    /// Whether this version of its file was hashed in this process.
    pub fn is_hashed(&self, version: Option<Version>) -> bool {
        self.verified && version.is_some() && version == self.version
    }
}

/// What changes whenever a file changes: its inode and the time of its last change in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    inode: u64,
    changed_ns: i64,
}

impl Version {
    /// The version of a file with this metadata.
    pub fn of(data: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let changed_ns = data.ctime().wrapping_mul(1_000_000_000).wrapping_add(data.ctime_nsec());
        Self { inode: data.ino(), changed_ns }
    }
}

/// A blob and where it is, or was until it was evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// The blob.
    pub digest: Digest,
    /// Where it is in a pack; `None` if it is a file.
    pub place: Option<Place>,
}

/// The limit is too small even if everything is evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// Bytes reserved for blobs that are being written.
    pub writing: u64,
}

/// Evicted blobs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// In the order in which they were evicted.
    pub blobs: Vec<Located>,
    /// The latest use of a named blob among them: results last used by then may have lost blobs.
    pub named_until: Option<Stamp>,
}

/// A selection of blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Blobs that no result names.
    Loose,
    /// Blobs that results name.
    Named,
    /// All blobs.
    Any,
}

/// What several indexes hold together. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Total(Arc<Sums>);

#[derive(Debug, Default)]
struct Sums {
    bytes: AtomicU64,
    reserved: AtomicU64,
}

impl Total {
    /// Bytes of blobs and reservations.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Acquire)
    }

    /// Bytes of reservations.
    pub fn reserved(&self) -> u64 {
        self.0.reserved.load(Ordering::Acquire)
    }
}

/// How far the last use saved in a blob's file may lag behind, in milliseconds: 15 minutes.
pub const SAVE_EVERY: u64 = 15 * 60 * 1_000;

/// The index of a store's blobs.
#[derive(Debug)]
pub struct Index {
    by_digest: HashMap<Digest, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    loose: Order,
    named: Order,
    births: u64,
    marking: u64,
    bytes: u64,
    reserved: u64,
    overhead: u64,
    capacity: u64,
    total: Option<Told>,
}

/// A total, and this index's part of it: bytes and reserved bytes.
#[derive(Debug)]
struct Told {
    total: Total,
    bytes: u64,
    reserved: u64,
}

impl Drop for Index {
    fn drop(&mut self) {
        (self.bytes, self.reserved, self.overhead) = (0, 0, 0);
        self.tell();
    }
}

impl Index {
    /// An empty index with a limit of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self {
            by_digest: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            loose: Order::default(),
            named: Order::default(),
            births: 0,
            marking: 0,
            bytes: 0,
            reserved: 0,
            overhead: 0,
            capacity,
            total: None,
        }
    }

    /// Makes this index part of a total, until it is dropped.
    pub fn count_in(&mut self, total: Total) {
        self.total = Some(Told { total, bytes: 0, reserved: 0 });
        self.tell();
    }

    /// Updates the total. Called at the end of every change, so that moved bytes never appear as free.
    pub fn tell(&mut self) {
        let (bytes, reserved) = (self.bytes(), self.reserved);
        if let Some(told) = &mut self.total {
            let Sums { bytes: all, reserved: writing } = &*told.total.0;
            // Negative differences wrap around, and so do the sums.
            all.fetch_add(bytes.wrapping_sub(told.bytes), Ordering::AcqRel);
            writing.fetch_add(reserved.wrapping_sub(told.reserved), Ordering::AcqRel);
            (told.bytes, told.reserved) = (bytes, reserved);
        }
    }

    /// Bytes of blobs and reservations, and what their packs take beyond that.
    pub fn bytes(&self) -> u64 {
        self.bytes.saturating_add(self.reserved).saturating_add(self.overhead)
    }

    /// Sets what packs take beyond the bytes of their blobs.
    pub fn set_overhead(&mut self, bytes: u64) {
        self.overhead = bytes;
        self.tell();
    }

    /// Bytes of reservations.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// The limit in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Marks a blob as just used; `None` if it is missing.
    pub fn touch(&mut self, digest: &Digest, now: Stamp) -> Option<Known> {
        let at = *self.by_digest.get(digest)?;
        self.renew(at, now);
        let slot = self.slot_mut(at);
        let unsaved = slot.used > slot.saved.saturating_add(SAVE_EVERY);
        if unsaved {
            slot.saved = slot.used;
        }
        Some(Known { unsaved, ..slot.known() })
    }

    /// Looks up a blob without counting as a use.
    pub fn look(&self, digest: &Digest) -> Option<Known> {
        Some(self.slot(*self.by_digest.get(digest)?).known())
    }

    /// Adds a blob as the newest. Its bytes must have been reserved by [`reserve`](Self::reserve); the reservation is
    /// consumed.
    pub fn insert_reserved(&mut self, digest: Digest, place: Option<Place>, now: Stamp) {
        self.reserved = self.reserved.saturating_sub(digest.size);
        self.insert(digest, Slot { used: now, saved: now, verified: true, place, ..self.new_slot(digest) });
        self.tell();
    }

    /// Adds a blob found on disk as the newest; returns the blobs to evict for it, possibly itself. It counts as named
    /// until results have been marked. Its last use may be somewhat later than the disk says.
    pub fn insert_found(&mut self, digest: Digest, place: Option<Place>, saved: Stamp, now: Stamp) -> Evicted {
        let used = saved.saturating_add(SAVE_EVERY).min(now);
        self.insert(digest, Slot { used, saved, named: true, place, ..self.new_slot(digest) });
        let mut evicted = Evicted::default();
        while self.bytes() > self.capacity && self.evict(now, &mut evicted) {}
        self.tell();
        evicted
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "`by_digest`, `free` and the orders name slots that exist, and none is taken away"
    )]
    fn slot(&self, at: u32) -> &Slot {
        &self.slots[at as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "as for `slot`")]
    fn slot_mut(&mut self, at: u32) -> &mut Slot {
        &mut self.slots[at as usize]
    }

    fn new_slot(&self, digest: Digest) -> Slot {
        let links = Links::default();
        let mark = self.marking;
        let (verified, version, place) = (false, None, None);
        Slot { digest, links, born: 0, verified, version, named: false, mark, used: 0, saved: 0, place }
    }

    fn insert(&mut self, digest: Digest, slot: Slot) {
        if self.by_digest.contains_key(&digest) {
            return;
        }
        self.births = self.births.saturating_add(1);
        let slot = Slot { born: self.births, ..slot };
        let at = match self.free.pop() {
            Some(at) => {
                *self.slot_mut(at) = slot;
                at
            }
            None => {
                let at = self.slots.len() as u32;
                self.slots.push(slot);
                at
            }
        };
        self.by_digest.insert(digest, at);
        self.bytes = self.bytes.saturating_add(digest.size);
        self.link_newest(at);
    }

    /// Records that this exact copy was hashed and verified, in this version of its file.
    pub fn set_verified(&mut self, digest: &Digest, born: u64, version: Option<Version>) {
        let Some(&at) = self.by_digest.get(digest) else { return };
        let slot = self.slot_mut(at);
        if slot.born == born {
            (slot.verified, slot.version) = (true, version);
        }
    }

    /// Records that a file got another version without another content.
    pub fn set_version(&mut self, digest: &Digest, before: Option<Version>, version: Option<Version>) {
        if let Some(&at) = self.by_digest.get(digest) {
            let slot = self.slot_mut(at);
            if slot.version == before {
                slot.version = version;
            }
        }
    }

    /// Removes this exact copy; `false` if it was replaced or is missing.
    pub fn remove(&mut self, digest: &Digest, born: u64) -> bool {
        let here = self.by_digest.get(digest).is_some_and(|at| self.slot(*at).born == born);
        if here {
            self.take(digest);
            self.tell();
        }
        here
    }

    /// Reserves bytes for a blob being written; returns the blobs to evict. Blobs used since `kept_from` are evicted
    /// last.
    pub fn reserve(&mut self, bytes: u64, kept_from: Stamp) -> Result<Evicted, Full> {
        if self.reserved.checked_add(bytes).is_none_or(|wanted| wanted > self.capacity) {
            return Err(Full { writing: self.reserved });
        }
        let mut evicted = Evicted::default();
        let most = self.capacity.saturating_sub(bytes);
        while self.bytes() > most && self.evict(kept_from, &mut evicted) {}
        self.reserved = self.reserved.saturating_add(bytes);
        self.tell();
        Ok(evicted)
    }

    /// Changes the limit; returns the blobs to evict.
    pub fn set_capacity(&mut self, capacity: u64, kept_from: Stamp) -> Evicted {
        self.capacity = capacity;
        let mut evicted = Evicted::default();
        while self.bytes() > self.capacity && self.evict(kept_from, &mut evicted) {}
        self.tell();
        evicted
    }

    /// Releases reserved bytes.
    pub fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
        self.tell();
    }

    /// All blobs: whether a result references each, and its last use. Looks at each.
    pub fn all(&self) -> Vec<(Digest, bool, Stamp)> {
        let slot = |at: &u32| self.slot(*at);
        self.by_digest.iter().map(|(digest, at)| (*digest, slot(at).named, slot(at).used)).collect()
    }

    /// Removes the blob that is needed least; `false` if there is none.
    fn evict(&mut self, kept_from: Stamp, evicted: &mut Evicted) -> bool {
        self.evict_first(Which::Loose, kept_from, evicted)
            || self.evict_first(Which::Named, kept_from, evicted)
            || self.evict_first(Which::Any, Stamp::MAX, evicted)
    }

    /// The last use of the first of these blobs, if it was before this time.
    pub fn first(&self, which: Which, before: Stamp) -> Option<Stamp> {
        self.find_first(which, before).map(|at| self.slot(at).used)
    }

    /// Removes that blob; `false` if there is none.
    pub fn evict_first(&mut self, which: Which, before: Stamp, evicted: &mut Evicted) -> bool {
        let Some(at) = self.find_first(which, before) else { return false };
        let Slot { named, used, .. } = *self.slot(at);
        let gone = self.slot(at).located();
        if named {
            evicted.named_until = evicted.named_until.max(Some(used));
        }
        evicted.blobs.push(gone);
        self.take(&gone.digest);
        true
    }

    fn find_first(&self, which: Which, before: Stamp) -> Option<u32> {
        let loose = self.loose.oldest().filter(|_| which != Which::Named);
        let named = self.named.oldest().filter(|_| which != Which::Loose);
        let used = |at: &u32| self.slot(*at).used;
        loose.into_iter().chain(named).min_by_key(used).filter(|at| used(at) < before)
    }

    fn take(&mut self, digest: &Digest) {
        if let Some(at) = self.by_digest.remove(digest) {
            self.unlink(at);
            self.free.push(at);
            self.bytes = self.bytes.saturating_sub(digest.size);
        }
    }

    /// Makes a blob the newest of its order. A clock that runs backwards makes nothing older.
    fn renew(&mut self, at: u32, now: Stamp) {
        let slot = self.slot_mut(at);
        slot.used = slot.used.max(now);
        self.unlink(at);
        self.link_newest(at);
    }
}

#[cfg(test)]
mod tests;
