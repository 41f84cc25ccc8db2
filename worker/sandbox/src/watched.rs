//! A running job's control group, looked at again and again: whether it has reached a limit, and what it uses.

use std::time::{Duration, Instant};

use kiln_executor::ending::Stop;
use kiln_executor::samples::Samples;
use parking_lot::Mutex;

use super::cgroup::Group;

/// How often to check whether the job has reached one of its limits.
const LIMITS_EVERY: Duration = Duration::from_millis(200);

/// What was seen of a job while it ran.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    group: Option<&'a Group>,
    began: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    peak_bytes: u64,
    /// None if its use is part of another job's, which is in the same group.
    samples: Option<Samples>,
}

impl<'a> Watched<'a> {
    /// A job that begins now. If its group had others before it, what those used does not count.
    pub(super) fn new(group: Option<&'a Group>, is_part: bool, is_further: bool) -> Self {
        let before = group.filter(|_| is_further && !is_part).and_then(Group::cpu_us);
        let samples = (!is_part).then(|| Samples::since(before.unwrap_or(0)));
        Self { group, began: Instant::now(), seen: Mutex::new(Seen { peak_bytes: 0, samples }) }
    }

    /// Completes when the kernel has killed one of the job's processes because it ran out of memory, or refused it another
    /// process. The remaining processes might otherwise wait or retry forever.
    pub(super) async fn reached_a_limit(&self) -> Stop {
        let Some(group) = self.group else { return std::future::pending().await };
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

    fn look(&self, group: &Group) {
        let mut seen = self.seen.lock();
        let (bytes, elapsed) = (group.memory_bytes(), self.began.elapsed());
        seen.peak_bytes = seen.peak_bytes.max(bytes);
        let Some(samples) = &mut seen.samples else { return };
        samples.saw(bytes);
        if samples.is_due(elapsed)
            && let Some(cpu_us) = group.cpu_us()
        {
            samples.look(elapsed, cpu_us);
        }
    }

    /// The most memory at once, and what it used over time: the job has ended, after all its processes used so much CPU time.
    pub(super) fn end(self, cpu_us: u64) -> (u64, Samples) {
        let Seen { peak_bytes, samples } = self.seen.into_inner();
        let mut samples = samples.unwrap_or_default();
        // What came after the last look.
        if let Some(group) = self.group.filter(|_| !samples.is_empty()) {
            samples.look(self.began.elapsed(), group.cpu_us().unwrap_or(cpu_us));
        }
        (peak_bytes, samples)
    }
}
