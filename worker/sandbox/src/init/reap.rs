//! The end of a job's processes.

use std::time::Duration;

use kiln_executor::ending::Ended;
use kiln_kernel::syscalls::{Reaped, reap_any};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::watch::Stopped;

/// Reaps until the command has ended, calls `look`, then kills and reaps the remaining processes. Answers with the command's end and what
/// all of them used.
pub(super) fn reap(child: Pid, look: impl Fn()) -> Reaped {
    let mut all = Reaped::default();
    loop {
        match reap_any() {
            Ok(Some(one)) => {
                all.user_us += one.user_us;
                all.system_us += one.system_us;
                all.peak_bytes = all.peak_bytes.max(one.peak_bytes);
                if one.pid == child.as_raw() {
                    (all.pid, all.code, all.signal) = (one.pid, one.code, one.signal);
                    look();
                    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(None) | Err(_) => return all,
        }
    }
}

/// What was seen of a command's end.
pub(super) fn ended(reaped: Reaped, wall: Duration, stopped: &Stopped) -> Ended {
    Ended {
        code: reaped.code,
        signal: reaped.signal,
        out_of_memory: stopped.out_of_memory(),
        too_many_processes: stopped.too_many_processes(),
        wall_us: wall.as_micros() as u64,
        user_us: reaped.user_us,
        system_us: reaped.system_us,
        peak_bytes: reaped.peak_bytes,
    }
}
