//! The end of a job's processes.

use std::time::Duration;

use kiln_executor::ending::Ended;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::watch::Stopped;

/// Reaps until the command has ended, calls `look`, then kills and reaps the remaining processes.
pub(super) fn reap(child: Pid, look: impl Fn()) -> Option<WaitStatus> {
    let mut own = None;
    loop {
        match waitpid(Pid::from_raw(-1), None) {
            Ok(status) if status.pid() == Some(child) => {
                own = Some(status);
                look();
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            }
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(_) => return own,
        }
    }
}

/// What was seen of a command's end.
pub(super) fn ended(status: Option<WaitStatus>, wall: Duration, stopped: &Stopped) -> Ended {
    let (code, signal) = match status {
        Some(WaitStatus::Exited(_, code)) => (Some(code), None),
        Some(WaitStatus::Signaled(_, signal, _)) => (None, Some(signal as i32)),
        _ => (None, None),
    };
    let mut ended = Ended {
        code,
        signal,
        out_of_memory: stopped.out_of_memory(),
        too_many_processes: stopped.too_many_processes(),
        wall_us: wall.as_micros() as u64,
        ..Ended::default()
    };
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) {
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
        ended.user_us = micros(usage.user_time());
        ended.system_us = micros(usage.system_time());
        ended.peak_bytes = usage.max_rss() as u64 * 1024;
    }
    ended
}
