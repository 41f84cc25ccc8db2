//! The plan of a build: which steps run, on what, in which order, and which artifacts result.
//!
//! A plan comes from the project's `kiln.toml` or, without one, from what its files reveal about its language.
//! Invariant: a [`Plan`] that [`plan`] returns is valid. Its steps are sorted so that each follows those it needs,
//! names are unique, and outputs stay inside the tree and do not overlap.

mod caches;
mod check;
pub mod context;
mod gated;
mod go_cache;
mod planner;
mod print;
mod runnable;
mod scope;
mod toolchains;
mod unmatched;
mod unversioned;
mod variables;
mod within;
mod workspace;

pub use caches::Error as InvalidCaches;
pub use check::Error as InvalidPlan;
pub use kiln_plan::*;
pub use planner::{Error, Options, plan, plan_for};
pub use print::to_kiln_toml;
pub use scope::Scope;
pub use toolchains::{InvalidToolchain, Toolchains};
pub use unversioned::{read_unversioned, unversioned};
pub use variables::{Stamp, Variable, VariableError, set_variables, stamp};

#[cfg(test)]
mod tests;
