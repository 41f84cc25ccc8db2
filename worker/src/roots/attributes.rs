//! Owners, modes, extended attributes and times of nodes on disk.
//!
//! Ids on disk are those of the root, moved by a number that depends on how roots are mounted.

use std::ffi::CString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use kiln_trees::root::{Attributes, Time};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};
use rustix::io::Errno;

/// Capabilities of a file, for which the kernel keeps whose they are.
pub(super) const CAPABILITY: &str = "security.capability";
/// `VFS_CAP_REVISION_MASK`, and the revisions with and without the id of the user namespace's root.
const REVISION: u32 = 0xff00_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
/// Bytes of capabilities without an id.
const CAPABILITY_BYTES: usize = 20;
/// Most bytes of the names of one node's attributes, and of one value (`XATTR_SIZE_MAX`).
const MOST: usize = 64 << 10;

/// What the names of overlayfs's own attributes begin with in user namespaces. An image that has some would change what its layers show.
const OVERLAY: &str = "user.overlay.";

/// Attributes that a root has; others are about this machine.
pub(super) fn is_kept(name: &str) -> bool {
    (name.starts_with("user.") && !name.starts_with(OVERLAY)) || name == CAPABILITY
}

/// Gives a node what it has beside its content. `base`: the id of the root's user 0 on disk.
pub(super) fn give(path: &Path, attributes: &Attributes, is_link: bool, base: u32) -> io::Result<()> {
    lchown(path, Some(base + attributes.uid), Some(base + attributes.gid))?;
    for (name, value) in attributes.xattrs.iter().filter(|(name, _)| is_kept(name)) {
        match rustix::fs::lsetxattr(path, name.as_str(), value, XattrFlags::empty()) {
            // A link or a special file cannot have them everywhere, and a file system may lack them.
            Err(Errno::PERM | Errno::OPNOTSUPP) if name.starts_with("user.") => {}
            result => result?,
        }
    }
    if !is_link {
        // After the owner, whose change takes the set-user-ID bit away.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(attributes.mode))?;
    }
    Ok(())
}

/// Sets when a node was modified.
pub(super) fn age(path: &Path, time: Time) -> io::Result<()> {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// When a node was modified.
pub(super) fn time(data: &Metadata) -> Time {
    Time { seconds: data.mtime(), nanos: data.mtime_nsec() as u32 }
}

/// What a node has beside its content.
///
/// # Errors
/// Also where an owner is not one of the root's.
pub(super) fn read(path: &Path, data: &Metadata, base: u32) -> io::Result<Attributes> {
    let id = |id: u32| {
        let foreign = || io::Error::other(format!("its owner {id} is none of the root's"));
        id.checked_sub(base).filter(|id| *id < 65_536).ok_or_else(foreign)
    };
    let mode = if data.is_symlink() { 0o777 } else { data.mode() & 0o7777 };
    let mut attributes = Attributes { uid: id(data.uid())?, gid: id(data.gid())?, ..Attributes::of_root(mode) };
    for name in names(path)? {
        let Ok(text) = std::str::from_utf8(name.to_bytes()) else { continue };
        if !is_kept(text) {
            continue;
        }
        let Some(value) = value(path, text)? else { continue };
        let value = if text == CAPABILITY { without_id(value) } else { value };
        attributes.xattrs.insert(text.to_owned(), value);
    }
    Ok(attributes)
}

/// The value of one of overlayfs's own attributes.
pub(super) fn mark(path: &Path, marks: &str, name: &str) -> io::Result<Option<Vec<u8>>> {
    value(path, &format!("{marks}{name}"))
}

/// The capabilities of a file, as an image has them.
pub(super) fn capability(path: &Path) -> io::Result<Option<Vec<u8>>> {
    Ok(value(path, CAPABILITY)?.map(without_id))
}

fn names(path: &Path) -> io::Result<Vec<CString>> {
    let mut room = vec![0_u8; 1024];
    loop {
        match rustix::fs::llistxattr(path, &mut room[..]) {
            Ok(length) => {
                let names = room[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
                return Ok(names.filter_map(|name| CString::new(name).ok()).collect());
            }
            Err(Errno::RANGE) if room.len() < MOST => room.resize(room.len() * 4, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn value(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut room = vec![0_u8; 256];
    loop {
        match rustix::fs::lgetxattr(path, name, &mut room[..]) {
            Ok(length) => {
                room.truncate(length);
                return Ok(Some(room));
            }
            Err(Errno::RANGE) if room.len() < MOST => room.resize(room.len() * 4, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Capabilities as an image has them: version 2, which is valid wherever it is unpacked. Version 3 has, in addition, the id of root in
/// the user namespace in which they were set.
fn without_id(value: Vec<u8>) -> Vec<u8> {
    let magic = value.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
    match magic {
        Some(magic) if magic & REVISION == REVISION_3 && value.len() > CAPABILITY_BYTES => {
            let magic = (magic & !REVISION) | REVISION_2;
            [&magic.to_le_bytes()[..], &value[4..CAPABILITY_BYTES]].concat()
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_lose_whose_they_are_and_nothing_else() {
        let mut third = vec![1, 0, 0, 3, 0, 0x20, 0, 0];
        third.extend([0; 12]);
        third.extend(100_000_u32.to_le_bytes());
        let mut second = third[..20].to_vec();
        second[3] = 2;
        assert_eq!(without_id(third), second);
        assert_eq!(without_id(second.clone()), second);
        assert_eq!(without_id(vec![1]), [1]);
    }

    #[test]
    fn attributes_of_the_machine_are_no_part_of_a_root() {
        for (name, kept) in [
            ("user.mime_type", true),
            ("user.overlay.opaque", false),
            ("security.capability", true),
            ("security.selinux", false),
            ("trusted.overlay.opaque", false),
        ] {
            assert_eq!(is_kept(name), kept, "{name}");
        }
    }
}
