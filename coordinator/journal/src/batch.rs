//! Changes that are committed together, and what their caller is promised.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::{Space, Write};

/// Where each stream continued that was resumed.
pub(crate) const STARTS: Space = "stream-starts";

/// What a change takes beside its data.
const CHANGE_BYTES: usize = 128;

/// What a caller is promised when a commit returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Readers see it. It is synced as the policy says.
    Relaxed,
    /// It is on the disk, unless the policy is [`Fsync::Never`](crate::Fsync::Never).
    Durable,
}

/// Changes that are committed together.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) writes: Vec<Write>,
    bytes: usize,
}

impl Batch {
    /// Puts a record in place of what was there.
    #[must_use]
    pub fn put(mut self, space: Space, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        let (key, value) = (key.into(), value.into());
        self.weigh(key.len().saturating_add(value.len()));
        self.writes.push(Write::Put { space, key, value });
        self
    }

    /// Removes a record, if it is there.
    #[must_use]
    pub fn remove(mut self, space: Space, key: impl Into<String>) -> Self {
        self.weigh(0);
        self.writes.push(Write::Remove { space, key: key.into() });
        self
    }

    /// Removes a stream with all its entries.
    #[must_use]
    pub fn remove_stream(mut self, stream: &str) -> Self {
        self.weigh(0);
        self.writes.push(Write::RemoveStream { stream: stream.into() });
        self.remove(STARTS, stream)
    }

    /// Puts an entry at a position of a stream that nobody appends to; for what was written elsewhere before.
    #[must_use]
    pub fn import(mut self, stream: &Arc<str>, position: u64, data: Bytes) -> Self {
        self.append(stream, position, data);
        self
    }

    fn weigh(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(CHANGE_BYTES);
    }

    pub(crate) fn append(&mut self, stream: &Arc<str>, position: u64, data: Bytes) {
        self.weigh(data.len());
        self.writes.push(Write::Append { stream: stream.clone(), position, data });
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Bytes that it takes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
