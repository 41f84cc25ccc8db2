//! Records inside a process which paths it looks at, so that nobody has to be asked about each of them.
//!
//! This crate is two things. The sandbox uses it as an ordinary library, which reads what was recorded. Its build script compiles it once
//! more (`--cfg preload`) as a shared library without dependencies, [`LIBRARY`], that a job's dynamic programs load before their own C
//! library. That library's `open`, `stat` and the like write the path into a [log](layout) that all processes of the job share, and then
//! make the system call from one place in memory, the gate. A filter of system calls lets calls from the gate pass, and hands all others
//! to a supervisor: those of static programs, of the C library's own functions, and of what runs before the library is loaded.
//!
//! Invariant: a call from the gate has been written down before it is made.

#![cfg_attr(preload, no_std)]
#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

pub mod layout;
#[cfg(not(preload))]
mod log;
#[cfg(preload)]
mod preload;

#[cfg(not(preload))]
pub use log::{Incomplete, paths};

/// The shared library, of this machine's architecture; empty if it could not be made.
#[cfg(not(preload))]
pub const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/recorder.so"));
