//! What a build consists of: a [`Plan`] of steps and artifacts, and the source tree that it is made from.
//!
//! Invariant: plain data and pure functions; plans are made and executed elsewhere.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod caches;
mod dockerfile;
pub mod gates;
mod image;
mod inputs;
mod model;
mod notify;
pub mod paths;
mod platform;
mod source;
mod tools;
mod view;
pub mod words;
pub mod xml;

pub use caches::{Cache, Sharing, below_sources, cache_target, is_writable_on_system};
pub use dockerfile::{CommandNetwork, DOCKERFILE, Dockerfile};
pub use gates::Gate;
pub use image::{Base, Compression, Image, SCRATCH, read_owner, read_port};
pub use inputs::{compile as compile_globs, glob_error, input_files, matches};
pub use model::{
    Artifact, ArtifactFile, ArtifactKind, DEFAULT_MEMORY_BYTES, DEFAULT_MILLI_CPUS, Libc, Origin, PRINTED, Part, Plan,
    Split, Step, Target, VersionOrigin, default_libraries,
};
pub use notify::{Ending, Notify};
pub use paths::{below, join, parent, path_problem};
pub use platform::{Platform, UnknownPlatform};
pub use source::{MemorySource, Source};
pub use tools::Tool;
pub use view::View;
pub use words::{list, nearest};
