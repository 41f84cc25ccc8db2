//! Measurements of a farm: what an engineer waits for, and what a client of the Remote Execution API gets.
//!
//! Invariant: every figure is taken from real processes over real sockets; nothing here knows the farm's inside.

pub mod blob;
pub mod execute;
pub mod farm;
pub mod project;
pub mod report;
pub mod scheduler;
