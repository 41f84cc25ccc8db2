//! Rust: one crate or a workspace.
//!
//! Three layers: the packages that `Cargo.lock` names, those packages compiled, and the project itself. The first two
//! see manifests and the lock file, with a stub in place of each source file that Cargo insists on; so an edited
//! source recompiles the project alone.

mod lock;
mod manifest;
mod outputs;
mod steps;
mod targets;

pub(super) use manifest::identity;
pub(super) use steps::detect;
