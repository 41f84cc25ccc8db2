//! From a source tree to a validated plan: `kiln.toml` where there is one, else what the project's files say.
//!
//! Invariant: every plan that leaves here has passed `check`.

use super::{Plan, Platform, Source, check};
use crate::{detect, project};

/// What the caller asks for, and what the planner cannot see.
#[derive(Debug, Clone)]
pub struct Options {
    /// Platforms to build for. Empty: the project's targets, else the host.
    pub platforms: Vec<Platform>,
    /// Names of targets to build for. Empty: all.
    pub targets: Vec<String>,
    /// The caller's own machine.
    pub host: Platform,
    /// What `git describe` says, where there is a repository.
    pub describe: Option<String>,
    /// The project's name where nothing else says one.
    pub directory_name: String,
}

/// Why there is no plan. Every one is the user's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `kiln.toml` is wrong.
    #[error(transparent)]
    Project(#[from] project::Error),
    /// The project's files do not say how to build it.
    #[error(transparent)]
    Detect(#[from] detect::Error),
    /// The steps do not form a build.
    #[error(transparent)]
    Invalid(#[from] check::Error),
    /// A target that the project does not have was asked for.
    #[error("the project has no target `{name}`: it has {known}")]
    UnknownTarget {
        /// What was asked for.
        name: String,
        /// The names there are, in words.
        known: String,
    },
}

/// The plan for a source tree.
pub fn plan(_source: &dyn Source, _options: &Options) -> Result<Plan, Error> {
    Err(detect::Error::Empty.into())
}
