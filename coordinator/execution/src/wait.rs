//! What a caller is waiting for, as far as it may know: about other tenants it only learns that they occupy workers.

use kiln_proto::scope;
use kiln_scheduler::ActionKey;

/// What a caller is waiting for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// A worker that could run it.
    Worker {
        /// Why the known workers cannot run it.
        reasons: Vec<String>,
        /// Milliseconds until the farm gives up.
        left_ms: u64,
    },
    /// Workers that were connected before the coordinator restarted, and may be running it.
    Return {
        /// Those that are not back yet.
        workers: Vec<String>,
    },
    /// Free capacity on workers that could run it.
    Room {
        /// Number of actions ahead of it.
        ahead: usize,
        /// The current holders of those workers.
        holders: Vec<Holder>,
    },
}

/// A build that occupies a worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The worker.
    pub worker: String,
    /// The build; `None` if it is another tenant's, or if nobody has asked for it yet.
    pub build: Option<String>,
}

impl Wait {
    /// Translates the scheduler's answer for a caller of this action. `build_of` maps an action to its build.
    pub(super) fn of(
        wait: kiln_scheduler::Wait,
        asked: &ActionKey,
        build_of: impl Fn(&ActionKey) -> Option<String>,
    ) -> Self {
        let tenant = |key: &ActionKey| scope::split(key.0.split('|').next().unwrap_or_default()).0.to_owned();
        match wait {
            kiln_scheduler::Wait::Worker { reasons, left } => Self::Worker { reasons, left_ms: left },
            kiln_scheduler::Wait::Return { workers } => {
                Self::Return { workers: workers.into_iter().map(|worker| worker.0.to_string()).collect() }
            }
            kiln_scheduler::Wait::Room { ahead, holders } => {
                let own = tenant(asked);
                let of = |(worker, key): (kiln_scheduler::WorkerId, ActionKey)| Holder {
                    worker: worker.0.to_string(),
                    build: build_of(&key).filter(|_| tenant(&key) == own),
                };
                let mut holders: Vec<Holder> = holders.into_iter().map(of).collect();
                holders.sort();
                holders.dedup();
                Self::Room { ahead, holders }
            }
        }
    }
}
