//! What a journal needs of the database that it is kept in.
//!
//! The interface is small enough for Redis (`kiln-replicas`): a stream is a Redis Stream whose ids are `POSITION-1`, a space is a hash with
//! a sorted set of its keys, a commit is one script, and `sync` is `WAITAOF`. Subscribing, group commit and retries are done above it.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

/// A set of records with keys of their own.
pub type Space = &'static str;

/// One change.
#[derive(Debug, Clone)]
pub enum Write {
    /// Puts an entry at this position of a stream; the same entry may be there already.
    Append {
        /// The stream's name.
        stream: Arc<str>,
        /// Where it stands in the stream.
        position: u64,
        /// The entry.
        data: Bytes,
    },
    /// Removes a stream with all its entries.
    RemoveStream {
        /// The stream's name.
        stream: Arc<str>,
    },
    /// Puts a record in place of what was there.
    Put {
        /// Where.
        space: Space,
        /// Under which key.
        key: String,
        /// The record.
        value: Bytes,
    },
    /// Removes a record, if it is there.
    Remove {
        /// Where.
        space: Space,
        /// Under which key.
        key: String,
    },
}

/// An entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands. Positions grow, and some may be left out.
    pub position: u64,
    /// What was appended.
    pub data: Bytes,
}

/// Which records of a space to list.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// Keys that begin like this.
    pub prefix: String,
    /// Keys beyond this one, in the order of the list.
    pub after: Option<String>,
    /// From the last key to the first.
    pub backwards: bool,
    /// At most so many; all where it is `None`.
    pub limit: Option<usize>,
}

impl Range {
    /// All records whose keys begin like this.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// The first records.
    pub fn first(limit: usize) -> Self {
        Self { limit: Some(limit), ..Self::default() }
    }

    /// The last records, the last one first.
    pub fn last(limit: usize) -> Self {
        Self { limit: Some(limit), backwards: true, ..Self::default() }
    }

    /// The same, beyond a key.
    #[must_use]
    pub fn after(self, key: impl Into<String>) -> Self {
        Self { after: Some(key.into()), ..self }
    }
}

/// A journal that cannot be read or written. Whatever it is, it is the farm's fault.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot use the journal `{journal}`: {source}; is the disk full?")]
    Engine {
        journal: String,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot use the journal `{journal}`: {source}")]
    Away {
        journal: String,
        /// Commits that were not synced are gone: whoever has them commits them again before all others.
        lost: bool,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The term that writes it has ended. No later commit of it can succeed.
    #[error("the journal `{journal}` belongs to another coordinator now; call that one, which leads the farm")]
    Fenced { journal: String },
    #[error(
        "the journal `{journal}` has {what} that this farm's key does not seal; has somebody else written to it, or has the farm's key \
         been replaced? Restore the key's file"
    )]
    Forged { journal: String, what: String },
    #[error("the journal `{journal}` is in use; does another coordinator use this data directory?")]
    Locked { journal: String },
    #[error("the coordinator is shutting down; try again")]
    Closed,
}

impl Error {
    /// Whether the same call may succeed at another time or coordinator.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Fenced { .. } | Self::Closed)
    }
}

/// A database that a journal is kept in.
#[async_trait]
pub trait Engine: Debug + Send + Sync {
    /// Carries out batches in their order, each of them whole or not at all. They are visible to readers when this returns, and they and all
    /// earlier ones survive a power cut if `sync` is set. If it fails, the first of them may have been carried out, or even all, if only
    /// the answer was lost: the same batches may come again.
    async fn commit(&self, batches: Vec<Arc<Vec<Write>>>, sync: bool) -> Result<(), Error>;

    /// The entries of a stream from a position on: as many as fit into `bytes`, and at least one if there is any.
    async fn read(&self, stream: &str, from: u64, bytes: usize) -> Result<Vec<Entry>, Error>;

    /// The position after the last entry of a stream; 0 if it has none.
    async fn end(&self, stream: &str) -> Result<u64, Error>;

    /// Records by their keys, in the same order.
    async fn get(&self, space: Space, keys: Vec<String>) -> Result<Vec<Option<Bytes>>, Error>;

    /// Records in the order of their keys.
    async fn list(&self, space: Space, range: Range) -> Result<Vec<(String, Bytes)>, Error>;

    /// How many records a space has.
    async fn count(&self, space: Space) -> Result<u64, Error>;
}
