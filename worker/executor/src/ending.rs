//! Determines how a command ended, from what its init saw and why it was stopped.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Exit;

/// What an init saw of a command's end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ended {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// Whether the kernel killed one of its processes because it ran out of memory.
    pub out_of_memory: bool,
    /// Whether the kernel refused it a process.
    pub too_many_processes: bool,
    /// Microseconds from start to end.
    pub wall_us: u64,
    /// CPU time in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// Peak memory of its largest process, in bytes.
    pub peak_bytes: u64,
}

/// Why a job was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It reached its timeout.
    Timeout,
    /// It was cancelled.
    Cancel,
    /// It wrote too much.
    Disk,
    /// The worker's disk is full, and not because of this job.
    Room,
    /// One of its processes was killed because it ran out of memory.
    Memory,
    /// It exceeded its limit on processes.
    Processes,
}

/// How a command ended. The worker's own reason to stop it takes precedence over how the command reacted.
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

/// Completes after the timeout; never if there is none.
pub async fn after(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}
