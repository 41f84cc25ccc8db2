//! What a sandbox is opened with, and why it cannot be used.

use std::path::PathBuf;

use super::{Isolation, Layout, SubIds, Tools, Way};

/// Whether actions are isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// In a sandbox if the kernel allows it, otherwise unconfined and with a warning.
    Auto,
    /// In a sandbox; the worker does not start without it.
    Required,
    /// Unconfined.
    Off,
}

/// Configuration of a sandbox.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether actions are isolated.
    pub mode: Mode,
    /// The sandbox's own scratch directory, on the input cache's file system.
    pub scratch: PathBuf,
    /// Toolchains outside the system's directories.
    pub tools: Tools,
    /// The root file system that actions run on; by default this machine's own.
    pub root: Option<PathBuf>,
    /// The range from which actions get their own users and groups if the worker is root.
    pub sub_ids: Option<SubIds>,
    /// Why a worker that is not root has no subordinate ids.
    pub no_ids: Option<String>,
    /// Whether steps with network access have their own network.
    pub network: Isolation,
    /// The program that becomes a job's init; defaults to this process's executable.
    pub init: Option<PathBuf>,
    /// Whether steps with network access get the registry credentials of the worker's user.
    pub own_credentials: bool,
    /// How actions run in roots of their own; default: the best way that works.
    pub way: Option<Way>,
    /// What such roots are on disk; default: the best that works.
    pub layout: Option<Layout>,
    /// The directory with the content of files that images of roots name.
    pub objects: PathBuf,
    /// Whether actions in roots of their own may ask for the machine's network.
    pub host_network: bool,
    /// Whether actions in roots of their own trust the machine's certificate authorities, if they may use the network.
    pub host_authorities: bool,
}

/// Why a sandbox cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "this machine does not allow a sandbox: {reason}; allow unprivileged user namespaces and overlayfs, run the worker as root, \
         or start it with `--sandbox off` if every action is trusted"
    )]
    Impossible { reason: String },
    #[error(
        "cannot run actions on the root `{root}`: {reason}; expected a root file system with `/bin/sh`, a machine that allows the \
         sandbox, and, for another architecture, a kernel that can run it (packages `qemu-user-static` and `binfmt-support`)"
    )]
    Root { root: PathBuf, reason: String },
    #[error("cannot use the scratch directory `{path}`: {source}")]
    Scratch {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "this machine cannot give steps their own network: {reason}; fix that, or start the worker with \
         `--network-isolation auto` if steps with network access may use the machine's network"
    )]
    NoNetwork { reason: String },
    #[error("cannot set up the sandbox: {0}")]
    Setup(String),
    #[error("{0}")]
    Refused(String),
    #[error("the action was cancelled")]
    Cancelled,
}

impl Config {
    /// The program that becomes a job's init.
    pub(super) fn init(&self) -> PathBuf {
        self.init.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
    }
}
