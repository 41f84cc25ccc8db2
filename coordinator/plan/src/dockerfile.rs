//! Description of an image that a Dockerfile builds.

use std::collections::BTreeMap;

use crate::Compression;

/// The usual name of a Dockerfile.
pub const DOCKERFILE: &str = "Dockerfile";

/// An image that a Dockerfile builds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dockerfile {
    /// Its path in the source tree.
    pub file: String,
    /// The directory of the source tree that it copies from; empty for all of it.
    pub context: String,
    /// The stage to build; the last one if absent.
    pub stage: Option<String>,
    /// Values of its `ARG`s.
    pub args: BTreeMap<String, String>,
    /// What takes the place of a stage or an image, by name: a directory of the source tree, or `docker-image://NAME`.
    pub contexts: BTreeMap<String, String>,
    /// Names of the secrets that its commands may mount; whoever builds provides the values.
    pub secrets: Vec<String>,
    /// Labels of the image, in addition to the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// Compression of the layers that the build adds.
    pub compression: Compression,
}
