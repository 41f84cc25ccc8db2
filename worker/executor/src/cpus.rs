//! The CPUs that a job's processes may run on.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Job;

/// How many this process may run on.
pub fn available() -> u32 {
    sched_getaffinity(None).map_or(0, |set| set.count())
}

/// How many a job may run on, on a machine where nothing else restricts it.
pub fn of(job: &Job) -> u32 {
    let available = available();
    job.conditions.cpus.map_or(available, |cpus| cpus.clamp(1, available.max(1)))
}

/// Leaves this thread, and the processes that it starts, so many of those that it has.
///
/// # Errors
/// If the kernel refuses.
pub fn restrict(to: Option<u32>) -> io::Result<()> {
    let Some(to) = to else { return Ok(()) };
    let (has, mut chosen) = (sched_getaffinity(None)?, CpuSet::new());
    let own = (0..CpuSet::MAX_CPU).filter(|cpu| has.is_set(*cpu));
    own.take(to.max(1) as usize).for_each(|cpu| chosen.set(cpu));
    Ok(sched_setaffinity(None, &chosen)?)
}

/// Starts something that has so many of this thread's CPUs, which keeps them all.
///
/// # Errors
/// If the kernel refuses, or `start` fails.
pub fn starting<T>(to: Option<u32>, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let before = sched_getaffinity(None)?;
    restrict(to)?;
    let started = start();
    sched_setaffinity(None, &before)?;
    started
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_started_has_fewer_cpus_and_this_thread_keeps_its_own() {
        let before = available();
        let ran =
            starting(Some(1), || Command::new("nproc").env_clear().env("PATH", "/usr/bin:/bin").output()).unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "1");
        assert_eq!(available(), before);
        assert!(starting(Some(1), || Err::<(), _>(io::Error::other("refused"))).is_err());
        assert_eq!(available(), before, "also if nothing was started");
    }
}
