//! What a process used, from `/proc`: its highest resident memory and its CPU time.

use std::time::Duration;

use anyhow::Context;

/// A process on this machine, which may be another user's: what cannot be read is not known.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    pid: u32,
}

impl Process {
    /// The process of this id.
    ///
    /// # Errors
    /// Where there is none.
    pub fn new(pid: u32) -> anyhow::Result<Self> {
        let process = Self { pid };
        process.cpu().with_context(|| format!("there is no process {pid} on this machine"))?;
        Ok(process)
    }

    /// Highest resident memory (`VmHWM`) since the process began or [`reset_peak`](Self::reset_peak), in bytes.
    pub fn peak_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    }

    /// Lets the peak begin anew at what is resident now (`proc(5)`, `clear_refs`); whether the kernel allowed it.
    pub fn reset_peak(&self) -> bool {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5").is_ok()
    }

    /// CPU time so far, of all its threads, to the kernel's tick.
    pub fn cpu(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name before may hold spaces and parentheses; user and system time are fields 14 and 15.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
        Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::Process;

    #[test]
    fn this_process_has_memory_and_time_and_none_has_neither() {
        let own = Process::new(std::process::id()).expect("this process");
        assert!(own.peak_bytes().is_some_and(|bytes| bytes > 1 << 16));
        assert!(own.cpu().is_some());
        assert!(Process::new(u32::MAX).is_err());
    }
}
