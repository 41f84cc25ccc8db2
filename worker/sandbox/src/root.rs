//! The sandbox's root file system, built by the init inside its mount namespace.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::pivot_root;
use rustix::mount::{MoveMountFlags, move_mount};

use super::rooted::Failed;
use super::spec::{Bind, Source, Spec};
use kiln_executor::layers::Overlay;
use kiln_executor::{BUILD, HOME};
use kiln_kernel::syscalls;
use kiln_recorder::layout;

/// Where files that appear in the home directory are actually stored.
const IN_MEMORY: &str = "/run/kiln";
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Files in /proc that expose the kernel's memory, keys, log, addresses or configuration, or the activity of the
/// machine's other processes.
pub(super) const HIDDEN: [&str; 21] = [
    "config.gz",
    "interrupts",
    "iomem",
    "ioports",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "modules",
    "pagetypeinfo",
    "sched_debug",
    "slabinfo",
    "softirqs",
    "sysrq-trigger",
    "timer_list",
    "vmallocinfo",
];
/// Directories in /proc that expose the machine's hardware.
pub(super) const EMPTIED: [&str; 6] = ["acpi", "asound", "bus", "driver", "irq", "scsi"];
/// Directories that every Linux system has and that a job's init does not need. The root is built on one of them.
const PLACES: [&str; 4] = ["/sys", "/mnt", "/srv", "/home"];
/// Where mounts from the worker are attached, in that place.
const STAGE: &str = "stage";
/// Where the root is built, in that place.
const ROOT: &str = "root";
/// Shared memory.
pub(super) const SHARED_MEMORY: &str = "/dev/shm";
/// Maximum number of files there.
const SHARED_FILES: u32 = 100_000;

type Result<T, E = String> = std::result::Result<T, E>;

pub(super) fn mounted<S: AsRef<Path>, F: AsRef<Path>>(
    source: Option<S>,
    target: &Path,
    kind: Option<F>,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<()> {
    mount(source.as_ref().map(AsRef::as_ref), target, kind.as_ref().map(AsRef::as_ref), flags, data)
        .map_err(|error| format!("cannot mount `{}`: {error}", target.display()))
}

pub(super) const NONE: Option<&Path> = None;

/// Builds the root and moves into it; the previous root becomes unreachable.
pub(super) fn build(spec: &Spec, sent: &[OwnedFd]) -> Result<(), Failed> {
    let place = begin()?;
    let stages = stages(&place, spec, sent)?;
    let root = place.join(ROOT);
    own(&root, spec, &stages)?;
    system(&place, spec, &stages)?;
    job(&root, spec, &stages)?;
    let beside = spec.beside.as_ref().map(|beside| beside.mounted(&place, sent)).transpose()?;
    leave(&root)?;
    if let (Some(beside), Some(mounted)) = (&spec.beside, beside) {
        beside.attach(&mounted)?;
    }
    seal()?;
    Ok(())
}

/// Builds what all jobs of a kept sandbox have in common, and moves to where it lies; the previous root becomes unreachable.
pub(super) fn prepare(spec: &Spec, sent: &[OwnedFd]) -> Result<()> {
    let place = begin()?;
    system(&place, spec, &Stages { directory: place.join(STAGE), sent })?;
    leave(&place)
}

/// Completes the root of one job in the mount namespace of this thread, and moves into it. It is a copy of what was prepared.
pub(super) fn complete(spec: &Spec, sent: &[OwnedFd]) -> Result<()> {
    let place = Path::new("/");
    let stages = stages(place, spec, sent)?;
    let root = place.join(ROOT);
    own(&root, spec, &stages)?;
    job(&root, spec, &stages)?;
    leave(&root)?;
    seal()
}

/// The place where everything is built, out of sight of the command.
fn begin() -> Result<PathBuf> {
    mounted(NONE, Path::new("/"), NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let place = PLACES.iter().map(Path::new).find(|place| place.is_dir()).ok_or_else(|| {
        "no directory to build the root file system in: expected one of `/sys`, `/mnt`, `/srv` and `/home`".to_owned()
    })?;
    mounted(Some("tmpfs"), place, Some("tmpfs"), safe, Some("mode=0755,size=16m"))?;
    let root = directory(place, ROOT)?;
    mounted(Some("tmpfs"), &root, Some("tmpfs"), safe, Some("mode=0755,size=16m"))?;
    Ok(place.to_owned())
}

fn stages<'a>(place: &Path, spec: &Spec, sent: &'a [OwnedFd]) -> Result<Stages<'a>> {
    let stages = Stages { directory: directory(place, STAGE)?, sent };
    for (number, source) in spec.stage.iter().enumerate() {
        let at = directory(&stages.directory, &number.to_string())?;
        stages.attach(source, &at)?;
        restrict(&at, Restriction::NoDevices)?;
    }
    Ok(stages)
}

