//! What the measured scheduler is given: workers and submissions, each determined by its number.

use std::collections::BTreeSet;

use kiln_scheduler::{ActionKey, Capacity, Requirements, Submission, WaiterId, WorkerId, WorkerOffer};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// CPUs of every worker but the large ones.
const MILLI_CPUS: u32 = 4_000;
/// CPUs of a large worker: full, it runs some 70 actions.
const LARGE_MILLI_CPUS: u32 = 40_000;
/// Every so many workers one is large.
const LARGE_EVERY: u64 = 100;
/// Successive actions that have the same input directories, as those of one library do.
const LIKE_EACH_OTHER: u64 = 100;

/// Sizes of the farm and of its queue.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Number of actions that are queued before the first worker joins.
    pub actions: u64,
    /// Number of workers.
    pub workers: u64,
    /// Number of distinct requirements.
    pub classes: u64,
    /// Number of shares, and of builds in each.
    pub shares: (u64, u64),
    /// Number of input directories of an action.
    pub inputs: u64,
}

/// Three quarters of the classes and of the workers are of one architecture.
fn properties(number: u64) -> BTreeSet<(String, String)> {
    let isa = if number.is_multiple_of(4) { "aarch64" } else { "x86-64" };
    let pairs = [("ISA", isa), ("OSFamily", "linux"), ("kiln.libc", "glibc:2.36")];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl Size {
    /// The action with this number, for the waiter with the same number.
    pub fn submission(&self, number: u64) -> Submission {
        let class = number % self.classes;
        let (shares, builds) = self.shares;
        let share = number / self.classes % shares;
        let like = number / LIKE_EACH_OTHER * self.inputs;
        Submission {
            waiter: WaiterId(number),
            key: ActionKey(format!("{number:064}").into()),
            requirements: Requirements {
                properties: properties(class),
                // The memory makes classes distinct.
                capacity: Capacity {
                    milli_cpus: [250, 500, 1000][(class % 3) as usize],
                    memory_bytes: GIB / 8 + class * MIB,
                },
                ..Requirements::default()
            },
            share: format!("share-{share}"),
            build: format!("build-{}", number / self.classes / shares % builds),
            priority: 0,
            path_weight: number % 7,
            inputs: (like..like + self.inputs).map(|input| input.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect(),
            wait_limit: None,
            once: false,
            avoid: None,
        }
    }

    /// The worker with this number.
    pub fn offer(&self, number: u64) -> WorkerOffer {
        let milli_cpus = if is_large(number) { LARGE_MILLI_CPUS } else { MILLI_CPUS };
        WorkerOffer {
            worker: name(number),
            properties: properties(number),
            demands: BTreeSet::new(),
            tenants: BTreeSet::new(),
            capacity: Capacity { milli_cpus, memory_bytes: u64::from(milli_cpus) / 1000 * GIB },
            draining: false,
            running: Vec::new(),
        }
    }
}

/// Whether a worker has many CPUs.
pub fn is_large(number: u64) -> bool {
    number % LARGE_EVERY == 1
}

/// A worker's name.
pub fn name(number: u64) -> WorkerId {
    WorkerId(format!("worker-{number}").into())
}
