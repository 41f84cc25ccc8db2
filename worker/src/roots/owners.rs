//! Owners of what a command wrote, where they are not those of layers on disk.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use kiln_sandbox::OnDisk;
use rustix::fs::XattrFlags;

use super::attributes;
use crate::inputs::{Error, disk};

/// The id on disk of the user 0 of the job that wrote to this directory.
pub(super) fn base(written: &Path, on_disk: OnDisk) -> Result<u32, Error> {
    match on_disk.written {
        Some(base) => Ok(base),
        // The sandbox's own directory beside it is the job's root's, and the job could not change that.
        None => {
            let beside = written.with_file_name("work");
            Ok(fs::symlink_metadata(&beside).map_err(disk(&beside))?.uid())
        }
    }
}

/// Moves the owners of everything below a directory from one range of ids to another.
pub(super) fn settle(top: &Path, from: u32, to: u32) -> Result<(), Error> {
    let mut waiting = vec![top.to_owned()];
    one(top, from, to).map_err(disk(top))?;
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).map_err(disk(&directory))?.flatten() {
            let path = entry.path();
            if one(&path, from, to).map_err(disk(&path))? {
                waiting.push(path);
            }
        }
    }
    Ok(())
}

/// Whether it is a directory.
fn one(path: &Path, from: u32, to: u32) -> io::Result<bool> {
    let data = fs::symlink_metadata(path)?;
    let id = |id: u32| id.checked_sub(from).map(|id| id + to);
    // A name of something that has several may have been met before; whiteouts are nobody's.
    let (Some(uid), Some(gid)) = (id(data.uid()), id(data.gid())) else { return Ok(data.is_dir()) };
    let capability = if data.is_file() { attributes::capability(path)? } else { None };
    let time = attributes::time(&data);
    lchown(path, Some(uid), Some(gid))?;
    if !data.is_symlink() {
        // The change of the owner took the set-user-ID bit and capabilities away.
        fs::set_permissions(path, fs::Permissions::from_mode(data.mode() & 0o7777))?;
    }
    if let Some(capability) = capability {
        rustix::fs::lsetxattr(path, attributes::CAPABILITY, &capability, XattrFlags::empty())?;
    }
    attributes::age(path, time)?;
    Ok(data.is_dir())
}
