//! The planner: turns a project into a plan.
//!
//! Invariant: nothing here uses a clock, randomness, a runtime or I/O. External facts are parameters, so that every
//! decision can be tested and repeated.

#[doc(hidden)]
pub mod fuzzing;
pub mod plan;
pub mod project;
