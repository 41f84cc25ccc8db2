//! What is sent to open pages when something changes.
//!
//! Invariant: what costs the farm something happens once, however many pages show it.

mod build;
mod feed;
mod patch;

pub(crate) use build::{Builds, Changes, News, Render, Shown};
pub(crate) use feed::{Feeds, Subject, answer, stream};
pub(crate) use patch::{Drawn, Patch, Written, event, message};
