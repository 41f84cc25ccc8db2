//! Processes that are apart from others of the same job: a service's, and those of the command beside it.

use std::path::Path;

use kiln_kernel::syscalls;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MoveMountFlags, move_mount};

use super::super::root;
use super::{outside::detached, system};

/// Puts what this thread starts into a PID namespace of its own, whose `/proc` is mounted in a mount namespace of this thread's. No process in
/// it sees one outside, or can signal it; the init sees all.
pub(super) fn processes() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("the kernel refuses a namespace: {error}"))?;
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
