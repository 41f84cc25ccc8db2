//! What the worker asks of the kernel that neither the standard library nor `nix` nor `rustix` offers: user namespaces for jobs, mounts that
//! map owners, and a few system calls.
//!
//! Invariant: the one place of the worker with unsafe code.

pub mod counters;
pub mod syscalls;
pub mod userns;
