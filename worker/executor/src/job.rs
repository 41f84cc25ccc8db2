//! A command, what it may use, and how it ended.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Place, Secrets};

/// Where an action finds its inputs, on every worker.
pub const BUILD: &str = "/build";
/// The home directory of actions.
pub const HOME: &str = "/tmp/home";

/// A command and what it may use.
#[derive(Debug, Clone)]
pub struct Job {
    /// In what it runs.
    pub place: Place,
    /// Whose it is: jobs of two tenants never share anything that is kept.
    pub tenant: String,
    /// Directories that together are its input tree; where two have a directory, theirs become one.
    pub layers: Vec<PathBuf>,
    /// The command.
    pub arguments: Vec<String>,
    /// Its variables; `PATH`, `HOME`, `TMPDIR` and `USER` are added where they are absent.
    pub environment: BTreeMap<String, String>,
    /// Variables beside these that nobody else may see; what the command prints of them is masked by whoever reads it.
    pub secrets: Secrets,
    /// Where it starts, relative to the input root.
    pub working_directory: String,
    /// Directories to make before it starts, relative to the input root.
    pub make_directories: Vec<String>,
    /// Whether it may reach the network.
    pub network: bool,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// Its share of the CPUs, in thousandths of one.
    pub milli_cpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Most bytes that it may write.
    pub disk_bytes: u64,
    /// Most processes and threads at once.
    pub max_processes: u32,
}

impl Job {
    /// Adds the variables that every command finds, where the action sets them not.
    pub fn add_defaults(environment: &mut BTreeMap<String, String>, path: &str, home: &str) {
        let own = [("PATH", path), ("HOME", home), ("TMPDIR", "/tmp"), ("USER", "kiln"), ("LOGNAME", "kiln")];
        for (name, value) in own.into_iter().chain([("LANG", "C.UTF-8"), ("TZ", "UTC")]) {
            environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
}

/// Which stream a chunk is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Output as it appears.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Where it came out.
    pub stream: Stream,
    /// The bytes.
    pub data: bytes::Bytes,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It ran longer than its timeout.
    TimedOut,
    /// The caller no longer wanted it.
    Cancelled,
    /// It used more memory than it may.
    OutOfMemory,
    /// It wrote more than it may, or than there is room for.
    DiskFull,
    /// The worker's disk has no room left, and it was not this command that filled it.
    NoRoom,
    /// It had more processes than it may.
    TooManyProcesses,
}

/// A command that ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub exit: Exit,
    /// From its start to its end.
    pub wall: Duration,
    /// CPU time in user mode, of all its processes.
    pub user_cpu: Duration,
    /// CPU time in the kernel.
    pub system_cpu: Duration,
    /// Peak memory of its largest process.
    pub peak_memory_bytes: u64,
    /// What it left.
    pub tree: OutputTree,
}

/// The input tree as the command left it; gone when this is dropped.
#[derive(Debug)]
pub struct OutputTree {
    root: PathBuf,
    _keep: Box<dyn Keep>,
}

/// What holds a tree in its place until it is dropped.
pub trait Keep: Debug + Send + Sync {}
impl<T: Debug + Send + Sync> Keep for T {}

impl OutputTree {
    /// The tree in this directory, which lasts for as long as `keep` does.
    pub fn new(root: PathBuf, keep: impl Keep + 'static) -> Self {
        Self { root, _keep: Box::new(keep) }
    }

    /// A directory in which the whole tree can be read.
    pub fn root(&self) -> &Path {
        &self.root
    }
}
