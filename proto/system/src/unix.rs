//! Linux and macOS.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::Stamp;

/// Variables with the user's name.
pub(super) const USER: [&str; 2] = ["USER", "LOGNAME"];
/// What stands for the home directory, and the directory in it.
pub(super) const PROFILE: Option<(&str, &str)> = None;

pub(super) fn stamp(data: &Metadata) -> Stamp {
    let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
    Stamp {
        size: data.size(),
        modified_ns: ns(data.mtime(), data.mtime_nsec()),
        changed_ns: ns(data.ctime(), data.ctime_nsec()),
        inode: data.ino(),
        device: data.dev(),
    }
}

pub(super) fn mode(data: &Metadata) -> u32 {
    data.permissions().mode() & 0o7777
}

pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

pub(super) fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

pub(super) fn slashes(path: String) -> String {
    path
}

pub(super) fn path_of(bytes: &[u8]) -> Option<&Path> {
    Some(Path::new(OsStr::from_bytes(bytes)))
}

pub(super) fn with_slashes(path: &str) -> Cow<'_, str> {
    path.into()
}

pub(super) fn special(file_type: FileType) -> &'static str {
    if file_type.is_socket() {
        "socket"
    } else if file_type.is_fifo() {
        "named pipe"
    } else if file_type.is_block_device() || file_type.is_char_device() {
        "device"
    } else {
        "special file"
    }
}

pub(super) fn set_modified(path: &Path, seconds: i64, nanos: u32) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(super) fn refused_name(_name: &str) -> Option<&'static str> {
    None
}

pub(super) fn stdout() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

pub(super) fn make_private(options: &mut OpenOptions) {
    options.mode(0o600);
}

pub(super) fn create_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(super) fn is_private(data: &Metadata) -> bool {
    data.uid() == rustix::process::geteuid().as_raw() && data.mode() & 0o077 == 0
}

pub(super) fn is_written_by_owner_alone(data: &Metadata) -> bool {
    data.mode() & 0o022 == 0
}

pub(super) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buffer, offset)
}

pub(super) fn nameless() -> String {
    format!("uid {}", rustix::process::getuid().as_raw())
}

pub(super) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The limit is one byte rather than zero: with exactly this limit Linux neither writes a core file, which would not fit, nor runs the
/// program that `core_pattern` may name, which it does for a limit of 0 (`fs/coredump.c`).
pub(super) fn no_core_dumps() {
    let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // An earlier limit of 0 may be impossible to raise, and then stays.
    if setrlimit(Resource::Core, limit(1)).is_err() {
        let _ = setrlimit(Resource::Core, limit(0));
    }
}

pub(super) fn lock_of(directory: &Path) -> io::Result<File> {
    File::open(directory)
}
