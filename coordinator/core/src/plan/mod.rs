//! The plan of a build: which steps run, on what, in which order, and what becomes an artifact.
//!
//! A plan comes from the project's `kiln.toml`, or where there is none from what its files say about its language.
//! Invariant: a [`Plan`] that [`plan`] returns is valid. Its steps are sorted so that each comes after those it needs,
//! names are unique, outputs stay inside the tree and do not overlap.

mod check;
pub mod context;
mod image;
mod inputs;
mod model;
mod planner;
mod platform;
mod print;
mod scope;
mod source;
mod tools;
mod unmatched;
mod unversioned;
mod variables;
mod within;
mod words;
mod workspace;
pub(crate) mod xml;

pub use crate::detect::tree::{join, parent};
pub use check::Error as InvalidPlan;
pub(crate) use check::path_problem;
pub(crate) use context::below;
pub use image::{Base, Compression, Image, SCRATCH};
pub(crate) use image::{read_owner, read_port};
pub use inputs::{input_files, matches};
pub use model::{
    Artifact, ArtifactFile, ArtifactKind, DEFAULT_MEMORY_BYTES, DEFAULT_MILLI_CPUS, Libc, Origin, Plan, Step, Target,
    VersionOrigin, default_libraries,
};
pub use planner::{Error, Options, plan, plan_for};
pub use platform::{Platform, UnknownPlatform};
pub use print::to_kiln_toml;
pub use scope::Scope;
pub use source::{MemorySource, Source};
pub use tools::Tool;
pub use unversioned::{read_unversioned, unversioned};
pub use variables::{Stamp, Variable, VariableError, set_variables, stamp};
pub(crate) use within::View;
pub(crate) use words::{list, nearest};

#[cfg(test)]
mod tests;