fn own(root: &Path, spec: &Spec, stages: &Stages<'_>) -> Result<()> {
    spec.own.iter().try_for_each(|bind| stages.place(root, bind))
}

/// The machine's files, which no job can change.
fn system(place: &Path, spec: &Spec, stages: &Stages<'_>) -> Result<()> {
    let root = &place.join(ROOT);
    for bind in &spec.binds {
        stages.place(root, bind)?;
    }
    for (at, target) in &spec.links {
        let at = inside(root, at);
        parent(&at)?;
        std::os::unix::fs::symlink(target, &at).map_err(|error| format!("cannot link `{}`: {error}", at.display()))?;
    }
    for (at, content) in &spec.files {
        write_within(root, at, content)?;
    }
    if spec.preloaded {
        recorder(root)?;
    }
    device_files(root)?;
    let empty = directory(place, "empty")?;
    mounted(Some(&empty), &empty, NONE, MsFlags::MS_BIND, None)?;
    restrict(&empty, Restriction::ReadOnly)?;
    processes(root, &empty)
}

/// What a job has for itself.
fn job(root: &Path, spec: &Spec, stages: &Stages<'_>) -> Result<()> {
    for (path, content) in spec.secrets.files() {
        write_within(root, &Path::new(HOME).join(path), content)?;
    }
    if spec.preloaded {
        log(root)?;
    }
    job_devices(root, Some(spec.shared_memory_bytes))?;
    inputs(root, spec, &stages.directory)
}

/// Where mounts from the worker are attached while the root is built.
pub(super) struct Stages<'a> {
    pub(super) directory: PathBuf,
    pub(super) sent: &'a [OwnedFd],
}

impl Stages<'_> {
    /// Attaches each of these at its number.
    pub(super) fn fill(&self, stage: &[Source]) -> Result<()> {
        for (number, source) in stage.iter().enumerate() {
            self.attach(source, &directory(&self.directory, &number.to_string())?)?;
        }
        Ok(())
    }

    pub(super) fn attach(&self, source: &Source, to: &Path) -> Result<()> {
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        match source {
            Source::Path(path) => mounted(Some(path), to, NONE, bind, None),
            Source::Staged(path) => mounted(Some(&self.directory.join(path)), to, NONE, bind, None),
            Source::Sent(number) => {
                let mount = self.sent.get(*number).ok_or("a mount from the worker is missing")?;
                move_mount(mount, "", rustix::fs::CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                    .map_err(|error| format!("cannot mount `{}`: {error}", to.display()))
            }
        }
    }

    fn place(&self, root: &Path, bind: &Bind) -> Result<()> {
        let to = inside(root, &bind.to);
        if bind.is_directory {
            fs::create_dir_all(&to).map_err(|error| format!("cannot create `{}`: {error}", to.display()))?;
        } else {
            file(&to)?;
        }
        self.attach(&bind.from, &to)?;
        restrict(&to, if bind.writable { Restriction::NoDevices } else { Restriction::ReadOnly })
    }
}

