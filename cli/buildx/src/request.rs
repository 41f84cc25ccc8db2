//! What a command line asks for.

use std::collections::BTreeMap;

use crate::annotation::Annotation;
use crate::attest::Attestations;
use crate::call::Call;
use crate::output::{Format, Output};
use crate::secret::{Secret, Ssh};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progress {
    /// As a terminal can, or as lines.
    #[default]
    Auto,
    /// As lines.
    Plain,
    /// On a terminal.
    Tty,
    /// Not at all.
    Quiet,
    /// As BuildKit's JSON.
    RawJson,
}

/// The network of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// As of every step with the network.
    #[default]
    Default,
    /// None.
    None,
    /// The worker's.
    Host,
}

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The context: a directory, a URL or `-`.
    pub context: String,
    /// The Dockerfile; `-` is standard input.
    pub file: Option<String>,
    /// The stage.
    pub target: Option<String>,
    /// Values of `ARG`s.
    pub build_args: BTreeMap<String, String>,
    /// Named contexts, as they are written.
    pub contexts: BTreeMap<String, String>,
    /// Secrets.
    pub secrets: Vec<Secret>,
    /// SSH agents.
    pub ssh: Vec<Ssh>,
    /// Platforms as `linux/amd64`; empty: this machine's.
    pub platforms: Vec<String>,
    /// Names of the image.
    pub tags: Vec<String>,
    /// Where the result goes; empty: it stays on the farm.
    pub outputs: Vec<Output>,
    /// How the image is written.
    pub format: Format,
    /// Whether commands run again.
    pub no_cache: bool,
    /// Stages whose commands run again.
    pub no_cache_stages: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: Vec<Annotation>,
    /// Hosts with their addresses.
    pub hosts: Vec<(String, String)>,
    /// The network of commands.
    pub network: Network,
    /// How much memory a command may use, in bytes, unless that is the default.
    pub memory_bytes: Option<u64>,
    /// What is done.
    pub call: Call,
    /// The file for the image's id.
    pub id_file: Option<String>,
    /// The file for what was built.
    pub metadata_file: Option<String>,
    /// Attestations.
    pub attestations: Attestations,
    /// Whether only the image's id is printed.
    pub quiet: bool,
    /// How progress is shown.
    pub progress: Progress,
    /// What the user should know of flags without effect.
    pub notes: Vec<String>,
}

impl Request {
    /// How progress is shown: quietly if only the image's id is wanted.
    pub fn progress_shown(&self) -> Progress {
        if self.quiet { Progress::Quiet } else { self.progress }
    }
}
