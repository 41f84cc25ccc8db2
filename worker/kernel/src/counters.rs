//! Counters that the kernel keeps for control groups.
//!
//! Source: the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst, and proc(5).

use std::fmt::Display;
use std::fs;
use std::path::Path;

/// Processes of a tree that are looked at.
const MOST: usize = 10_000;

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
    cpu_us_of(processes.lines())
}

/// CPU time, in microseconds, of these processes and of those of their children that have ended; none if there is none of them any more.
pub fn cpu_us_of(processes: impl Iterator<Item = impl Display>) -> Option<u64> {
    let ticks: Vec<u64> = processes.filter_map(ticks).collect();
    (!ticks.is_empty()).then(|| ticks.iter().sum::<u64>() * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// Memory that these processes have for themselves, in bytes.
pub fn memory_bytes_of(processes: impl Iterator<Item = impl Display>) -> u64 {
    let page = rustix::param::page_size() as u64;
    let own = |pid| {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let mut fields = statm.split_whitespace().skip(1).map_while(|field| field.parse::<u64>().ok());
        Some(fields.next()?.saturating_sub(fields.next()?))
    };
    processes.filter_map(own).sum::<u64>() * page
}

/// A process and all that it started, directly or through others, as far as they are still there.
pub fn tree(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut at = 0;
    while let Some(pid) = all.get(at).filter(|_| all.len() < MOST) {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<u32> = children
            .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect();
        all.extend(children);
        at += 1;
    }
    all
}

/// `utime`, `stime`, `cutime` and `cstime` of a process.
fn ticks(pid: impl Display) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may contain anything, come the fields from the third on.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(14 - 3).take(4);
    Some(fields.filter_map(|field| field.parse::<u64>().ok()).sum())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;

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

    #[test]
    fn a_tree_has_what_was_started_by_what_was_started() {
        let script = "sleep 60 & echo $!; wait";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let grandchild: u32 = line.trim().parse().unwrap();
        let found = tree(std::process::id());
        assert!(found.contains(&child.id()) && found.contains(&grandchild), "{found:?}");
        assert!(memory_bytes_of(found.iter()) > 100_000 && cpu_us_of(found.iter()).is_some());
        nix::sys::signal::killpg(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
        child.wait().unwrap();
    }
}
