//! How much disk space a job may use, and who is to blame when the disk is full.
//!
//! Invariants: a job that writes without end is stopped while there is still room for the worker's other jobs, its cache and other
//! users of that disk, such as the coordinator. A job is never blamed for a disk that something else filled.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::ending::Stop;
use super::scratch::{Written, written_below};

/// Minimum interval between counts of what a job has written.
const EVERY: Duration = Duration::from_millis(500);
/// Jobs are stopped when the scratch directory's file system has fewer free bytes.
const RESERVE: u64 = 256 << 20;
/// Jobs are stopped when there are fewer free inodes, on file systems with a fixed number of them.
const RESERVED_FILES: u64 = 10_000;
/// A job may use this many times the space that it leaves free: three quarters of what was free at its start.
const SHARE: u64 = 3;
/// Maximum number of files and directories that a job may leave.
const MAX_FILES: u64 = 4_000_000;

/// Free space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Free {
    bytes: u64,
    files: u64,
}

/// Watches how much one job writes.
#[derive(Debug, Clone)]
pub struct Disk {
    path: PathBuf,
    most: u64,
    before: Free,
}

impl Disk {
    /// Starts watching a job that writes below `path` and may write `most` bytes.
    pub fn watch(path: &Path, most: u64) -> Self {
        Self { path: path.to_owned(), most, before: Free::of(path) }
    }

    /// Completes when the job must be stopped. Counting takes at most a twentieth of the time.
    pub async fn used_up(&self) -> Stop {
        let mut pause = EVERY;
        loop {
            tokio::time::sleep(pause).await;
            let began = Instant::now();
            let disk = self.clone();
            let look = move || disk.verdict(written_below(&disk.path), Free::of(&disk.path));
            if let Ok(Some(stop)) = tokio::task::spawn_blocking(look).await {
                return stop;
            }
            pause = EVERY.max(began.elapsed() * 20);
        }
    }

    /// Why a command that just failed may have failed: a disk can fill up between two counts.
    pub fn explains_failure(&self) -> Option<Stop> {
        let free = Free::of(&self.path);
        if free.is_used_up() { self.verdict(written_below(&self.path), free) } else { None }
    }

    fn verdict(&self, written: Written, free: Free) -> Option<Stop> {
        if written.bytes > self.most || written.files > MAX_FILES {
            return Some(Stop::Disk);
        }
        if !free.is_used_up() && written.bytes / SHARE <= free.bytes {
            return None;
        }
        // The job is to blame if it filled the disk itself: there was room, and most of what was used up is what it wrote.
        let gone = Free {
            bytes: self.before.bytes.saturating_sub(free.bytes),
            files: self.before.files.saturating_sub(free.files),
        };
        let bytes = free.bytes < RESERVE || written.bytes / SHARE > free.bytes;
        let own = if bytes {
            self.before.bytes >= 2 * RESERVE && written.bytes > gone.bytes / 2
        } else {
            self.before.files >= 2 * RESERVED_FILES && written.files > gone.files / 2
        };
        Some(if own { Stop::Disk } else { Stop::Room })
    }
}

impl Free {
    /// Unlimited if the system does not report the free space.
    fn of(path: &Path) -> Self {
        rustix::fs::statvfs(path).map_or(Self { bytes: u64::MAX, files: u64::MAX }, |stat| Self {
            bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            // Some file systems create inodes on demand and report 0 of 0.
            files: if stat.f_files == 0 { u64::MAX } else { stat.f_favail },
        })
    }

    fn is_used_up(self) -> bool {
        self.bytes < RESERVE || self.files < RESERVED_FILES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn free(bytes: u64) -> Free {
        Free { bytes, files: u64::MAX }
    }

    fn disk(before: u64, most: u64) -> Disk {
        Disk { path: PathBuf::new(), most, before: free(before) }
    }

    fn wrote(bytes: u64) -> Written {
        Written { bytes, files: 10 }
    }

    #[test]
    fn a_job_is_stopped_while_a_quarter_of_the_room_is_left() {
        let disk = disk(52 * GIB, 64 * GIB);
        assert_eq!(disk.verdict(wrote(30 * GIB), free(22 * GIB)), None);
        assert_eq!(disk.verdict(wrote(40 * GIB), free(12 * GIB)), Some(Stop::Disk));
        assert_eq!(disk.verdict(wrote(65 * GIB), free(500 * GIB)), Some(Stop::Disk), "more than any job may");
        let many = Written { bytes: GIB, files: MAX_FILES + 1 };
        assert_eq!(disk.verdict(many, free(500 * GIB)), Some(Stop::Disk), "more files than any job may");
        assert_eq!(disk.verdict(wrote(0), free(u64::MAX)), None);
    }

    #[test]
    fn a_disk_that_somebody_else_filled_is_the_workers_trouble() {
        assert_eq!(disk(10 * GIB, 64 * GIB).verdict(wrote(GIB / 100), free(GIB / 8)), Some(Stop::Room));
        assert_eq!(disk(GIB / 8, 64 * GIB).verdict(wrote(0), free(GIB / 8)), Some(Stop::Room), "it was full before");
        assert_eq!(disk(10 * GIB, 64 * GIB).verdict(wrote(9 * GIB), free(GIB / 8)), Some(Stop::Disk));
        let few = Free { bytes: 10 * GIB, files: 100 };
        let before = Free { bytes: 10 * GIB, files: 1_000_000 };
        let watched = Disk { path: PathBuf::new(), most: 64 * GIB, before };
        assert_eq!(watched.verdict(Written { bytes: 0, files: 5 }, few), Some(Stop::Room));
        assert_eq!(watched.verdict(Written { bytes: 0, files: 900_000 }, few), Some(Stop::Disk));
    }
}
