//! How much is kept of an invocation, and of all of a tenant whose events arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of one invocation's details. With what is bounded by itself they fit into one message.
pub(crate) const ONE: usize = 8 << 20;
/// Bytes of all of them together.
const ALL: usize = 256 << 20;

/// The memory of all invocations of a tenant whose events arrive. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<AtomicUsize>);

/// What one invocation takes of it; given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Room {
    used: usize,
    memory: Memory,
}

impl Room {
    /// That of an invocation of which so many bytes are known.
    pub(crate) fn of(memory: Memory, used: usize) -> Self {
        memory.0.fetch_add(used, Ordering::Relaxed);
        Self { used, memory }
    }

    /// Puts something of a size in place of something of another size, if there is room.
    pub(crate) fn exchange(&mut self, was: usize, is: usize) -> bool {
        let used = self.used.saturating_sub(was).saturating_add(is);
        let more = used.saturating_sub(self.used);
        if more > 0 && (used > ONE || self.memory.0.load(Ordering::Relaxed).saturating_add(more) > ALL) {
            return false;
        }
        self.memory.0.fetch_add(more, Ordering::Relaxed);
        self.memory.0.fetch_sub(self.used.saturating_sub(used), Ordering::Relaxed);
        self.used = used;
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.used, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_takes_no_more_than_its_part_and_all_no_more_than_there_is() {
        let memory = Memory::default();
        let mut one = Room::of(memory.clone(), 0);
        assert!(one.exchange(0, ONE) && !one.exchange(0, 1) && one.exchange(10, 10) && one.exchange(10, 9));
        let mut rooms: Vec<Room> = (0..ALL / ONE - 1).map(|_| Room::of(memory.clone(), ONE)).collect();
        let mut last = Room::of(memory.clone(), 0);
        assert!(last.exchange(0, 1) && !last.exchange(0, 1));
        rooms.pop();
        assert!(last.exchange(0, ONE - 1));
        drop((one, rooms, last));
        assert_eq!(memory.0.load(Ordering::Relaxed), 0);
    }
}
