//! What an executor runs for a `RUN`.

use crate::instruction::{Network, Sharing};

/// `RUN`.
///
/// Its key is everything here but `proxies`, the contents of cache mounts and the values of secrets that do not say `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The files that it sees and changes.
    pub root: usize,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The environment, sorted: `ENV` and `ARG`, whether it is used or not.
    pub env: Vec<(String, String)>,
    /// Variables that are set as well, unless `env` has them, and that are in no key.
    pub proxies: Vec<(String, String)>,
    /// The user, as `USER` says it; empty for root.
    pub user: String,
    /// The directory, which is made unless it exists.
    pub cwd: String,
    /// The name of the machine, if the build says one.
    pub hostname: Option<String>,
    /// The network.
    pub network: Network,
    /// The mounts, in order.
    pub mounts: Vec<RunMount>,
    /// A script that a heredoc contains, at a path outside the root's files, for this command only. Its mode is 0755.
    pub script: Option<(String, String)>,
}

/// A mount of a `RUN`. Targets are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunMount {
    /// Files of another operation. What is written to them is thrown away.
    Bind {
        /// The operation.
        from: usize,
        /// The path in it.
        source: String,
        /// Where it is mounted.
        target: String,
        /// Whether it cannot be written to.
        read_only: bool,
    },
    /// A directory that later builds see again.
    Cache {
        /// Its name.
        id: String,
        /// How builds share it.
        sharing: Sharing,
        /// What it begins with: an operation, and the path in it.
        seed: Option<(usize, String)>,
        /// Where it is mounted.
        target: String,
        /// Whether it cannot be written to.
        read_only: bool,
        /// The mode, user and group of a new one, if the instruction says any of them. Caches with different ones are different.
        owner: Option<(u32, u32, u32)>,
    },
    /// A directory in memory.
    Tmpfs {
        /// Where it is mounted.
        target: String,
        /// Its size in bytes.
        size: Option<u64>,
    },
    /// A secret.
    Secret {
        /// Its name.
        id: String,
        /// Where its file is, if there is one.
        target: Option<String>,
        /// The variable that has its value, if there is one.
        env: Option<String>,
        /// Whether it must be given.
        required: bool,
        /// Whether its value is a part of the key.
        key: bool,
        /// The file's mode, user and group.
        owner: (u32, u32, u32),
    },
    /// An SSH agent. `SSH_AUTH_SOCK` names the first one, unless the environment has it.
    Ssh {
        /// Its name.
        id: String,
        /// Where its socket is.
        target: String,
        /// Whether it must be given.
        required: bool,
        /// The socket's mode, user and group.
        owner: (u32, u32, u32),
    },
}

impl RunMount {
    /// The operation whose files it shows.
    pub fn from(&self) -> Option<usize> {
        match self {
            Self::Bind { from, .. } => Some(*from),
            Self::Cache { seed, .. } => seed.as_ref().map(|(from, _)| *from),
            Self::Tmpfs { .. } | Self::Secret { .. } | Self::Ssh { .. } => None,
        }
    }
}
