//! The coordinator: Remote Execution services, worker link, blob stores, builds and artifacts.
//!
//! Invariant: no scheduling decision is made here; `kiln-scheduler` makes them, and this crate carries them out.

mod check;
pub mod config;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod live;
mod metrics;
pub mod pools;
mod program;
mod seat;
mod serve;
pub mod services;
pub mod status;
pub mod tenants;
mod toolchains;

pub use config::Config;
pub use kiln_peers::Network;
pub use live::{Reload, Reloads};
pub use program::{Arguments, main};
pub use seat::Agreement;
pub use serve::{run, run_on, run_reloading};
