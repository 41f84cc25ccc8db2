//! The planner: a project becomes a plan.
//!
//! Invariant: nothing here has a clock, a random source, a runtime or any I/O. What is needed from the world comes
//! in as a parameter, so that every decision can be tested and repeated.

#[doc(hidden)]
pub mod fuzzing;
pub mod plan;
pub mod project;
