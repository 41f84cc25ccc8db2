//! The worker: fetches inputs, runs actions in the sandbox, uploads outputs.
//!
//! Invariant: it only knows actions, neither projects nor languages.

mod check;
pub mod config;
mod executors;
pub mod leases;
pub mod link;
pub mod membership;
mod metrics;
pub mod outputs;
mod program;
pub mod roots;
pub mod runner;
mod serve;
mod tally;
mod telling;

pub use executors::Executors;
pub use kiln_docker as docker;
pub use kiln_executor as executor;
pub use kiln_inputs as inputs;
pub use kiln_probe as probe;
pub use kiln_sandbox as sandbox;

pub use config::{Config, DEFAULT_GRACE, DEFAULT_VERIFY_CALLS, grace, percent};
pub use kiln_broker::Broker;
pub use program::{Arguments, main};
pub use serve::{machine, run, run_reloading};

/// Must be the first call in `main` of every program that contains a worker: if this process was started as the init of
/// a sandbox or a container, it becomes that and never returns.
pub fn become_init_if_asked() {
    kiln_kernel::userns::become_holder_if_asked();
    sandbox::become_init_if_asked();
    sandbox::become_network_if_asked();
    docker::become_init_if_asked();
}
