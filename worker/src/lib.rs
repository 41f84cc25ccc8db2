//! The worker: fetches inputs, runs actions in the sandbox, uploads outputs.
//!
//! Invariant: it knows actions and nothing of projects or languages.

pub mod config;
mod executors;
pub mod inputs;
pub mod leases;
pub mod link;
mod mask;
pub mod membership;
mod metrics;
mod output_log;
pub mod outputs;
pub mod probe;
pub mod runner;
mod serve;
mod tally;

pub use executors::Executors;
pub use kiln_docker as docker;
pub use kiln_executor as executor;
pub use kiln_sandbox as sandbox;

pub use config::{Config, DEFAULT_GRACE, grace};
pub use serve::run;

/// Must be the first call of `main` in every program that holds a worker: where this process was started as the first one of a
/// sandbox or a container, it becomes that and does not return.
pub fn become_init_if_asked() {
    kiln_kernel::userns::become_holder_if_asked();
    sandbox::become_init_if_asked();
    sandbox::become_network_if_asked();
    docker::become_init_if_asked();
}
