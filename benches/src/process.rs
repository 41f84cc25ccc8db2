//! A process's resource usage from `/proc`: peak resident memory and CPU time.

use std::time::Duration;

use anyhow::Context;

/// A process on this machine, possibly another user's: values that cannot be read are `None`.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    pid: u32,
}

impl Process {
    /// The process with this id.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(pid: u32) -> anyhow::Result<Self> {
        let process = Self { pid };
        process.cpu().with_context(|| format!("there is no process {pid} on this machine"))?;
        Ok(process)
    }

    /// Peak resident memory (`VmHWM`) in bytes, since the process started or [`reset_peak`](Self::reset_peak) was
    /// called.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.status_kib("VmHWM:")
    }

    /// A value of `/proc/PID/status` in KiB, as bytes.
    fn status_kib(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    }

    /// Resident memory (`VmRSS`) in bytes.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.status_kib("VmRSS:")
    }

    /// Resets the peak to the current resident memory (`proc(5)`, `clear_refs`); whether the kernel allowed it.
    pub fn reset_peak(&self) -> bool {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5").is_ok()
    }

    /// CPU time of all its threads so far, in units of the kernel's tick.
    pub fn cpu(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The preceding name may contain spaces and parentheses; user and system time are fields 14 and 15.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
        Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }
}

impl Process {
    /// CPU time of this process and of all that it started so far, directly or not, whether or not they have ended.
    pub fn cpu_of_tree(&self) -> Duration {
        let mut found: Vec<(u32, u32, u64)> = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok();
            let fields: Option<Vec<u64>> = stat.as_deref().and_then(|stat| stat.rsplit_once(')')).map(|(_, fields)| {
                // The state is a letter; fields that may be negative are not needed.
                fields.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect()
            });
            if let (Some(pid), Some(fields)) = (pid, fields)
                && let (Some(parent), Some(times)) = (fields.get(1), fields.get(11..15))
            {
                found.push((pid, *parent as u32, times.iter().sum()));
            }
        }
        let (mut tree, mut ticks) = (vec![self.pid], 0);
        while let Some(pid) = tree.pop() {
            ticks += found.iter().find(|(own, ..)| *own == pid).map_or(0, |(_, _, ticks)| *ticks);
            tree.extend(found.iter().filter(|(_, parent, _)| *parent == pid).map(|(own, ..)| *own));
        }
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::Process;

    #[test]
    fn what_a_process_started_is_counted_with_it() {
        let own = Process::new(std::process::id()).expect("this process");
        let before = own.cpu_of_tree();
        let ended =
            std::process::Command::new("sh").args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]).status();
        assert!(ended.is_ok_and(|status| status.success()));
        assert!(own.cpu_of_tree() > before);
    }

    #[test]
    fn this_process_has_memory_and_time_and_none_has_neither() {
        let own = Process::new(std::process::id()).expect("this process");
        assert!(own.peak_bytes().is_some_and(|bytes| bytes > 1 << 16));
        assert!(own.cpu().is_some());
        assert!(Process::new(u32::MAX).is_err());
    }
}
