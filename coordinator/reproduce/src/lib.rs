//! Runs the action of a step again, under other conditions, and compares what both runs made.
//!
//! Invariant: a second run has an action of its own, which joins no other, is looked up nowhere and is kept nowhere: it can neither be taken
//! from a cache nor become the result of a step.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod again;
mod asked;
mod layout;
mod made;
mod report;
mod sample;

pub use again::{First, Reproducer};
pub use asked::{Pins, request, steps_of};
pub use made::Error;
pub use report::{PREDICATE_TYPE, as_json, outcome, predicate, summary, verdict, way};
pub use sample::chosen;
