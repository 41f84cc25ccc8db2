//! Which blobs are on the disk, in the order of their last use, within a bound of bytes.
//!
//! A list threaded through a table by numbers: an entry costs some 130 bytes of memory, and every operation constant time.
//! Invariant: `bytes + reserved <= capacity` after every call.

use std::collections::HashMap;

use kiln_proto::digest::Digest;

const NONE: u32 = u32::MAX;

/// One blob's place in the order of use.
#[derive(Debug)]
struct Slot {
    digest: Digest,
    newer: u32,
    older: u32,
    born: u64,
    verified: bool,
}

/// What is known of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// Tells this file from an earlier or later one of the same digest.
    pub(crate) born: u64,
    /// Whether its bytes were hashed in this process.
    pub(crate) verified: bool,
}

/// There is not so much room even when everything is evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// Bytes held by blobs that are being written.
    pub(crate) writing: u64,
}

/// Index of a store's blobs.
#[derive(Debug)]
pub(crate) struct Index {
    by_digest: HashMap<Digest, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    births: u64,
    bytes: u64,
    reserved: u64,
    capacity: u64,
}

impl Index {
    /// An empty index of a store that may hold `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            by_digest: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            births: 0,
            bytes: 0,
            reserved: 0,
            capacity,
        }
    }

    /// Bytes of blobs and reservations.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes + self.reserved
    }

    /// Bytes that may be held.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Marks a blob as just used; nothing where it is absent.
    pub(crate) fn touch(&mut self, digest: &Digest) -> Option<Known> {
        let at = *self.by_digest.get(digest)?;
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
        let slot = &self.slots[at as usize];
        Some(Known { born: slot.born, verified: slot.verified })
    }

    /// Whether a blob is there; does not count as a use.
    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.by_digest.contains_key(digest)
    }

    /// Adds a blob as the newest. Its bytes must have been reserved by [`reserve`](Self::reserve); they no longer are.
    pub(crate) fn insert_reserved(&mut self, digest: Digest) {
        self.release(digest.size);
        self.insert(digest, true);
    }

    /// Adds a blob found on the disk as the newest; gives those that must go for it, maybe itself.
    pub(crate) fn insert_found(&mut self, digest: Digest) -> Vec<Digest> {
        self.insert(digest, false);
        let mut evicted = Vec::new();
        while self.bytes() > self.capacity {
            evicted.extend(self.evict_oldest());
        }
        evicted
    }

    fn insert(&mut self, digest: Digest, verified: bool) {
        if self.contains(&digest) {
            return;
        }
        self.births += 1;
        let slot = Slot { digest, newer: NONE, older: NONE, born: self.births, verified };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.by_digest.insert(digest, at);
        self.bytes += digest.size;
        self.link_newest(at);
    }

    /// Remembers that this very file was hashed and found right.
    pub(crate) fn set_verified(&mut self, digest: &Digest, born: u64) {
        if let Some(at) = self.by_digest.get(digest) {
            let slot = &mut self.slots[*at as usize];
            slot.verified |= slot.born == born;
        }
    }

    /// Forgets this very file; false where another has come in its place, or none is there.
    pub(crate) fn remove(&mut self, digest: &Digest, born: u64) -> bool {
        let here = self.by_digest.get(digest).is_some_and(|at| self.slots[*at as usize].born == born);
        if here {
            self.take(digest);
        }
        here
    }

    /// Sets bytes aside for a blob being written; gives the blobs that must go for them.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<Vec<Digest>, Full> {
        if self.reserved.checked_add(bytes).is_none_or(|wanted| wanted > self.capacity) {
            return Err(Full { writing: self.reserved });
        }
        let mut evicted = Vec::new();
        while self.bytes() > self.capacity - bytes {
            evicted.extend(self.evict_oldest());
        }
        self.reserved += bytes;
        Ok(evicted)
    }

    /// Gives reserved bytes back.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    fn evict_oldest(&mut self) -> Option<Digest> {
        let digest = self.slots.get(self.oldest as usize)?.digest;
        self.take(&digest);
        Some(digest)
    }

    fn take(&mut self, digest: &Digest) {
        if let Some(at) = self.by_digest.remove(digest) {
            self.unlink(at);
            self.free.push(at);
            self.bytes -= digest.size;
        }
    }

    fn link_newest(&mut self, at: u32) {
        let before = self.newest;
        let slot = &mut self.slots[at as usize];
        slot.older = before;
        slot.newer = NONE;
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let Slot { newer, older, .. } = self.slots[at as usize];
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::digest::DigestFunction;
    use proptest::prelude::*;

    fn digest(name: u8) -> Digest {
        Digest { size: u64::from(name % 7) * 10, ..DigestFunction::Sha256.digest(&[name]) }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(u8),
        GiveUp(u8),
        Use(u8),
        Lose(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..20_u8).prop_map(Step::Write),
            1 => (0..20_u8).prop_map(Step::GiveUp),
            3 => (0..20_u8).prop_map(Step::Use),
            1 => (0..20_u8).prop_map(Step::Lose),
        ]
    }

    proptest! {
        /// The model: a list of digests, oldest first.
        #[test]
        fn the_least_recently_used_goes_first_and_the_bound_holds(steps in prop::collection::vec(step(), 0..200)) {
            const CAPACITY: u64 = 200;
            let mut index = Index::new(CAPACITY);
            let mut model: Vec<Digest> = Vec::new();
            for step in steps {
                match step {
                    Step::Write(name) => {
                        let digest = digest(name);
                        let mut expected = Vec::new();
                        while model.iter().map(|d| d.size).sum::<u64>() + digest.size > CAPACITY {
                            expected.push(model.remove(0));
                        }
                        prop_assert_eq!(index.reserve(digest.size).unwrap(), expected);
                        index.insert_reserved(digest);
                        if !model.contains(&digest) {
                            model.push(digest);
                        }
                    }
                    Step::GiveUp(name) => {
                        let size = digest(name).size;
                        while model.iter().map(|d| d.size).sum::<u64>() + size > CAPACITY {
                            model.remove(0);
                        }
                        index.reserve(size).unwrap();
                        prop_assert!(index.bytes() <= CAPACITY);
                        index.release(size);
                    }
                    Step::Use(name) => {
                        let digest = digest(name);
                        let there = model.iter().position(|d| *d == digest);
                        prop_assert_eq!(index.touch(&digest).is_some(), there.is_some());
                        if let Some(at) = there {
                            model.remove(at);
                            model.push(digest);
                        }
                    }
                    Step::Lose(name) => {
                        let digest = digest(name);
                        let born = index.touch(&digest).map_or(0, |known| known.born);
                        prop_assert!(!index.remove(&digest, born + 1));
                        prop_assert_eq!(index.remove(&digest, born), model.contains(&digest));
                        model.retain(|d| *d != digest);
                    }
                }
                prop_assert_eq!(index.bytes(), model.iter().map(|d| d.size).sum::<u64>());
                prop_assert!(index.bytes() <= CAPACITY);
            }
        }
    }

    #[test]
    fn what_can_never_fit_is_refused_and_evicts_nothing() {
        let mut index = Index::new(100);
        index.reserve(60).unwrap();
        index.insert_reserved(Digest { size: 60, ..digest(1) });
        index.reserve(30).unwrap();
        assert_eq!(index.reserve(80), Err(Full { writing: 30 }));
        assert_eq!(index.reserve(u64::MAX), Err(Full { writing: 30 }));
        assert_eq!(index.bytes(), 90);
    }
}
