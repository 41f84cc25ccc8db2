//! An ordered list of blobs, linked through the index's table.

use super::{Index, Slot};

const NONE: u32 = u32::MAX;

/// A blob's neighbours in its order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Links {
    newer: u32,
    older: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self { newer: NONE, older: NONE }
    }
}

#[cfg(test)]
impl Links {
    pub(super) fn newer(&self) -> Option<u32> {
        (self.newer != NONE).then_some(self.newer)
    }
}

/// The two ends of an order.
#[derive(Debug)]
pub(super) struct Order {
    newest: u32,
    oldest: u32,
}

impl Default for Order {
    fn default() -> Self {
        Self { newest: NONE, oldest: NONE }
    }
}

impl Order {
    /// The blob to evict first.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }
}

impl Index {
    fn order(&mut self, named: bool) -> (&mut Order, &mut [Slot]) {
        (if named { &mut self.named } else { &mut self.loose }, &mut self.slots)
    }

    /// Inserts a blob at the newer end.
    pub(super) fn link_newest(&mut self, at: u32) {
        let (order, slots) = self.order(self.slot(at).named);
        let links = Links { newer: NONE, older: order.newest };
        match slots.get_mut(order.newest as usize) {
            Some(slot) => slot.links.newer = at,
            None => order.oldest = at,
        }
        order.newest = at;
        self.slot_mut(at).links = links;
    }

    /// Inserts a blob at the older end, so that it is evicted next.
    pub(super) fn link_oldest(&mut self, at: u32) {
        let (order, slots) = self.order(self.slot(at).named);
        let links = Links { newer: order.oldest, older: NONE };
        match slots.get_mut(order.oldest as usize) {
            Some(slot) => slot.links.older = at,
            None => order.newest = at,
        }
        order.oldest = at;
        self.slot_mut(at).links = links;
    }

    /// Removes a blob from its order.
    pub(super) fn unlink(&mut self, at: u32) {
        let Links { newer, older } = self.slot(at).links;
        let (order, slots) = self.order(self.slot(at).named);
        match slots.get_mut(newer as usize) {
            Some(slot) => slot.links.older = older,
            None => order.newest = older,
        }
        match slots.get_mut(older as usize) {
            Some(slot) => slot.links.newer = newer,
            None => order.oldest = newer,
        }
    }
}
