//! The user's terminal while a shell elsewhere has it.
//!
//! Invariant: it is given back as it was, however the process ends, unless that is killed with `SIGKILL`.

mod escape;
#[cfg_attr(windows, path = "raw_windows.rs")]
mod raw;
mod streams;

pub use escape::{Escape, Typed};
pub use raw::{Raw, Resizes, give_back, resizes};
pub use streams::{Printer, typed};
