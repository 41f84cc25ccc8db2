//! What is apart from others of the same job: a service, and the command beside it. They share the network and nothing else.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_kernel::syscalls;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MoveMountFlags, move_mount};

use super::super::root::{self, NONE, SHARED_MEMORY};
use super::{outside::detached, system};

/// Gives what this thread starts processes, shared memory, System V objects and message queues of its own, in a mount namespace of this
/// thread's. `name` is different for each that is apart.
pub(super) fn from_others(name: &str) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)
        .map_err(|error| format!("the kernel refuses a namespace: {error}"))?;
    memory(name)?;
    processes()
}

/// A part of the job's shared memory, so that its limit is for all of them together, and in place of the whole.
fn memory(name: &str) -> Result<(), String> {
    let all = Path::new(SHARED_MEMORY);
    let own = root::directory(all, name)?;
    fs::set_permissions(&own, Permissions::from_mode(0o1777))
        .map_err(|error| format!("cannot share memory within `{name}`: {error}"))?;
    root::mounted(Some(&own), all, NONE, MsFlags::MS_BIND, None)?;
    let queues = Path::new("/dev/mqueue");
    // They are those of the namespace that this thread was in.
    let _ = umount2(queues, MntFlags::MNT_DETACH);
    system::queues(queues);
    Ok(())
}

/// A PID namespace, with its `/proc`. No process in it sees one outside, or can signal it; the init sees all.
fn processes() -> Result<(), String> {
    // What covers parts of the job's own covers the same parts here.
    let proc = Path::new("/proc");
    let covered = root::HIDDEN.iter().chain(&root::EMPTIED).map(|name| proc.join(name)).filter(|path| path.exists());
    let covers: Vec<_> = covered.map(|path| Ok((detached(&path)?, path))).collect::<Result<_, String>>()?;
    syscalls::own_processes(proc).map_err(|error| format!("the kernel refuses processes of their own: {error}"))?;
    system::restrict_processes(proc)?;
    for (cover, path) in covers {
        move_mount(cover, "", rustix::fs::CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|error| format!("cannot cover `{}`: {error}", path.display()))?;
    }
    Ok(())
}
