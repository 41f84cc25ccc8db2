//! What goes into the scheduler and what comes out.

use std::collections::BTreeSet;

/// Milliseconds on the shell's monotonic clock.
pub type Millis = u64;

/// A grant of a worker's capacity to one run of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// A caller that waits for an action; chosen by the shell, unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// A worker, by its name in the farm.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub String);

/// What makes two actions the same; equal keys are merged.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActionKey(pub String);

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

/// What an action's worker must offer: every property pair, and room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirements {
    /// Pairs that the worker offers, all of them.
    pub properties: BTreeSet<(String, String)>,
    /// What is reserved while the action runs.
    pub capacity: Capacity,
    /// Whose action it is: a worker that is bound to other tenants does not run it. Empty for the default tenant's.
    pub tenant: String,
}

/// A caller asks for an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Who waits.
    pub waiter: WaiterId,
    /// For what.
    pub key: ActionKey,
    /// Where it can run.
    pub requirements: Requirements,
    /// Whose share of the farm it uses.
    pub tenant: String,
    /// Which of the tenant's builds it belongs to.
    pub build: String,
    /// Lower is more urgent, and goes first.
    pub priority: i32,
    /// Length of the longest path that waits for it; within a build the longest goes first.
    pub path_weight: u64,
    /// Hashes of its input directories: a worker that had them lately is preferred.
    pub inputs: Vec<u64>,
    /// How long it waits while no worker could take it; [`Config::queue_timeout`] where it is not set.
    pub patience: Option<Millis>,
}

/// A worker's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerOffer {
    /// Its name.
    pub worker: WorkerId,
    /// The property pairs that it offers.
    pub properties: BTreeSet<(String, String)>,
    /// Those of them that an action must ask for to be placed here.
    pub demands: BTreeSet<(String, String)>,
    /// The tenants whose actions it runs; everybody's where it names none.
    pub tenants: BTreeSet<String>,
    /// All that it has.
    pub capacity: Capacity,
    /// It gets no new leases.
    pub draining: bool,
    /// What it runs already.
    pub running: Vec<RunningLease>,
}

/// A lease that a worker brings along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningLease {
    /// Which.
    pub lease: LeaseId,
    /// What it runs.
    pub key: ActionKey,
    /// What it occupies.
    pub reserved: Capacity,
}

/// How a lease ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer that is final, also a command's failure.
    Completed,
    /// The worker could not carry it out, in words; another may.
    WorkerFault(String),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A caller asks for an action.
    Submit(Submission),
    /// A caller no longer waits.
    Leave(WaiterId),
    /// A worker registered: the first time, or again after a broken connection.
    WorkerJoined(WorkerOffer),
    /// A worker's connection broke; it may come back.
    WorkerDisconnected(WorkerId),
    /// A worker left in order: what it ran goes elsewhere, and counts as no attempt.
    WorkerGone(WorkerId),
    /// A lease's command runs.
    Started(LeaseId),
    /// A lease ended.
    Finished {
        /// On which worker.
        worker: WorkerId,
        /// Which.
        lease: LeaseId,
        /// How.
        outcome: Outcome,
    },
    /// A worker gets no new leases, or gets them again.
    Drain {
        /// Which.
        worker: WorkerId,
        /// Whether it drains.
        on: bool,
    },
    /// Time went by.
    Tick,
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a lease to a worker.
    Assign {
        /// To whom.
        worker: WorkerId,
        /// Under which number.
        lease: LeaseId,
        /// What.
        key: ActionKey,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// What it may use.
        reserved: Capacity,
    },
    /// Tell a worker to stop a lease: nobody waits for it, or another runs the same.
    CancelLease {
        /// Whom.
        worker: WorkerId,
        /// Which.
        lease: LeaseId,
    },
    /// An action runs under a lease that its worker brought along.
    Adopted {
        /// Which.
        key: ActionKey,
        /// Under which number.
        lease: LeaseId,
        /// Where.
        worker: WorkerId,
    },
    /// An action's command runs.
    Started {
        /// Which.
        key: ActionKey,
        /// Where.
        worker: WorkerId,
        /// Who waits.
        waiters: Vec<WaiterId>,
    },
    /// An action waits again.
    Requeued {
        /// Which.
        key: ActionKey,
        /// Who waits.
        waiters: Vec<WaiterId>,
        /// Why, in words.
        reason: String,
    },
    /// An action has its final answer.
    Completed {
        /// Which.
        key: ActionKey,
        /// Under which lease.
        lease: LeaseId,
        /// Who waited; nobody for a lease that a worker brought and no caller asked for.
        waiters: Vec<WaiterId>,
    },
    /// A lease is over, however it ended: nothing more is known of it here. It may come again with a worker that was thought lost.
    LeaseEnded(LeaseId),
    /// The farm gives an action up.
    Failed {
        /// Which.
        key: ActionKey,
        /// Who waited.
        waiters: Vec<WaiterId>,
        /// Why.
        failure: Failure,
    },
}

