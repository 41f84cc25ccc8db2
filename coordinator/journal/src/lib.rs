//! The durable state of a coordinator: streams of entries and keyed records, written in batches that are committed whole or not at all.
//!
//! Invariants: a batch is committed after every batch that was queued before it; what a `Durable` commit wrote is on the disk when it
//! returns; what a reader was shown of a stream is never contradicted, because after a crash a stream continues beyond every position
//! that anyone may have seen.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod batch;
mod engine;
mod fsync;
mod journal;
mod patient;
mod queue;
mod redb;
mod stream;
mod tail;
mod writer;

pub use batch::{Batch, Durability};
pub use engine::{Engine, Entry, Error, Range, Space, Write};
pub use fsync::Fsync;
pub use journal::Journal;
pub use patient::Patient;
pub use queue::Commit;
pub use redb::RedbEngine;
pub use stream::Stream;
pub use tail::WINDOW;
