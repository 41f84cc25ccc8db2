//! A hash map in parts, so that it grows a part at a time: to grow one map of a million entries takes a tenth of a second, during
//! which the farm would stand still.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

use super::Map;

/// Number of parts, a power of two.
const PARTS: usize = 64;

/// A map in parts.
#[derive(Debug)]
pub(super) struct Sharded<K, V> {
    hasher: foldhash::fast::RandomState,
    parts: Vec<Map<K, V>>,
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        Sharded { hasher: Default::default(), parts: (0..PARTS).map(|_| Map::default()).collect() }
    }
}

impl<K: Hash + Eq, V> Sharded<K, V> {
    fn part<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        self.hasher.hash_one(key) as usize % PARTS
    }

    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.parts[self.part(key)].get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        let part = self.part(&key);
        self.parts[part].insert(key, value);
    }

    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let part = self.part(key);
        self.parts[part].remove(key)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(Map::len).sum()
    }
}
