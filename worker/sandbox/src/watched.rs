//! A running job, looked at again and again: whether it has reached a limit, and what it uses. Its control group tells both; without one, its
//! init keeps the limits, and its processes tell what they use.

use std::time::{Duration, Instant};

use kiln_executor::ending::Stop;
use kiln_executor::samples::{self, Samples, SoFar};
use kiln_kernel::counters;
use parking_lot::Mutex;

use super::cgroup::Group;

/// How often to check whether the job has reached one of its limits.
const LIMITS_EVERY: Duration = Duration::from_millis(200);

/// What was seen of a job while it ran.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    group: Option<&'a Group>,
    /// The process from which all of the job's come.
    root: u32,
    began: Instant,
    seen: Mutex<Seen>,
    /// Who hears of each look.
    so_far: Option<&'a SoFar>,
}

#[derive(Debug, Default)]
struct Seen {
    peak_bytes: u64,
    /// None if its use is part of another job's, which is in the same group.
    samples: Option<Samples>,
}

impl<'a> Watched<'a> {
    /// A job that begins now. If its group had others before it, what those used does not count.
    pub(super) fn new(
        group: Option<&'a Group>,
        root: u32,
        is_part: bool,
        is_further: bool,
        so_far: Option<&'a SoFar>,
    ) -> Self {
        let before = group.filter(|_| is_further && !is_part).and_then(Group::cpu_us);
        let samples = (!is_part).then(|| Samples::since(before.unwrap_or(0)));
        Self { group, root, began: Instant::now(), seen: Mutex::new(Seen { peak_bytes: 0, samples }), so_far }
    }

    /// Completes when the kernel has killed one of the job's processes because it ran out of memory, or refused it another
    /// process. The remaining processes might otherwise wait or retry forever.
    pub(super) async fn reached_a_limit(&self) -> Stop {
        let Some(group) = self.group else { return self.look_at_processes().await };
        loop {
            if group.out_of_memory() {
                return Stop::Memory;
            }
            if group.too_many_processes() {
                return Stop::Processes;
            }
            self.look(group);
            tokio::time::sleep(LIMITS_EVERY).await;
        }
    }

    /// Never completes.
    async fn look_at_processes(&self) -> Stop {
        loop {
            tokio::time::sleep(samples::EVERY).await;
            let processes = counters::tree(self.root);
            let cpu_us = || counters::cpu_us_of(processes.iter());
            self.take(counters::memory_bytes_of(processes.iter()), cpu_us);
        }
    }

    fn look(&self, group: &Group) {
        self.take(group.memory_bytes(), || group.cpu_us());
    }

    fn take(&self, bytes: u64, cpu_us: impl FnOnce() -> Option<u64>) {
        let mut seen = self.seen.lock();
        let elapsed = self.began.elapsed();
        seen.peak_bytes = seen.peak_bytes.max(bytes);
        let Some(samples) = &mut seen.samples else { return };
        samples.saw(bytes);
        if samples.is_due(elapsed)
            && let Some(cpu_us) = cpu_us()
        {
            samples.look(elapsed, cpu_us);
            if let (Some(so_far), Some(last)) = (self.so_far, samples.last()) {
                so_far.saw(last);
            }
        }
    }

    /// The most memory at once, and what it used over time: the job has ended, after all its processes used so much CPU time.
    pub(super) fn end(self, cpu_us: u64) -> (u64, Samples) {
        let Seen { peak_bytes, samples } = self.seen.into_inner();
        let mut samples = samples.unwrap_or_default();
        // What came after the last look.
        if !samples.is_empty() {
            samples.look(self.began.elapsed(), self.group.and_then(Group::cpu_us).unwrap_or(cpu_us));
        }
        (peak_bytes, samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_group_the_processes_are_looked_at() {
        let watched = Watched::new(None, std::process::id(), false, false, None);
        let seen = async {
            while watched.seen.lock().samples.as_ref().is_none_or(Samples::is_empty) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = watched.reached_a_limit() => unreachable!("nothing has a limit here"),
            () = seen => {}
        }
        let (peak, samples) = watched.end(0);
        assert!(peak > 100_000 && samples.to_wire().unwrap().memory_bytes[0] > 100_000, "{samples:?}");
    }
}
