//! A job: a command, what it may use, and how it ended.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::calls::{Accesses, Calls};
use super::rooted::Mount;
use super::samples::{Samples, SoFar};
use super::session::Session;
use super::{Place, Secrets};

/// Where every worker puts an action's inputs.
pub const BUILD: &str = "/build";
/// The home directory of actions.
pub const HOME: &str = "/tmp/home";
/// What a job takes for the name of the machine, unless it says another.
pub const HOSTNAME: &str = "kiln";

/// What a command can see of where it runs and does not ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// CPUs that its processes may run on; of a job `None`: all of the worker's.
    pub cpus: Option<u32>,
    /// What it takes for the name of the machine, unless its place says another; of a job `None`: [`HOSTNAME`].
    pub host_name: Option<String>,
    /// Where its inputs are, if that is another place in each run; of a job always `None`.
    pub directory: Option<String>,
}

/// A command and what it may use.
#[derive(Debug, Clone)]
pub struct Job {
    /// Where it runs.
    pub place: Place,
    /// Its tenant: jobs of two tenants share nothing that is kept.
    pub tenant: String,
    /// Directories that are merged into its input tree.
    pub layers: Vec<PathBuf>,
    /// The command.
    pub arguments: Vec<String>,
    /// Its environment; `PATH`, `HOME`, `TMPDIR` and `USER` are added if they are missing.
    pub environment: BTreeMap<String, String>,
    /// Additional secret variables, files and logins. Whoever reads the command's output masks them.
    pub secrets: Secrets,
    /// Working directory, relative to the input root.
    pub working_directory: String,
    /// Directories to create before it starts, relative to the input root.
    pub make_directories: Vec<String>,
    /// Directories that outlive it, and sockets that are served for it, if it runs on the machine's own system and that can have any.
    pub beside: Vec<Mount>,
    /// Whether it may access the network.
    pub network: bool,
    /// Time limit, if any.
    pub timeout: Option<Duration>,
    /// CPU share, in thousandths of a CPU.
    pub milli_cpus: u32,
    /// Memory limit, in bytes.
    pub memory_bytes: u64,
    /// Maximum bytes that it may write.
    pub disk_bytes: u64,
    /// Maximum number of processes and threads at once.
    pub max_processes: u32,
    /// What it has to do with other jobs.
    pub calls: Calls,
    /// What runs in its place for somebody who watches. Its tree is then of no use, and it has no time limit of its own.
    pub session: Option<Session>,
    /// What it sees other than usual.
    pub conditions: Conditions,
    /// Who hears what it uses while it runs.
    pub usage: Option<Arc<SoFar>>,
}

impl Job {
    /// What it takes for the name of the machine.
    pub fn host_name(&self) -> &str {
        let own = match &self.place {
            Place::Root(rooted) => rooted.hostname.as_deref(),
            _ => None,
        };
        own.or(self.conditions.host_name.as_deref()).unwrap_or(HOSTNAME)
    }

    /// Adds the variables that every command has, unless the action sets them.
    pub fn add_defaults(environment: &mut BTreeMap<String, String>, path: &str, home: &str) {
        let own = [("PATH", path), ("HOME", home), ("TMPDIR", "/tmp"), ("USER", "kiln"), ("LOGNAME", "kiln")];
        for (name, value) in own.into_iter().chain([("LANG", "C.UTF-8"), ("TZ", "UTC")]) {
            environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
}

/// The stream that a chunk belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output, as it appears.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The stream that it was written to.
    pub stream: Stream,
    /// The bytes.
    pub data: bytes::Bytes,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
    /// It exceeded its timeout.
    TimedOut,
    /// It was cancelled by the caller.
    Cancelled,
    /// It exceeded its memory limit.
    OutOfMemory,
    /// It wrote more than its limit or than fits on the disk.
    DiskFull,
    /// The worker's disk is full, and this command did not fill it.
    NoRoom,
    /// It exceeded its limit on processes.
    TooManyProcesses,
}

/// A command that ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// Time from start to end.
    pub wall: Duration,
    /// CPU time in user mode of all its processes.
    pub user_cpu: Duration,
    /// CPU time in the kernel of all its processes.
    pub system_cpu: Duration,
    /// Peak memory of its largest process, in bytes.
    pub peak_memory_bytes: u64,
    /// What its processes used over time; empty if it ran for less than a second, or nobody looked.
    pub samples: Samples,
    /// What it looked at, if that was recorded.
    pub accesses: Option<Accesses>,
    /// What it saw of where it ran, as far as that is known.
    pub conditions: Conditions,
    /// The tree that it left.
    pub tree: OutputTree,
}

/// The input tree as the command left it; removed on drop.
#[derive(Debug)]
pub struct OutputTree {
    root: PathBuf,
    written: Option<PathBuf>,
    mounts: Option<PathBuf>,
    _keep: Box<dyn Keep>,
}

/// Keeps a tree in place until it is dropped.
pub trait Keep: Debug + Send + Sync {}
impl<T: Debug + Send + Sync> Keep for T {}

impl OutputTree {
    /// A tree in this directory that lasts as long as `keep`.
    pub fn new(root: PathBuf, keep: impl Keep + 'static) -> Self {
        Self { root, written: None, mounts: None, _keep: Box::new(keep) }
    }

    /// The same tree, of which what the command wrote is in this directory on the worker's own disk, in the same places.
    /// No process is left that could change it.
    #[must_use]
    pub fn written_in(self, directory: PathBuf) -> Self {
        Self { written: Some(directory), ..self }
    }

    /// The same tree, beside whose mounts the command has written to others, see [`written_to_mount`](crate::rooted::written_to_mount).
    #[must_use]
    pub fn with_mounts(self, written: PathBuf) -> Self {
        Self { mounts: Some(written), ..self }
    }

    /// Where the directory would be beside which the command wrote to its mounts.
    pub fn mounts(&self) -> Option<&Path> {
        self.mounts.as_deref()
    }

    /// Where what the command wrote can be moved away from once the tree has been read; `None` if it must be copied.
    pub fn written(&self) -> Option<&Path> {
        self.written.as_deref()
    }

    /// The directory in which the whole tree can be read.
    pub fn root(&self) -> &Path {
        &self.root
    }
}
