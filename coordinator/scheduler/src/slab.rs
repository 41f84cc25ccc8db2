//! Values at indices that are reused, under ids that are not.
//!
//! Invariant: ids grow with time, so that their order is the order of arrival, and an id of something that was removed finds
//! nothing.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// The id of a value in a [`Slab`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Id {
    /// Number of values that were added before it.
    pub(super) age: u64,
    /// Where it is.
    pub(super) index: u32,
}

impl Id {
    /// Comes before all ids.
    pub(super) const FIRST: Id = Id { age: 0, index: 0 };
    /// Comes after all ids.
    pub(super) const LAST: Id = Id { age: u64::MAX, index: u32::MAX };
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.age == other.age
    }
}

impl Eq for Id {}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> Ordering {
        self.age.cmp(&other.age)
    }
}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.age.hash(state);
    }
}

#[derive(Debug)]
struct Entry<T> {
    age: u64,
    value: Option<T>,
}

/// Values by id.
#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    next: u64,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { entries: Vec::new(), free: Vec::new(), next: 0 }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> Id {
        let age = self.next;
        self.next += 1;
        let entry = Entry { age, value: Some(value) };
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        Id { age, index }
    }

    pub(super) fn get(&self, id: Id) -> Option<&T> {
        self.entries.get(id.index as usize).filter(|entry| entry.age == id.age)?.value.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.entries.get_mut(id.index as usize).filter(|entry| entry.age == id.age)?.value.as_mut()
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        let value = self.entries.get_mut(id.index as usize).filter(|entry| entry.age == id.age)?.value.take()?;
        self.free.push(id.index);
        Some(value)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// All values, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| Some((Id { age: entry.age, index: index as u32 }, entry.value.as_ref()?)))
    }

    /// All values, in no particular order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Id, &mut T)> {
        self.entries
            .iter_mut()
            .enumerate()
            .filter_map(|(index, entry)| Some((Id { age: entry.age, index: index as u32 }, entry.value.as_mut()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_reused_and_its_earlier_id_finds_nothing() {
        let mut slab = Slab::default();
        let (first, second) = (slab.insert("first"), slab.insert("second"));
        assert_eq!(slab.remove(first), Some("first"));
        let third = slab.insert("third");
        assert_eq!(third.index, first.index);
        assert_eq!((slab.get(first), slab.get(second), slab.get(third)), (None, Some(&"second"), Some(&"third")));
        assert_eq!((slab.remove(first), slab.len()), (None, 2));
        assert!(first < second && second < third, "expected the order of arrival");
    }
}
