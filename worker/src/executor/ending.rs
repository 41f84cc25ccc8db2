//! How a command's end is told: by what its init saw, and by why it was stopped.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Exit;

/// What an init saw of a command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) out_of_memory: bool,
    pub(crate) too_many_processes: bool,
    pub(crate) wall_us: u64,
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
    pub(crate) peak_bytes: u64,
}

/// Why a job was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Timeout,
    Cancel,
    /// It wrote too much.
    Disk,
    /// The worker has no room left, and not because of this job.
    Room,
    Processes,
}

/// The worker's own reason to stop a command comes before what the command made of it.
pub(crate) fn exit(ended: &Ended, stop: Option<Stop>) -> Exit {
    match stop {
        Some(Stop::Timeout) => Exit::TimedOut,
        Some(Stop::Cancel) => Exit::Cancelled,
        Some(Stop::Disk) => Exit::DiskFull,
        Some(Stop::Room) => Exit::NoRoom,
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
pub(crate) async fn after(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}
