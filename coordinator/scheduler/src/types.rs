//! The scheduler's inputs and outputs.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Milliseconds on the shell's monotonic clock.
pub type Millis = u64;

/// A grant of a worker's capacity for one run of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// A caller that waits for an action; chosen by the shell, unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// A worker's name. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub Arc<str>);

/// The identity of an action; equal keys are merged. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActionKey(pub Arc<str>);

/// CPU and memory, of a worker or for an action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capacity {
    /// Thousandths of a CPU.
    pub milli_cpus: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

impl Capacity {
    /// Whether `wanted` fits in this.
    pub fn holds(&self, wanted: &Capacity) -> bool {
        self.milli_cpus >= wanted.milli_cpus && self.memory_bytes >= wanted.memory_bytes
    }

    pub(super) fn minus(&self, other: &Capacity) -> Capacity {
        Capacity {
            milli_cpus: self.milli_cpus.saturating_sub(other.milli_cpus),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }

    pub(super) fn plus(&self, other: &Capacity) -> Capacity {
        Capacity {
            milli_cpus: self.milli_cpus.saturating_add(other.milli_cpus),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }
}

/// What an action's worker must offer: every property pair, and capacity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirements {
    /// Pairs that the worker must offer.
    pub properties: BTreeSet<(String, String)>,
    /// Capacity that is reserved while the action runs.
    pub capacity: Capacity,
    /// The action's tenant: a worker bound to other tenants does not run it. Empty for the default tenant.
    pub tenant: String,
    /// Whether its caller can do without the farm: it takes what is free in its turn, but no worker is kept free for it.
    pub opportunistic: bool,
}

/// A caller's request for an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The caller.
    pub waiter: WaiterId,
    /// The action.
    pub key: ActionKey,
    /// What its worker must offer.
    pub requirements: Requirements,
    /// The share of the farm that it is charged to: that of its tenant, or of its user.
    pub share: String,
    /// The build that it belongs to.
    pub build: String,
    /// Lower values are more urgent and go first.
    pub priority: i32,
    /// Length of the longest path that depends on it; within a build the longest goes first.
    pub path_weight: u64,
    /// Hashes of its input directories: a worker that recently had them is preferred.
    pub inputs: Vec<u64>,
    /// How long it waits while no worker could run it; defaults to [`Config::queue_timeout`].
    pub wait_limit: Option<Millis>,
    /// Whether it is given up when its first lease is lost: somebody watches it, and it cannot begin again unnoticed.
    pub once: bool,
    /// The worker that runs it only if no other one can.
    pub avoid: Option<WorkerId>,
}

/// A worker's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerOffer {
    /// Its name.
    pub worker: WorkerId,
    /// The property pairs that it offers.
    pub properties: BTreeSet<(String, String)>,
    /// Those of them that an action must require to be placed here.
    pub demands: BTreeSet<(String, String)>,
    /// The tenants whose actions it runs; empty for all.
    pub tenants: BTreeSet<String>,
    /// Its total capacity.
    pub capacity: Capacity,
    /// Whether it gets no new leases.
    pub draining: bool,
    /// The leases that it is running already.
    pub running: Vec<RunningLease>,
}

/// A lease that a registering worker is running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningLease {
    /// The lease.
    pub lease: LeaseId,
    /// The action that it runs.
    pub key: ActionKey,
    /// The capacity that it occupies.
    pub reserved: Capacity,
}

/// How a lease ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a final result, including a command's failure.
    Completed,
    /// The worker could not run it, for this reason; another may.
    WorkerFault(String),
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A caller requests an action.
    Submit(Submission),
    /// A caller stops waiting.
    Leave(WaiterId),
    /// A worker registered: the first time, or again after a broken connection.
    WorkerJoined(WorkerOffer),
    /// A worker's connection broke; it may come back.
    WorkerDisconnected(WorkerId),
    /// A worker left in order: its leases are run elsewhere, without counting as an attempt.
    WorkerGone(WorkerId),
    /// A lease's command is running.
    Started(LeaseId),
    /// A lease ended.
    Finished {
        /// The worker.
        worker: WorkerId,
        /// The lease.
        lease: LeaseId,
        /// Its outcome.
        outcome: Outcome,
    },
    /// Starts or stops draining a worker.
    Drain {
        /// The worker.
        worker: WorkerId,
        /// Whether it drains.
        on: bool,
    },
    /// Time has passed.
    Tick,
}

/// Something that the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a lease to a worker.
    Assign {
        /// The worker.
        worker: WorkerId,
        /// The lease.
        lease: LeaseId,
        /// The action.
        key: ActionKey,
        /// The attempt, from 1.
        attempt: u32,
        /// The capacity that it may use.
        reserved: Capacity,
    },
    /// Tell a worker to stop a lease: nobody waits for its action, or another lease runs it.
    CancelLease {
        /// The worker.
        worker: WorkerId,
        /// The lease.
        lease: LeaseId,
    },
    /// An action runs under a lease that its worker was already running.
    Adopted {
        /// The action.
        key: ActionKey,
        /// The lease.
        lease: LeaseId,
        /// The worker.
        worker: WorkerId,
    },
    /// An action's command is running.
    Started {
        /// The action.
        key: ActionKey,
        /// The worker.
        worker: WorkerId,
        /// The waiting callers.
        waiters: Vec<WaiterId>,
    },
    /// An action waits again.
    Requeued {
        /// The action.
        key: ActionKey,
        /// The waiting callers.
        waiters: Vec<WaiterId>,
        /// The reason.
        reason: String,
    },
    /// An action has its final result.
    Completed {
        /// The action.
        key: ActionKey,
        /// The lease.
        lease: LeaseId,
        /// The waiting callers; none for a lease that a worker brought and nobody asked for.
        waiters: Vec<WaiterId>,
    },
    /// A lease has ended in any way, and the scheduler forgets it. It may reappear with a worker that was considered
    /// lost.
    LeaseEnded(LeaseId),
    /// The farm gives up on an action.
    Failed {
        /// The action.
        key: ActionKey,
        /// The waiting callers.
        waiters: Vec<WaiterId>,
        /// The reason.
        failure: Failure,
    },
}

