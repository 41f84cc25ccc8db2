//! Kernel features that the worker needs and that neither the standard library nor `nix` nor `rustix` offers: user
//! namespaces for jobs, id-mapped mounts, calls that wait for a listener, and a few others.
//!
//! Invariant: all of the worker's unsafe code is here.

pub mod counters;
pub mod notify;
pub mod syscalls;
pub mod userns;
