//! EROFS images of roots, mounted by the worker: no other process may.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

/// Mode, user and group of a directory.
pub(super) type Top = (u32, u32, u32);

/// A detached mount of an image, and what its root directory is like.
pub(super) fn mounted(path: &Path) -> Result<(OwnedFd, Top), String> {
    let failed = |error: Errno| format!("cannot mount the image `{}`: {error}", path.display());
    let system = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    fsconfig_set_string(system.as_fd(), "source", path).map_err(failed)?;
    fsconfig_create(system.as_fd()).map_err(failed)?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    let tree = fsmount(system.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(failed)?;
    let data = rustix::fs::fstat(&tree).map_err(failed)?;
    Ok((tree, (data.st_mode & 0o7777, data.st_uid, data.st_gid)))
}
