//! The coordinator: Remote Execution services, worker link, blob stores, builds and artifacts.
//!
//! Invariant: no scheduling decision is made here; they are `kiln-core`'s.

pub mod services;
pub mod status;
pub mod store;
