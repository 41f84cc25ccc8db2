//! How much of the disk a job may take.
//!
//! Invariant: a job that writes without end is stopped while there is still room for the worker's other jobs, its cache and
//! whatever else lives on that disk, perhaps the coordinator.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::scratch::bytes_below;

/// How often what a job has written is counted, at most.
const EVERY: Duration = Duration::from_millis(500);
/// Free bytes of the scratch directory's file system below which jobs are stopped.
const RESERVE: u64 = 256 << 20;
/// A job may take this many times what it leaves free: three quarters of what there was.
const SHARE: u64 = 3;

/// Ends when a job has written more than it may, or its file system is full. Counting costs at most a twentieth of the time.
pub(crate) async fn used_up(path: PathBuf, most: u64) {
    let mut pause = EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let began = Instant::now();
        let counted = path.clone();
        let look = move || (bytes_below(&counted), free_bytes(&counted));
        let Ok((written, free)) = tokio::task::spawn_blocking(look).await else { continue };
        if is_too_much(written, free, most) {
            return;
        }
        pause = EVERY.max(began.elapsed() * 20);
    }
}

/// Whether a command that failed just now may have failed for want of disk: one can be filled faster than it is counted.
pub(crate) fn is_full(path: &Path) -> bool {
    free_bytes(path) < RESERVE
}

fn is_too_much(written: u64, free: u64, most: u64) -> bool {
    free < RESERVE || written > most || written / SHARE > free
}

/// All there could be where the system does not say.
fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_job_is_stopped_while_a_quarter_of_the_room_is_left() {
        assert!(!is_too_much(30 * GIB, 22 * GIB, 64 * GIB));
        assert!(is_too_much(40 * GIB, 12 * GIB, 64 * GIB));
        assert!(is_too_much(65 * GIB, 500 * GIB, 64 * GIB), "more than any job may");
        assert!(is_too_much(0, GIB / 8, 64 * GIB), "somebody else filled it");
        assert!(!is_too_much(0, u64::MAX, u64::MAX));
    }
}
