//! Resource limits by control groups, version 1 or 2, where this process may create groups.
//!
//! Source: the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.

use super::kept::{Sandboxed, Waiting};
use kiln_kernel::counters::{self, count};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Prefix of the names of this program's groups; the number after it is the process that created them.
pub(super) const PREFIX: &str = "kiln-";

/// One hierarchy in which groups can be created.
#[derive(Debug, Clone)]
enum Hierarchy {
    V1 { memory: Option<PathBuf>, pids: Option<PathBuf>, cpu: Option<PathBuf> },
    V2 { base: PathBuf },
}

/// The control groups that this process may use.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    hierarchy: Hierarchy,
}

/// A job's groups; removed on drop.
#[derive(Debug)]
pub(super) struct Group {
    directories: Vec<PathBuf>,
    memory_events: Option<PathBuf>,
    pids_events: Option<PathBuf>,
    /// Sandboxes in this group that wait for another job that is part of it.
    pub(super) waiting: Waiting<Sandboxed>,
}

/// The mount point of a hierarchy and this process's place in it.
pub(super) fn own(controller: Option<&str>) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        let matches = match controller {
            Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
            None => kind == "cgroup2",
        };
        let mut left = left.split(' ').skip(3);
        matches.then(|| (left.next().map(str::to_owned), left.next().map(PathBuf::from)))
    })?;
    let (Some(mounted_root), Some(point)) = mount else { return None };
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let place = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, names, place) = (parts.next()?, parts.next()?, parts.next()?);
        let matches = match controller {
            Some(name) => names.split(',').any(|own| own == name),
            None => names.is_empty(),
        };
        matches.then(|| place.to_owned())
    })?;
    let within = place.strip_prefix(mounted_root.trim_end_matches('/')).unwrap_or(&place);
    Some(point.join(within.trim_start_matches('/')))
}

fn can_make_groups(base: &Path) -> bool {
    let trial = base.join(format!("{PREFIX}{}-trial", std::process::id()));
    fs::create_dir(&trial).is_ok() && fs::remove_dir(&trial).is_ok()
}

impl Cgroups {
    /// Finds out which hierarchies can be used; `None` if none can limit memory.
    pub(super) fn open() -> Option<Self> {
        let v1 = |name| own(Some(name)).filter(|base| can_make_groups(base));
        if let Some(memory) = v1("memory") {
            return Some(Self { hierarchy: Hierarchy::V1 { memory: Some(memory), pids: v1("pids"), cpu: v1("cpu") } });
        }
        let base = own(None).filter(|base| can_make_groups(base))?;
        // Groups with processes of their own cannot have children with limits: this process moves into a leaf.
        let name = format!("{PREFIX}{}-self", std::process::id());
        let base = if base.ends_with(&name) { base.parent()?.to_owned() } else { base };
        let leaf = base.join(name);
        let enabled = || fs::write(base.join("cgroup.subtree_control"), "+memory +pids +cpu").is_ok();
        if !enabled() {
            fs::create_dir_all(&leaf).ok()?;
            fs::write(leaf.join("cgroup.procs"), std::process::id().to_string()).ok()?;
            if !enabled() {
                return None;
            }
        }
        Some(Self { hierarchy: Hierarchy::V2 { base } })
    }

