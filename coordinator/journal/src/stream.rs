//! A stream that this process appends to.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::batch::{Batch, Durability};
use crate::queue::{Commit, Queue};
use crate::tail::Tail;

/// A stream that entries are appended to, by one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stream {
    queue: Queue,
    tail: Arc<Tail>,
}

impl Stream {
    pub(crate) fn new(queue: Queue, tail: Arc<Tail>) -> Self {
        Self { queue, tail }
    }

    /// Appends an entry, which is told its position. Returns at once; the entry is shown when it is committed and synced as the policy says.
    pub fn append(&self, entry: impl FnOnce(u64) -> Bytes) {
        drop(self.append_with(Batch::default(), Durability::Relaxed, entry));
    }

    /// Appends an entry together with other changes, all of them or none.
    pub fn append_with(&self, mut batch: Batch, durability: Durability, entry: impl FnOnce(u64) -> Bytes) -> Commit {
        // Until it is queued, so that entries are queued in the order of their positions.
        let mut next = self.tail.next.lock();
        let position = *next;
        *next = next.saturating_add(1);
        batch.append(&self.tail.name, position, entry(position));
        self.queue.push(batch, Some((self.tail.clone(), position.saturating_add(1))), durability)
    }

    /// The position after the last committed entry, and a wake-up when that changes.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.tail.committed.subscribe()
    }

    /// Wakes those that wait for entries, although there are no new ones.
    pub fn wake(&self) {
        self.tail.committed.send_modify(|_| {});
    }

    /// Waits until the journal has room: whoever appends without end calls this in between.
    pub async fn room(&self) {
        self.queue.room().await;
    }
}
