//! Rust: one crate or a workspace.
//!
//! Three layers: the packages that `Cargo.lock` lists, those packages compiled, and the project itself. The inputs of
//! the first two are manifests and the lock file, with a stub for each source file that Cargo requires, so an edited
//! source recompiles only the project.

mod lock;
mod manifest;
mod outputs;
mod steps;
mod targets;

pub(super) use manifest::identity;
pub(super) use outputs::product;
pub(super) use steps::detect;
