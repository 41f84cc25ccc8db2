//! The Dockerfile front end: text becomes instructions, stages, and a graph of operations that an executor runs.
//!
//! Behaves as BuildKit's Dockerfile frontend 1.26 does. Sources: the Dockerfile reference, the Go packages `text/scanner`,
//! `filepath` and `fmt` for what they do to a text, and the behaviour of `docker build`.
//!
//! Architecture invariant: no I/O, clock or randomness. Everything is bounded: no input panics, and none takes more than about
//! linear time and space.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod bases;
mod checks;
pub mod config;
mod epoch;
mod file;
pub mod fuzzing;
mod git;
mod image;
pub mod instruction;
pub mod lint;
mod lower;
mod options;
mod outline;
mod platform;
pub mod print;
mod stages;

pub use kiln_dockerfile_text::{error, golang, patterns, source, text, words};

pub use bases::{BaseImage, Bases, Reference, Resolved};
pub use epoch::{Epoch, epoch};
pub use error::Error;
pub use file::{Dockerfile, MAX_STAGES, Stage, decode, is_known_frontend, parse};
pub use git::GitSource;
pub use image::{ImageName, context_name};
pub use lower::{
    Build, Chmod, Copy, CopySource, Fetch, Operation, Operator, Paths, Run, RunMount, WithParents, bases, check, lower,
    unusable,
};
pub use options::{Context, Contexts, NamedContext, NoCache, Options};
pub use outline::{Argument, Target, arguments, targets};
pub use platform::Platform;
