//! Benchmarks of a farm: what an engineer waits for, and what a client of the Remote Execution API gets.
//!
//! Invariant: every figure is measured with real processes over real sockets, but for those of a part alone (the scheduler, MACs and
//! signatures), which say so; nothing else here uses the farm's internals.

pub mod actions;
pub mod blob;
pub mod calls;
pub mod client;
pub mod cost;
pub mod crowd;
pub mod dockerfile;
pub mod execute;
pub mod farm;
pub mod image;
pub mod layer;
pub mod load;
pub mod pages;
pub mod process;
pub mod project;
pub mod proof;
pub mod registry;
pub mod report;
pub mod scheduler;
pub mod spread;
pub mod workers;
