//! How a command's end is told: by what its init saw, and by why it was stopped.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Exit;

/// What an init saw of a command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ended {
    /// Its exit code, where it exited.
    pub code: Option<i32>,
    /// The signal that ended it, where one did.
    pub signal: Option<i32>,
    /// Whether the kernel ended something of it for want of memory.
    pub out_of_memory: bool,
    /// Whether it was refused a process.
    pub too_many_processes: bool,
    /// Microseconds from its start to its end.
    pub wall_us: u64,
    /// Microseconds of CPU time in programs.
    pub user_us: u64,
    /// Microseconds of CPU time in the kernel.
    pub system_us: u64,
    /// Bytes of memory of its largest process.
    pub peak_bytes: u64,
}

/// Why a job was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Its time was up.
    Timeout,
    /// Nobody wants it any more.
    Cancel,
    /// It wrote too much.
    Disk,
    /// The worker has no room left, and not because of this job.
    Room,
    /// One of its processes was killed for want of memory.
    Memory,
    /// It was refused a process.
    Processes,
}

/// The worker's own reason to stop a command comes before what the command made of it.
pub fn exit(ended: &Ended, stop: Option<Stop>) -> Exit {
    match stop {
        Some(Stop::Timeout) => Exit::TimedOut,
        Some(Stop::Cancel) => Exit::Cancelled,
        Some(Stop::Disk) => Exit::DiskFull,
        Some(Stop::Room) => Exit::NoRoom,
        Some(Stop::Memory) => Exit::OutOfMemory,
        Some(Stop::Processes) => Exit::TooManyProcesses,
        None if ended.out_of_memory => Exit::OutOfMemory,
        None if ended.too_many_processes => Exit::TooManyProcesses,
        None => match (ended.code, ended.signal) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Signal(9),
        },
    }
}

/// Ends when the time is over; never where there is no limit.
pub async fn after(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}
