//! What is sent to open pages when something changes.
//!
//! Invariant: what costs the farm something happens once, however many pages show it.

mod feed;
mod patch;

pub(crate) use feed::{Feeds, Subject, stream};
pub(crate) use patch::Patch;
