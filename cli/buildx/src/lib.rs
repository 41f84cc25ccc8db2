//! The command line of `docker build` and `docker buildx build`, as a request.
//!
//! Architecture invariant: no I/O, clock or randomness. Every flag that buildx has is accepted or refused with a reason.
//! Source: the reference of `docker buildx build`, and the behaviour of buildx.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod annotation;
mod answer;
mod attest;
mod call;
mod command;
mod csv;
mod error;
mod flags;
mod output;
mod read;
mod request;
mod scan;
mod secret;

pub use annotation::{Annotation, Level};
pub use answer::{Answer, answer};
pub use attest::{Attestations, Mode};
pub use call::{Call, Method};
pub use error::Error;
pub use output::{Files, Format, Output, Place};
pub use read::Variables;
pub use request::{Network, Progress, Request};
pub use secret::{Origin, Secret, Ssh};

use command::Meant;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A build.
    Build(Box<Request>),
    /// This text.
    Help(String),
}

/// Reads what follows `docker` on a command line.
///
/// # Errors
/// If it is not a build, or its flags are wrong; see [`Error::exit_code`].
pub fn parse(arguments: &[String], variables: Variables<'_>) -> Result<Asked, Error> {
    let arguments = match command::meant(arguments)? {
        Meant::Help => return Ok(Asked::Help(flags::help())),
        Meant::Build(arguments) => arguments,
    };
    let given = scan::scan(arguments)?;
    if given.help {
        return Ok(Asked::Help(flags::help()));
    }
    read::read(given, variables).map(|request| Asked::Build(Box::new(request)))
}

/// The Dockerfile that a build without `--file` takes.
pub const DOCKERFILE: &str = "Dockerfile";
