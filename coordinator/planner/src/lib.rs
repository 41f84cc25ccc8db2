//! The planner: turns a project into a plan.
//!
//! Invariant: nothing here uses a clock, randomness, a runtime or I/O. External facts are parameters, so that every
//! decision can be tested and repeated.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

#[doc(hidden)]
pub mod fuzzing;
pub mod plan;
pub mod project;
