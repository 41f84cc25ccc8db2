//! What the init is told about a root, besides what it is told about every job.

use std::path::PathBuf;

use kiln_executor::rooted::Service;
use serde::{Deserialize, Serialize};

use super::Way;

/// A root and its mounts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in super::super) struct RootSpec {
    pub(super) way: Way,
    /// The first is the root.
    pub(super) overlays: Vec<Layers>,
    /// Sockets below stages, and the directory that the worker offers; their mounts come after those of the overlays.
    pub(super) sockets: Vec<PathBuf>,
    pub(super) mounts: Vec<Mounted>,
    pub(super) user: String,
    /// What runs beside the command.
    pub(in super::super) service: Option<Service>,
    /// Names of variables, and of the secrets that are their values.
    pub(super) secret_variables: Vec<(String, String)>,
    /// Whether its mounts stay when the job has ended, until the worker has read its outputs.
    pub(super) stays: bool,
    /// The machine's certificate authorities, if the job is to trust them.
    pub(super) authorities: Option<String>,
    /// Instead of the command, what a command may do is tried.
    pub(super) is_trial: bool,
}

/// An overlay; all its directories are below stages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Layers {
    pub(super) lower: Vec<PathBuf>,
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
    /// Where the content of files is that are in an image.
    pub(super) objects: Option<PathBuf>,
    /// Whether its only entry, a file, is meant.
    pub(super) is_file: bool,
    pub(super) writable: bool,
}

/// A mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Mounted {
    pub(super) target: PathBuf,
    pub(super) what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum What {
    /// One of the overlays, by its number.
    Overlay(usize),
    Memory(Option<u64>),
    /// One of the sockets, by its number.
    Socket(usize),
    /// The directory that the worker offers, by its number among the sockets.
    Offered(usize),
    /// A secret by name, with mode, user and group.
    Secret(String, (u32, u32, u32)),
}
