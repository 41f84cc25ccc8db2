//! The CPUs that a job's processes may run on.

use std::io;

use kiln_executor::{Conditions, Job};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How many this process may run on.
pub fn available() -> u32 {
    sched_getaffinity(None).map_or(0, |set| set.count())
}

/// Leaves this thread, and the processes that it starts, so many of those that it has.
pub(super) fn restrict(to: Option<u32>) -> io::Result<()> {
    let Some(to) = to else { return Ok(()) };
    let (has, mut chosen) = (sched_getaffinity(None)?, CpuSet::new());
    let own = (0..CpuSet::MAX_CPU).filter(|cpu| has.is_set(*cpu));
    own.take(to.max(1) as usize).for_each(|cpu| chosen.set(cpu));
    Ok(sched_setaffinity(None, &chosen)?)
}

/// What a job sees of where it runs.
pub(super) fn seen(job: &Job) -> Conditions {
    let available = available();
    let cpus = job.conditions.cpus.map_or(available, |cpus| cpus.clamp(1, available.max(1)));
    Conditions { cpus: Some(cpus), host_name: Some(job.host_name().to_owned()) }
}
