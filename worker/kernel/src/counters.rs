//! Counters that the kernel keeps for control groups.
//!
//! Source: the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst, and proc(5).

use std::fs;
use std::path::Path;

/// Reads a counter from a control group's file of `name count` lines; 0 if it is missing.
pub fn count(file: Option<&Path>, name: &str) -> u64 {
    file.and_then(|file| counter(file, name)).unwrap_or(0)
}

fn counter(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

/// Memory that a group's processes have now, in bytes, without what the kernel caches of files for them.
pub fn memory_bytes(group: &Path) -> u64 {
    let stat = group.join("memory.stat");
    let (v2, v1) = (count(Some(&stat), "anon"), count(Some(&stat), "total_rss"));
    v2.max(v1)
}

/// CPU time, in microseconds, that a group's processes have used until now, with those that have ended: of a group of version 2, or of one of
/// version 1 that counts it. None if it does not.
pub fn cpu_us(group: &Path) -> Option<u64> {
    counter(&group.join("cpu.stat"), "usage_usec").or_else(|| {
        let nanoseconds = fs::read_to_string(group.join("cpuacct.usage")).ok()?;
        Some(nanoseconds.trim().parse::<u64>().ok()? / 1000)
    })
}

/// CPU time, in microseconds, of a group's processes and of those of their children that have ended: for a group that does not count it. None
/// if it has no process.
pub fn cpu_us_of_processes(group: &Path) -> Option<u64> {
    let processes = fs::read_to_string(group.join("cgroup.procs")).ok()?;
    let ticks: Vec<u64> = processes.lines().filter_map(ticks).collect();
    (!ticks.is_empty()).then(|| ticks.iter().sum::<u64>() * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// `utime`, `stime`, `cutime` and `cstime` of a process.
fn ticks(pid: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may contain anything, come the fields from the third on.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(14 - 3).take(4);
    Some(fields.filter_map(|field| field.parse::<u64>().ok()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_groups_are_read() {
        let (v2, v1) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(v2.path().join("cpu.stat"), "usage_usec 2500000\nuser_usec 2000000\n").unwrap();
        fs::write(v2.path().join("memory.stat"), "anon 4096\nfile 8192\n").unwrap();
        fs::write(v1.path().join("cpuacct.usage"), "2500000999\n").unwrap();
        fs::write(v1.path().join("memory.stat"), "cache 1\nrss 2\ntotal_cache 3\ntotal_rss 4096\n").unwrap();
        for group in [&v2, &v1] {
            assert_eq!((cpu_us(group.path()), memory_bytes(group.path())), (Some(2_500_000), 4096));
        }
        fs::remove_file(v1.path().join("cpuacct.usage")).unwrap();
        assert_eq!((cpu_us(v1.path()), cpu_us_of_processes(v1.path())), (None, None));
    }

    #[test]
    fn what_a_process_and_its_ended_children_used_is_added_up() {
        let group = tempfile::tempdir().unwrap();
        let spins = || {
            std::process::Command::new("sh").args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"]).status()
        };
        assert!(spins().unwrap().success());
        fs::write(group.path().join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        assert!(cpu_us_of_processes(group.path()).unwrap() > 10_000);
        fs::write(group.path().join("cgroup.procs"), "").unwrap();
        assert_eq!(cpu_us_of_processes(group.path()), None);
    }
}
