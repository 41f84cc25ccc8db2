//! The kernel's file systems in a root: `/proc`, `/sys` and `/dev`.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_kernel::syscalls;
use nix::mount::{MsFlags, mount};

use super::super::root::{self, NONE};
use super::outside::detached;

type Result<T> = std::result::Result<T, String>;

/// Directories in /proc that root inside may read and not write.
const READ_ONLY: [&str; 4] = ["bus", "fs", "irq", "sys"];
/// Directories in /sys about the machine's firmware, power and control groups.
const HIDDEN: [&str; 4] = ["firmware", "fs/cgroup", "devices/virtual/powercap", "kernel/security"];

/// Each with where it belongs.
pub(super) fn prepare(place: &Path, shared_memory_bytes: u64) -> Result<Vec<(PathBuf, OwnedFd)>> {
    let system = root::directory(place, "system")?;
    let empty = root::directory(place, "empty")?;
    root::mounted(Some(&empty), &empty, NONE, MsFlags::MS_BIND, None)?;
    root::restrict(&empty, root::Restriction::ReadOnly)?;
    devices(&system, Some(shared_memory_bytes))?;
    processes(&system, &empty)?;
    kernel(&system, &empty)?;
    ["proc", "sys", "dev"]
        .map(|name| Ok((Path::new("/").join(name), detached(&system.join(name))?)))
        .into_iter()
        .collect()
}

/// Devices for what runs beside a job, with the shared memory and the IPC namespace of this thread.
pub(super) fn own_devices(place: &Path) -> Result<OwnedFd> {
    devices(place, None)?;
    detached(&place.join("dev"))
}

fn devices(system: &Path, shared_memory_bytes: Option<u64>) -> Result<()> {
    let dev = root::directory(system, "dev")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    root::mounted(Some("tmpfs"), &dev, Some("tmpfs"), flags, Some("mode=0755,size=16m"))?;
    root::devices(system, shared_memory_bytes)?;
    queues(&root::directory(&dev, "mqueue")?);
    Ok(())
}

/// The POSIX message queues of this thread's IPC namespace. Absent from some kernels, and then nothing uses them.
pub(super) fn queues(at: &Path) {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let _ = mount(Some("mqueue"), at, Some("mqueue"), flags, NONE);
}

/// The files of /proc that belong to root belong to the machine's root, who is nobody here: they are read-only by themselves. What
/// is writable to everybody, or about the whole machine, is covered.
fn processes(system: &Path, empty: &Path) -> Result<()> {
    let proc = root::fresh_processes(system)?;
    restrict_processes(&proc)?;
    root::hide_processes(&proc, &system.join("dev/null"), empty)
}

pub(super) fn restrict_processes(proc: &Path) -> Result<()> {
    for name in READ_ONLY {
        let path = proc.join(name);
        if path.is_dir() {
            root::mounted(Some(&path), &path, NONE, MsFlags::MS_BIND, None)?;
            syscalls::restrict_mount(&path, true, true)
                .map_err(|error| format!("cannot restrict the mount `{}`: {error}", path.display()))?;
        }
    }
    Ok(())
}

/// A job that shares the machine's network sees the machine's own; the kernel gives nobody else a new one for it.
fn kernel(system: &Path, empty: &Path) -> Result<()> {
    let sys = root::directory(system, "sys")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    if mount(Some("sysfs"), &sys, Some("sysfs"), flags, NONE).is_err() {
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        if mount(Some("/sys"), &sys, NONE, bind, NONE).is_err() {
            root::mounted(Some(empty), &sys, NONE, MsFlags::MS_BIND, None)?;
        }
        root::restrict(&sys, root::Restriction::ReadOnly)?;
    }
    for name in HIDDEN {
        let path = sys.join(name);
        if fs::metadata(&path).is_ok_and(|data| data.is_dir()) {
            root::mounted(Some(empty), &path, NONE, MsFlags::MS_BIND, None)?;
        }
    }
    Ok(())
}