/// What a mount, and all mounts below it, must not allow.
#[derive(Debug, Clone, Copy)]
pub(super) enum Restriction {
    /// No devices and no set-user-id programs.
    NoDevices,
    /// The same, and no writes.
    ReadOnly,
    /// No writes: a device's owner and mode are the machine's.
    Device,
}

pub(super) fn restrict(at: &Path, restriction: Restriction) -> Result<()> {
    let (read_only, no_devices) = match restriction {
        Restriction::NoDevices => (false, true),
        Restriction::ReadOnly => (true, true),
        Restriction::Device => (true, false),
    };
    syscalls::restrict_mount(at, read_only, no_devices)
        .map_err(|error| format!("cannot restrict the mount `{}`: {error}", at.display()))
}

fn file(at: &Path) -> Result<()> {
    parent(at)?;
    let made = if at.exists() { Ok(()) } else { fs::write(at, "") };
    made.map_err(|error| format!("cannot create `{}`: {error}", at.display()))
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Writes a file that stays in memory. In the home directory, which is on disk, it becomes a link to that file.
fn write_within(root: &Path, at: &Path, content: &str) -> Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, symlink};
    let failed = |error: std::io::Error| format!("cannot write `{}`: {error}", at.display());
    let is_home = at.starts_with(HOME);
    let kept = if is_home { Path::new(IN_MEMORY).join(at.strip_prefix("/").unwrap_or(at)) } else { at.to_owned() };
    let to = inside(root, &kept);
    parent(&to)?;
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(if is_home { 0o600 } else { 0o644 });
    std::io::Write::write_all(&mut options.open(&to).map_err(failed)?, content.as_bytes()).map_err(failed)?;
    if is_home {
        let link = inside(root, at);
        parent(&link)?;
        symlink(&kept, &link).map_err(failed)?;
    }
    Ok(())
}

/// What the job's dynamic programs record themselves with. The log stays writable.
fn recorder(root: &Path) -> Result<()> {
    let at = inside(root, Path::new(layout::LOG));
    log(root)?;
    mounted(Some(&at), &at, NONE, MsFlags::MS_BIND, None)?;
    let library = inside(root, Path::new(layout::LIBRARY));
    fs::write(&library, kiln_recorder::LIBRARY)
        .map_err(|error| format!("cannot write `{}`: {error}", library.display()))?;
    write_within(root, Path::new(layout::PRELOADED), &format!("{}\n", layout::LIBRARY))
}

/// Makes the log, or empties it.
fn log(root: &Path) -> Result<()> {
    let at = inside(root, Path::new(layout::LOG));
    parent(&at)?;
    fs::File::create(&at)
        .and_then(|log| log.set_len(layout::BYTES as u64))
        .map_err(|error| format!("cannot write `{}`: {error}", at.display()))
}

pub(super) fn directory(root: &Path, name: &str) -> Result<PathBuf> {
    let path = root.join(name);
    fs::create_dir_all(&path).map_err(|error| format!("cannot create `{}`: {error}", path.display()))?;
    Ok(path)
}

fn parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(|error| format!("cannot create `{}`: {error}", parent.display()))
}

/// Devices for a job, whose shared memory has so many bytes; without a number, it is what this thread has at `/dev/shm`.
pub(super) fn devices(root: &Path, shared_memory_bytes: Option<u64>) -> Result<()> {
    device_files(root)?;
    job_devices(root, shared_memory_bytes)
}

