//! Kiln's decisions as pure functions: what a build consists of (the planner), and where each part runs
//! (the scheduler).
//!
//! Invariant: nothing here has a clock, a random source, a runtime or any I/O. What is needed from the world comes
//! in as a parameter, so that every decision can be tested and repeated.

pub mod detect;
#[doc(hidden)]
pub mod fuzzing;
pub mod plan;
pub mod project;
pub mod scheduler;