    pub(super) fn describe(&self) -> &'static str {
        match self.hierarchy {
            Hierarchy::V1 { .. } => "control groups (version 1)",
            Hierarchy::V2 { .. } => "control groups (version 2)",
        }
    }

    /// Whether groups limit the number of processes.
    pub(super) fn limit_processes(&self) -> bool {
        match &self.hierarchy {
            Hierarchy::V1 { pids, .. } => pids.is_some(),
            Hierarchy::V2 { .. } => true,
        }
    }

    /// Creates a job's groups with their limits.
    pub(super) fn group(&self, memory_bytes: u64, max_processes: u32, milli_cpus: u32) -> std::io::Result<Group> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut group =
            Group { directories: Vec::new(), memory_events: None, pids_events: None, waiting: Waiting::default() };
        match &self.hierarchy {
            Hierarchy::V1 { memory, pids, cpu } => {
                if let Some(directory) = group.make(memory.as_deref(), &name)? {
                    fs::write(directory.join("memory.limit_in_bytes"), memory_bytes.to_string())?;
                    // Swap counts as memory if the kernel accounts for it.
                    let _ = fs::write(directory.join("memory.memsw.limit_in_bytes"), memory_bytes.to_string());
                    group.memory_events = Some(directory.join("memory.oom_control"));
                }
                if let Some(directory) = group.make(pids.as_deref(), &name)? {
                    fs::write(directory.join("pids.max"), max_processes.to_string())?;
                    group.pids_events = Some(directory.join("pids.events"));
                }
                if let Some(directory) = group.make(cpu.as_deref(), &name)? {
                    let shares = (u64::from(milli_cpus) * 1024 / 1000).max(2);
                    fs::write(directory.join("cpu.shares"), shares.to_string())?;
                }
            }
            Hierarchy::V2 { base } => {
                if let Some(directory) = group.make(Some(base), &name)? {
                    fs::write(directory.join("memory.max"), memory_bytes.to_string())?;
                    let _ = fs::write(directory.join("memory.swap.max"), "0");
                    fs::write(directory.join("pids.max"), max_processes.to_string())?;
                    let weight = (u64::from(milli_cpus) / 10).clamp(1, 10_000);
                    let _ = fs::write(directory.join("cpu.weight"), weight.to_string());
                    group.memory_events = Some(directory.join("memory.events"));
                    group.pids_events = Some(directory.join("pids.events"));
                }
            }
        }
        Ok(group)
    }
}

impl Group {
    fn make(&mut self, base: Option<&Path>, name: &str) -> std::io::Result<Option<PathBuf>> {
        let Some(base) = base else { return Ok(None) };
        let directory = base.join(name);
        fs::create_dir(&directory)?;
        self.directories.push(directory.clone());
        Ok(Some(directory))
    }

    /// The version 2 group, if there is one.
    pub(super) fn unified(&self) -> Option<&Path> {
        let v2 = |directory: &&PathBuf| directory.join("cgroup.controllers").exists();
        self.directories.iter().find(v2).map(PathBuf::as_path)
    }

    /// Whether this group limits the number of processes.
    pub(super) fn limits_processes(&self) -> bool {
        self.pids_events.is_some()
    }

    /// Moves a process into the group; the processes it starts later are in it too.
    pub(super) fn add(&self, pid: u32) -> std::io::Result<()> {
        self.directories.iter().try_for_each(|directory| fs::write(directory.join("cgroup.procs"), pid.to_string()))
    }

    /// Whether the kernel killed a process of the group because it ran out of memory.
    pub(super) fn out_of_memory(&self) -> bool {
        count(self.memory_events.as_deref(), "oom_kill") > 0
    }

    /// Memory that its processes have now, without what the kernel caches of files for them.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_events.as_deref().and_then(Path::parent).map_or(0, counters::memory_bytes)
    }

    /// CPU time, in microseconds, that its processes have used; none if there is no process left to ask and no group counts it.
    pub(super) fn cpu_us(&self) -> Option<u64> {
        let counted = self.directories.iter().find_map(|directory| counters::cpu_us(directory));
        counted.or_else(|| self.directories.first().and_then(|directory| counters::cpu_us_of_processes(directory)))
    }

    /// Whether the limit on processes kept a process from being started.
    pub(super) fn too_many_processes(&self) -> bool {
        count(self.pids_events.as_deref(), "max") > 0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.waiting.clear();
        for directory in std::mem::take(&mut self.directories) {
            remove_soon(directory);
        }
    }
}

/// Removes a group, trying again until its last process, which may just have ended, has been reaped.
pub(super) fn remove_soon(directory: PathBuf) {
    if fs::remove_dir(&directory).is_ok() {
        return;
    }
    std::thread::spawn(move || {
        for _ in 0..200 {
            std::thread::sleep(std::time::Duration::from_millis(10));
            if fs::remove_dir(&directory).is_ok() || !directory.exists() {
                return;
            }
        }
        tracing::warn!(path = %directory.display(), "cannot remove a job's control group");
    });
}

/// Removes the groups of worker processes that no longer exist.
pub(super) fn sweep() {
    let bases = [own(Some("memory")), own(Some("pids")), own(Some("cpu")), own(None)];
    for base in bases.into_iter().flatten() {
        for entry in fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()) else {
                continue;
            };
            if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
                remove_with_children(&entry.path());
            }
        }
    }
}

/// Removes a group and its subgroups. A group that still has processes stays.
fn remove_with_children(group: &Path) {
    for child in fs::read_dir(group).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_with_children(&child.path());
        }
    }
    let _ = fs::remove_dir(group);
}
