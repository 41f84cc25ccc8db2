//! Enforces a job's limits by polling, for machines without control groups.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::spec::Spec;

const OUT_OF_MEMORY: u8 = 1;
const TOO_MANY_PROCESSES: u8 = 2;
/// Polling interval.
const EVERY: Duration = Duration::from_millis(100);

/// Why a job was stopped, if it was.
#[derive(Debug, Clone, Default)]
pub(super) struct Stopped(Arc<AtomicU8>);

impl Stopped {
    fn set(&self, reason: u8) {
        let _ = self.0.compare_exchange(0, reason, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub(super) fn out_of_memory(&self) -> bool {
        self.0.load(Ordering::SeqCst) == OUT_OF_MEMORY
    }

    pub(super) fn too_many_processes(&self) -> bool {
        self.0.load(Ordering::SeqCst) == TOO_MANY_PROCESSES
    }

    /// Checks once more after the command has ended: it may have been refused a process between two polls.
    pub(super) fn look(&self, most_processes: Option<u32>) {
        if most_processes.is_some_and(|most| usage().0 > most) {
            self.set(TOO_MANY_PROCESSES);
        }
    }
}

/// Starts a process that the kernel kills first when memory is short. The init must survive, or nobody could tell what
/// happened.
pub(super) fn expendable<T>(score: Option<std::fs::File>, start: impl FnOnce() -> T) -> T {
    let Some(mut score) = score else { return start() };
    let _ = score.write_all(b"1000");
    let started = start();
    let _ = score.write_all(b"0");
    started
}

/// Polls the namespace's own /proc for as long as the job runs.
pub(super) fn watch(spec: &Spec, stopped: Stopped) -> std::io::Result<()> {
    let (memory, processes) = (spec.memory_bytes, spec.max_processes);
    if memory.is_none() && processes.is_none() {
        return Ok(());
    }
    let watching = std::thread::Builder::new().spawn(move || {
        loop {
            std::thread::sleep(EVERY);
            let (count, bytes) = usage();
            if memory.is_some_and(|most| bytes.saturating_add(shared()) > most) {
                stopped.set(OUT_OF_MEMORY);
            } else if processes.is_some_and(|most| count > most) {
                stopped.set(TOO_MANY_PROCESSES);
            } else {
                continue;
            }
            // A fork bomb outruns a single sweep.
            for _ in 0..1000 {
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
                if usage().0 == 0 {
                    break;
                }
            }
        }
    });
    watching.map(drop)
}

/// Bytes used by files in `/dev/shm`.
fn shared() -> u64 {
    let used = |stat: rustix::fs::StatVfs| (stat.f_blocks - stat.f_bfree.min(stat.f_blocks)) * stat.f_frsize;
    rustix::fs::statvfs("/dev/shm").map_or(0, used)
}

/// Number of processes in this namespace other than the init, and their resident bytes.
fn usage() -> (u32, u64) {
    let page = rustix::param::page_size() as u64;
    let (mut count, mut bytes) = (0, 0);
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()).filter(|pid| *pid != 1) else {
            continue;
        };
        count += 1;
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let mut fields = statm.split_whitespace().skip(1).map(|field| field.parse::<u64>().unwrap_or(0));
        let (resident, shared) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
        bytes += resident.saturating_sub(shared) * page;
    }
    (count, bytes)
}
