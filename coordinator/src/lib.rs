//! The coordinator: Remote Execution services, worker link, blob stores, builds and artifacts.
//!
//! Invariant: no scheduling decision is made here; `kiln-scheduler` makes them, and this crate carries them out.

pub mod artifacts;
pub mod builds;
pub mod config;
pub mod context;
pub mod execution;
#[doc(hidden)]
pub mod fuzzing;
pub mod layers;
mod metrics;
pub mod pools;
mod serve;
pub mod services;
pub mod status;
pub mod tenants;
pub mod trees;
pub mod webhooks;

pub use config::Config;
pub use serve::{run, run_on};