fn device_files(root: &Path) -> Result<()> {
    let dev = directory(root, "dev")?;
    for name in DEVICES {
        let host = Path::new("/dev").join(name);
        if host.exists() {
            let to = dev.join(name);
            file(&to)?;
            mounted(Some(&host), &to, NONE, MsFlags::MS_BIND, None)?;
            restrict(&to, Restriction::Device)?;
        }
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in links {
        std::os::unix::fs::symlink(target, dev.join(name))
            .map_err(|error| format!("cannot link /dev/{name}: {error}"))?;
    }
    directory(&dev, "shm")?;
    directory(&dev, "pts")?;
    Ok(())
}

/// Devices that no two jobs share.
fn job_devices(root: &Path, shared_memory_bytes: Option<u64>) -> Result<()> {
    let dev = root.join("dev");
    let shm = directory(&dev, "shm")?;
    if let Some(bytes) = shared_memory_bytes {
        let options = format!("mode=1777,size={bytes},nr_inodes={SHARED_FILES}");
        mounted(Some("tmpfs"), &shm, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(&options))?;
    } else {
        mounted(Some(SHARED_MEMORY), &shm, NONE, MsFlags::MS_BIND, None)?;
    }
    // Terminals, for tools that want one. A kernel that refuses them does not stop the job.
    let pts = directory(&dev, "pts")?;
    let options = Some("newinstance,ptmxmode=0666,mode=620");
    if mount(Some("devpts"), &pts, Some("devpts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, options).is_ok() {
        let _ = std::os::unix::fs::symlink("pts/ptmx", dev.join("ptmx"));
    }
    Ok(())
}

/// Mounts the kernel's own files read-only: an action that runs as the worker's user could otherwise change kernel
/// settings without any capability.
fn processes(root: &Path, empty: &Path) -> Result<()> {
    let proc = fresh_processes(root)?;
    restrict(&proc, Restriction::ReadOnly)?;
    hide_processes(&proc, &root.join("dev/null"), empty)
}

/// Mounts the kernel's own files, in which no further user namespace is allowed.
pub(super) fn fresh_processes(root: &Path) -> Result<PathBuf> {
    let proc = directory(root, "proc")?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mounted(Some("proc"), &proc, Some("proc"), safe, None)?;
    // In its own user namespace an action would have every capability, and could reach most of the kernel's code.
    fs::write(proc.join("sys/user/max_user_namespaces"), "0")
        .map_err(|error| format!("cannot forbid further user namespaces: {error}"))?;
    // If actions share a user, or run as the worker's, a single one must not use up that user's inotify instances.
    if let Some(most) = number(Path::new("/proc/sys/fs/inotify/max_user_instances")) {
        let _ = fs::write(proc.join("sys/user/max_inotify_instances"), (most / 2).max(1).to_string());
    }
    Ok(proc)
}

/// Covers what is about the machine as a whole.
pub(super) fn hide_processes(proc: &Path, null: &Path, empty: &Path) -> Result<()> {
    for name in HIDDEN {
        let path = proc.join(name);
        if path.exists() {
            // It is as read-only as the file that it is bound from.
            mounted(Some(null), &path, NONE, MsFlags::MS_BIND, None)?;
        }
    }
    for name in EMPTIED {
        let path = proc.join(name);
        if path.is_dir() {
            mounted(Some(empty), &path, NONE, MsFlags::MS_BIND, None)?;
        }
    }
    Ok(())
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn inputs(root: &Path, spec: &Spec, stages: &Path) -> Result<()> {
    let build = directory(root, BUILD.trim_start_matches('/'))?;
    let staged = |path: &PathBuf| stages.join(path);
    let (tree, at) = (&spec.tree, staged);
    let overlay = Overlay {
        lower: tree.lower.iter().map(at).collect(),
        upper: at(&tree.upper),
        work: at(&tree.work),
        objects: None,
    };
    overlay.mount(&build, true)?;
    for path in &spec.make_directories {
        let to = build.join(path);
        fs::create_dir_all(&to).map_err(|error| format!("cannot create `{path}`, the parent of an output: {error}"))?;
    }
    Ok(())
}

/// Makes a directory the root of this mount namespace.
fn leave(root: &Path) -> Result<()> {
    let words = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    std::env::set_current_dir(root).map_err(|error| format!("cannot enter the root: {error}"))?;
    pivot_root(".", ".").map_err(words("cannot change the root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(words("cannot leave the old root"))?;
    std::env::set_current_dir("/").map_err(|error| format!("cannot enter the root: {error}"))
}

/// Nothing is to be written to the root itself any more.
fn seal() -> Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mounted(NONE, Path::new("/"), NONE, flags, None)
}
