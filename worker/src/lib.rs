//! The worker: fetches inputs, runs actions in the sandbox, uploads outputs.
//!
//! Invariant: it knows actions and nothing of projects or languages.

pub mod config;
pub mod inputs;
pub mod link;
pub mod outputs;
pub mod probe;
pub mod runner;
pub mod sandbox;
mod serve;

pub use config::Config;
pub use sandbox::become_init_if_asked;
pub use serve::{run, run_with_grace};
