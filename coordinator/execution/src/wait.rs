//! What a caller waits for, as far as it may know: of other tenants it learns that they hold workers, and no more.

use kiln_proto::scope;
use kiln_scheduler::ActionKey;

/// What a caller waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// A worker that could run it.
    Worker {
        /// Where those are that could, in words.
        reasons: Vec<String>,
        /// Milliseconds until it is given up.
        left_ms: u64,
    },
    /// Room on workers that could run it.
    Room {
        /// How many actions go before it.
        ahead: usize,
        /// What holds them.
        holders: Vec<Holder>,
    },
}

/// Who holds a worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The worker.
    pub worker: String,
    /// The build; none where it is another tenant's, or nobody asked for it yet.
    pub build: Option<String>,
}

impl Wait {
    /// What the scheduler says, for a caller who asks for this action. `build_of` knows whose an action is.
    pub(super) fn of(
        wait: kiln_scheduler::Wait,
        asked: &ActionKey,
        build_of: impl Fn(&ActionKey) -> Option<String>,
    ) -> Self {
        let tenant = |key: &ActionKey| scope::split(key.0.split('|').next().unwrap_or_default()).0.to_owned();
        match wait {
            kiln_scheduler::Wait::Worker { reasons, left } => Self::Worker { reasons, left_ms: left },
            kiln_scheduler::Wait::Room { ahead, holders } => {
                let own = tenant(asked);
                let of = |(worker, key): (kiln_scheduler::WorkerId, ActionKey)| Holder {
                    worker: worker.0,
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
