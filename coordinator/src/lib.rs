//! The coordinator: Remote Execution services, worker link, blob stores, builds and artifacts.
//!
//! Invariant: no scheduling decision is made here; `kiln-scheduler` makes them, and this crate carries them out.

pub mod config;
#[doc(hidden)]
pub mod fuzzing;
mod metrics;
pub mod pools;
mod serve;
pub mod services;
pub mod status;
pub mod tenants;
mod toolchains;

pub use config::Config;
pub use serve::{run, run_on};