/// Why the farm gives an action up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No worker can ever run it.
    NoWorkerMatches {
        /// For each worker what it lacks, in words.
        reasons: Vec<String>,
    },
    /// It was lost too often.
    AttemptsExhausted {
        /// How often it was tried.
        attempts: u32,
        /// What happened the last time, in words.
        last: String,
    },
    /// A worker that could run it is known, but none came in time.
    QueueTimeout {
        /// How long it waited without one.
        waited: Millis,
        /// Where the workers are that could run it, in words.
        reasons: Vec<String>,
    },
}

/// Workers that a farm has although none may be connected now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// What it is called in messages.
    pub name: String,
    /// The property pairs that its workers offer. What they say nothing about, they may offer too, labels excepted.
    pub properties: BTreeSet<(String, String)>,
    /// The size of its workers, where it is known.
    pub capacity: Option<Capacity>,
}

impl Pool {
    /// Whether a worker of this pool could run what asks for this.
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

/// Properties that are only offered where they are named.
const LABEL_PREFIX: &str = "kiln.label.";

/// Bounds and weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How often an action is tried.
    pub max_attempts: u32,
    /// How long a worker whose connection broke keeps its leases.
    pub disconnect_grace: Millis,
    /// How long after the start "no worker matches" is not yet said.
    pub match_grace: Millis,
    /// How long after the first worker joined it is not yet said: workers that start together do not join together.
    pub match_settle: Millis,
    /// How long an action waits while no worker that could run it takes work.
    pub queue_timeout: Millis,
    /// How long a worker that left is expected back.
    pub remember_for: Millis,
    /// Workers that the farm has by declaration.
    pub pools: Vec<Pool>,
    /// Workers that an earlier run knew, and until when they are expected back.
    pub remembered: Vec<(WorkerOffer, Millis)>,
    /// How long a lease that a worker brought, and nobody asked for, may run.
    pub orphan_grace: Millis,
    /// How long an action waits before a worker is kept free for it.
    pub reserve_after: Millis,
    /// What the numbers of leases are derived from: who does not know it cannot guess one. Without it they count from 1.
    pub lease_seed: Option<[u8; 32]>,
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
            orphan_grace: 60_000,
            reserve_after: 10_000,
            lease_seed: None,
        }
    }
}

/// A worker as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Its name.
    pub worker: WorkerId,
    /// All that it has.
    pub capacity: Capacity,
    /// What is in use.
    pub used: Capacity,
    /// Leases that it holds.
    pub running: usize,
    /// It gets no new leases.
    pub draining: bool,
    /// Its connection stands.
    pub connected: bool,
}

/// What a queued action waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A worker that could run it.
    Worker {
        /// Where those are that could, in words.
        reasons: Vec<String>,
        /// How long it waits on before it is given up.
        left: Millis,
    },
    /// Room on the workers that could run it.
    Room {
        /// How many actions go before it.
        ahead: usize,
        /// What those workers run: a key for each lease.
        holders: Vec<(WorkerId, ActionKey)>,
    },
}

/// The queue of one kind of action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueView {
    /// What its actions ask for.
    pub properties: BTreeSet<(String, String)>,
    /// How many wait.
    pub queued: usize,
    /// How long the oldest has waited.
    pub oldest_ms: Millis,
}
