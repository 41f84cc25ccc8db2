//! What the worker tells a job's init, and what it hears back. One JSON document each way over a socket.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::executor::Secrets;
use crate::executor::ending::Ended;
use crate::executor::layers::Overlay;

/// Something of the host that appears in the sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bind {
    pub(super) from: PathBuf,
    /// Absolute, in the sandbox.
    pub(super) to: PathBuf,
    pub(super) writable: bool,
}

/// Everything that the init needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Spec {
    /// An empty directory on which the root is built.
    pub(super) root: PathBuf,
    pub(super) binds: Vec<Bind>,
    /// Symbolic links: where, and to what.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    /// Small files that the sandbox brings itself: where, and what is in them.
    pub(super) files: Vec<(PathBuf, String)>,
    pub(super) overlay: Overlay,
    pub(super) network: bool,
    pub(super) arguments: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) secrets: Secrets,
    pub(super) working_directory: String,
    pub(super) make_directories: Vec<String>,
    /// Watched by the init where no control group does.
    pub(super) memory_bytes: Option<u64>,
    pub(super) max_processes: Option<u32>,
}

/// What the init reports, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Report {
    /// The command could not be started, and it is the sandbox's fault.
    Setup(String),
    Ended(Ended),
}
