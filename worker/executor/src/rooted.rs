//! What a job in a root file system of its own has beside its command.

use std::path::{Path, PathBuf};

pub use kiln_proto::root::Service;

/// Where programs are looked for if the command has no `PATH`, as container engines do.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The name of the only entry of a tree that stands for a file.
pub const FILE: &str = "file";

/// The name of the directory with what a job on the machine's own system wrote to its caches.
pub const CACHES: &str = "caches";

/// A root file system that a job runs in. The job's layers are its directories, topmost first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Rooted {
    /// Who runs the command, as in a Dockerfile's `USER`.
    pub user: String,
    /// Whether it uses the machine's network, if it may use one at all.
    pub host_network: bool,
    /// What it takes for the name of the machine; default: [`HOSTNAME`](crate::HOSTNAME).
    pub hostname: Option<String>,
    /// What runs beside the command, in the tree of one of the mounts.
    pub service: Option<Service>,
    /// Hosts that it can resolve in addition, with their addresses.
    pub hosts: Vec<(String, String)>,
    /// Its mounts. Those nearer to the root come first, whatever their order here.
    pub mounts: Vec<Mount>,
    /// Directories that are merged into its inputs at [`BUILD`](crate::BUILD), topmost first. `None`: it has none, and what it changes in its
    /// root is its result.
    pub inputs: Option<Vec<PathBuf>>,
    /// Variables whose values are secrets: their names, and those of the secrets.
    pub secret_variables: Vec<(String, String)>,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mount {
    /// Absolute path in the root.
    pub target: String,
    /// What is mounted there.
    pub what: What,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum What {
    /// A tree, from directories like the root's.
    Tree {
        /// Topmost first; none: an empty tree.
        layers: Vec<PathBuf>,
        /// Whether the entry [`FILE`] of the tree is mounted rather than the tree.
        is_file: bool,
        /// Whether the command may write to it.
        writable: bool,
        /// The attributes of the tree itself where it has no layers: mode, user and group.
        top: (u32, u32, u32),
    },
    /// An empty directory in memory.
    Memory {
        /// Most bytes.
        bytes: Option<u64>,
    },
    /// A socket that the worker serves.
    Socket {
        /// Where it is.
        path: PathBuf,
        /// Mode, user and group of the socket.
        attributes: (u32, u32, u32),
    },
    /// The secret with this name, as a file in memory.
    Secret {
        /// Its name among the job's secret variables, or else its path among its secret files.
        name: String,
        /// Mode, user and group of the file.
        attributes: (u32, u32, u32),
    },
}

/// Where a job's root, given where it wrote to it, wrote to the mount with this number.
pub fn written_to_mount(root: &Path, number: usize) -> PathBuf {
    root.with_file_name(format!("mount-{number}"))
}