/// Why the farm gives up on an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No worker can ever run it.
    NoWorkerMatches {
        /// What each worker lacks.
        reasons: Vec<String>,
    },
    /// It was lost too often.
    AttemptsExhausted {
        /// The number of attempts.
        attempts: u32,
        /// What happened in the last attempt.
        last: String,
    },
    /// Its only lease was lost ([`Submission::once`]).
    Lost {
        /// What happened to it.
        reason: String,
    },
    /// Workers that could run it are known, but none became available in time.
    QueueTimeout {
        /// How long it waited.
        waited: Millis,
        /// The state of the workers that could run it.
        reasons: Vec<String>,
    },
}

/// Workers that a farm may have although none is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name in messages.
    pub name: String,
    /// The property pairs that its workers offer. They may also offer unlisted properties, except labels.
    pub properties: BTreeSet<(String, String)>,
    /// The capacity of its workers, if known.
    pub capacity: Option<Capacity>,
}

impl Pool {
    /// Whether a worker of this pool could run an action with these requirements.
    pub fn may_run(&self, requirements: &Requirements) -> bool {
        let offers = |(name, value): &(String, String)| {
            let mut same = self.properties.iter().filter(|(own, _)| own == name).peekable();
            if same.peek().is_none() {
                return !name.starts_with(LABEL_PREFIX);
            }
            same.any(|(_, own)| own == value)
        };
        requirements.properties.iter().all(offers)
            && self.capacity.is_none_or(|capacity| capacity.holds(&requirements.capacity))
    }
}

/// Properties that are only offered if they are listed.
const LABEL_PREFIX: &str = "kiln.label.";

/// Limits and weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Maximum number of attempts for an action.
    pub max_attempts: u32,
    /// How long a disconnected worker keeps its leases.
    pub disconnect_grace: Millis,
    /// How long after the start the scheduler does not yet report that no worker matches.
    pub match_grace: Millis,
    /// The same after the first worker joined, because workers that start together do not join at the same moment.
    pub match_settle: Millis,
    /// How long an action waits while no worker that could run it accepts work.
    pub queue_timeout: Millis,
    /// How long a worker that left is expected back.
    pub remember_for: Millis,
    /// Declared worker pools.
    pub pools: Vec<Pool>,
    /// Workers known to an earlier run, and until when they are expected back.
    pub remembered: Vec<(WorkerOffer, Millis)>,
    /// Those of them that were connected when it ended, and may bring what they run.
    pub returning: BTreeSet<WorkerId>,
    /// How long after the start an action that one of these may be running is given to no other worker.
    pub return_grace: Millis,
    /// How long a lease may run that a worker brought and nobody asked for.
    pub orphan_grace: Millis,
    /// How long an action waits before a worker is reserved for it.
    pub reserve_after: Millis,
    /// Seed of the lease ids, without which they cannot be guessed. If absent, they count from 1.
    pub lease_seed: Option<[u8; 32]>,
    /// The epoch in which this coordinator leads, with which its lease ids begin; 0 for the only one of a farm.
    pub lease_epoch: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            max_attempts: 3,
            disconnect_grace: 15_000,
            match_grace: 0,
            match_settle: 0,
            queue_timeout: 15 * 60_000,
            remember_for: 60 * 60_000,
            pools: Vec::new(),
            remembered: Vec::new(),
            returning: BTreeSet::new(),
            return_grace: 0,
            orphan_grace: 60_000,
            reserve_after: 10_000,
            lease_seed: None,
            lease_epoch: 0,
        }
    }
}

/// The state of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Its name.
    pub worker: WorkerId,
    /// Its total capacity.
    pub capacity: Capacity,
    /// The capacity in use.
    pub used: Capacity,
    /// Number of its leases.
    pub running: usize,
    /// Whether it gets no new leases.
    pub draining: bool,
    /// Whether it is connected.
    pub connected: bool,
}

/// What a queued action waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A worker that could run it.
    Worker {
        /// The state of the workers that could run it.
        reasons: Vec<String>,
        /// How long it waits before it is given up.
        left: Millis,
    },
    /// Workers that an earlier run of the coordinator may have given it to.
    Return {
        /// Those that are not back yet.
        workers: Vec<WorkerId>,
    },
    /// Free capacity on the workers that could run it.
    Room {
        /// Number of actions ahead of it.
        ahead: usize,
        /// What those workers run: the action of each lease.
        holders: Vec<(WorkerId, ActionKey)>,
    },
}

/// The queue for one set of properties, of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueView {
    /// The properties that its actions require.
    pub properties: BTreeSet<(String, String)>,
    /// The tenant whose actions they are.
    pub tenant: String,
    /// Number of waiting actions.
    pub queued: usize,
    /// How long the oldest has been waiting.
    pub oldest_ms: Millis,
    /// What the first of them waits for.
    pub wait: Option<Wait>,
}
