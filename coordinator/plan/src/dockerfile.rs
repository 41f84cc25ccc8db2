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
    /// SSH agents that its commands may mount; whoever builds provides them.
    pub ssh: Vec<String>,
    /// Labels of the image, in addition to the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// Compression of the layers that the build adds.
    pub compression: Compression,
    /// Annotations of the image's manifest: the platform that each is for, or all, key and value.
    pub annotations: Vec<(Option<String>, String, String)>,
    /// Stages whose commands run again.
    pub no_cache_stages: Vec<String>,
    /// Hosts that its commands can resolve, with their addresses.
    pub hosts: Vec<(String, String)>,
    /// The network of its commands.
    pub network: CommandNetwork,
    /// How much memory each of its commands may use, in bytes; by default 2 GiB.
    pub memory_bytes: Option<u64>,
    /// Whether no file of the layers that the build adds is younger than `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
    /// Whether what `.dockerignore` names is left out of the contexts already.
    pub contexts_are_filtered: bool,
}

/// The network of a Dockerfile's commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommandNetwork {
    /// As of every step with the network.
    #[default]
    Default,
    /// None.
    None,
    /// The worker's.
    Host,
}
