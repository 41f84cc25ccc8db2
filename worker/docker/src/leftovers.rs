//! Finds and removes what a task may leave in its container outside its own mounts.
//!
//! The image is read-only, and the inputs and `/tmp` are mounted anew for each task. That leaves shared memory and
//! message queues of both kinds (POSIX and System V), connections, and settings of the init that another process of the
//! same user may change and that its children inherit.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kiln_kernel::counters::{self, count};
use kiln_kernel::syscalls::{self, Ipc};

/// Kinds of in-memory file systems that engines mount into containers. Which ones and where depends on the engine.
const IN_MEMORY: [&str; 2] = ["tmpfs", "mqueue"];
/// File systems of the kernel, in which a task cannot leave anything.
const KERNELS: [&str; 2] = ["/proc", "/sys"];
/// Lines of /proc/self/status that describe inherited settings.
const INHERITED: [&str; 9] =
    ["Umask", "Cap", "NoNewPrivs", "Seccomp", "Speculation", "Cpus_allowed", "Mems_allowed", "SigIgn", "Groups"];

/// Removes what was not there when the container was new; `false` if something cannot be removed.
pub(super) fn remove(fresh: &State) -> bool {
    let ipc = [Ipc::SharedMemory, Ipc::Semaphores, Ipc::Messages].into_iter().map(remove_ipc);
    let clean = ipc.fold(true, |clean, one| clean & one);
    for path in in_memory().difference(&fresh.files) {
        if path.symlink_metadata().is_ok_and(|data| data.is_dir()) {
            open_up(path);
            let _ = fs::remove_dir_all(path);
        } else {
            let _ = fs::remove_file(path);
        }
    }
    clean
}

/// All files and directories in memory: the task's, and the few that the engine itself creates.
fn in_memory() -> BTreeSet<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found = BTreeSet::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(point), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let is_writable = options.split(',').any(|option| option == "rw");
        if is_writable && IN_MEMORY.contains(&kind) && !KERNELS.iter().any(|path| Path::new(point).starts_with(path)) {
            list(Path::new(point), &mut found);
        }
    }
    found
}

fn list(directory: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&path, found);
        }
        found.insert(path);
    }
}

fn remove_ipc(kind: Ipc) -> bool {
    let ids = |kind: Ipc| -> Vec<i32> {
        let table = fs::read_to_string(kind.table()).unwrap_or_default();
        table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect()
    };
    for id in ids(kind) {
        let _ = syscalls::remove_ipc(kind, id);
    }
    ids(kind).is_empty()
}

/// Whether the kernel still holds closed connections of the container's network, as it does for a minute. The next task
/// would find their ports in use.
pub(super) fn has_connections() -> bool {
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default());
    tables.iter().any(|table| table.lines().nth(1).is_some())
}

/// Makes directories accessible again whose owner has lost permission.
fn open_up(path: &Path) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// State that must be the same after each task: the files in memory, and the settings of the init that another process
/// may change and that its children inherit (limits, nice value, CPUs, scheduling, I/O priority).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    limits: String,
    status: String,
    scheduling: String,
    io_priority: i64,
    oom: String,
    files: BTreeSet<PathBuf>,
}

impl State {
    pub(super) fn look() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let status = read("status");
        let inherited = status.lines().filter(|line| INHERITED.iter().any(|name| line.starts_with(name)));
        let stat = read("stat");
        // After the name, which may contain spaces, come the fields from the third on; see proc(5).
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
        Self {
            limits: read("limits"),
            status: inherited.collect::<Vec<_>>().join("\n"),
            scheduling: [18, 19, 40, 41].map(field).join(" "),
            io_priority: syscalls::io_priority(),
            oom: read("oom_score_adj"),
            files: in_memory(),
        }
    }
}

/// The kernel's counters for the container; they never decrease.
#[derive(Debug)]
pub(super) struct Counters {
    /// Processes that were killed because memory ran out.
    pub(super) out_of_memory: u64,
    /// Processes that could not be started.
    pub(super) too_many_processes: u64,
}

/// CPU time of all the container's processes, in microseconds; 0 if nothing counts it.
pub(super) fn cpu_us() -> u64 {
    let group = Path::new("/sys/fs/cgroup");
    counters::cpu_us(group).or_else(|| counters::cpu_us(&group.join("cpuacct"))).unwrap_or(0)
}

/// Memory that the container's processes have now, without what the kernel caches of files for them.
pub(super) fn memory_bytes() -> u64 {
    let group = Path::new("/sys/fs/cgroup");
    counters::memory_bytes(group).max(counters::memory_bytes(&group.join("memory")))
}

impl Counters {
    /// Reads the counters from version 2 or version 1 control groups.
    pub(super) fn look() -> Self {
        let first = |files: [&str; 2], name: &str| {
            files.iter().map(|file| count(Some(&Path::new("/sys/fs/cgroup").join(file)), name)).max().unwrap_or(0)
        };
        Self {
            out_of_memory: first(["memory.events", "memory/memory.oom_control"], "oom_kill"),
            too_many_processes: first(["pids.events", "pids/pids.events"], "max"),
        }
    }

    /// Whether a process was killed for want of memory, or refused, since `before`.
    pub(super) fn reached_a_limit_since(&self, before: &Self) -> bool {
        self.out_of_memory > before.out_of_memory || self.too_many_processes > before.too_many_processes
    }
}
