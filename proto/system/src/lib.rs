//! What differs between the operating systems on which `kiln` runs, in one place.

mod authorities;
mod directories;
#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod own;

use std::borrow::Cow;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::path::Path;

pub use authorities::authorities;
pub use directories::{cache, config, state};

/// What tells the states of a file apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Size in bytes.
    pub size: u64,
    /// Time of the last write, in nanoseconds since the epoch.
    pub modified_ns: i64,
    /// Time of the last change of anything, in nanoseconds since the epoch, which users cannot set; on Windows that of the creation.
    pub changed_ns: i64,
    /// Which file it is in its file system; 0 on Windows.
    pub inode: u64,
    /// The file system; 0 on Windows.
    pub device: u64,
}

impl Stamp {
    /// From the system's metadata.
    pub fn of(data: &Metadata) -> Self {
        own::stamp(data)
    }
}

/// The permission bits, as on Unix, with those of special files but without the kind of the file.
pub fn mode(data: &Metadata) -> u32 {
    own::mode(data)
}

/// Whether the owner may execute a file. Windows does not know: there, no file says so itself.
pub fn is_executable(data: &Metadata) -> bool {
    data.is_file() && own::mode(data) & 0o100 != 0
}

/// Sets permission bits, where there are any.
///
/// # Errors
/// If the system refuses.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    own::set_mode(path, mode)
}

/// Makes a symbolic link. The target may have `/` between its parts, as in trees.
///
/// # Errors
/// If the system refuses; on Windows, with what allows it.
pub fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    own::symlink(target, link)
}

/// Where a symbolic link leads, with `/` between the parts; none if that is not in UTF-8.
///
/// # Errors
/// If it cannot be read.
pub fn read_link(path: &Path) -> io::Result<Option<String>> {
    Ok(std::fs::read_link(path)?.into_os_string().into_string().ok().map(own::slashes))
}

/// A path that is bytes, as in archives and roots; none if this system has no such paths, which are text on Windows.
pub fn path_of(bytes: &[u8]) -> Option<&Path> {
    own::path_of(bytes)
}

/// A path below a directory as text with `/` between its parts; none if it is not in UTF-8.
pub fn text(path: &Path) -> Option<Cow<'_, str>> {
    path.to_str().map(own::with_slashes)
}

/// What a file is that is neither a regular file, nor a directory, nor a link.
pub fn special(file_type: FileType) -> &'static str {
    own::special(file_type)
}

/// Sets the times of a file, or of a link itself.
///
/// # Errors
/// If the system refuses.
pub fn set_modified(path: &Path, seconds: i64, nanos: u32) -> io::Result<()> {
    own::set_modified(path, seconds, nanos)
}

/// Why this system has no file with a name that others have, if it has none.
pub fn refused_name(name: &str) -> Option<&'static str> {
    own::refused_name(name)
}

/// Whether two names that differ in the case of letters alone are one file, as they usually are on macOS and Windows.
pub const FOLDS_CASE: bool = cfg!(any(windows, target_os = "macos"));

/// Standard output as a file, past all buffers.
///
/// # Errors
/// If it is closed.
pub fn stdout() -> io::Result<File> {
    own::stdout()
}

/// Options to open files that only this user may read.
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    own::make_private(&mut options);
    options
}

/// Creates a directory and those above it; what is new may be entered by this user only.
///
/// # Errors
/// If the system refuses.
pub fn create_private_directory(path: &Path) -> io::Result<()> {
    own::create_private_directory(path)
}

/// Whether a file belongs to this user, and nobody else can read it.
pub fn is_private(data: &Metadata) -> bool {
    own::is_private(data)
}

/// Whether nobody but its owner can write to a file.
pub fn is_written_by_owner_alone(data: &Metadata) -> bool {
    own::is_written_by_owner_alone(data)
}

/// Reads at an offset.
///
/// # Errors
/// If the file ends before the buffer is full, or cannot be read.
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    own::read_exact_at(file, buffer, offset)
}

/// The user's name, or what stands for it.
pub fn user() -> String {
    let name = |variable: &&str| std::env::var(variable).ok().filter(|name| !name.is_empty());
    own::USER.iter().find_map(name).unwrap_or_else(own::nameless)
}

/// The machine's name.
pub fn host() -> String {
    own::host()
}

/// Prevents core files of this process and of those that it starts, where there are any.
pub fn no_core_dumps() {
    own::no_core_dumps();
}

/// Opens something to be locked that stands for a directory: the directory itself, or on Windows a file beside everybody's temporary ones.
///
/// # Errors
/// If it cannot be opened.
pub fn lock_of(directory: &Path) -> io::Result<File> {
    own::lock_of(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_private_as_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        private().write(true).create_new(true).open(&path).unwrap();
        let data = path.metadata().unwrap();
        assert!(is_private(&data) && is_written_by_owner_alone(&data) && !is_executable(&data));
    }

    #[cfg(unix)]
    #[test]
    fn modes_and_links_are_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tool");
        std::fs::write(&path, "tool").unwrap();
        set_mode(&path, 0o755).unwrap();
        let data = path.metadata().unwrap();
        assert!(mode(&data) == 0o755 && is_executable(&data) && !is_private(&data));
        symlink(Path::new("../else/where"), &dir.path().join("link")).unwrap();
        assert_eq!(read_link(&dir.path().join("link")).unwrap().as_deref(), Some("../else/where"));
    }

    #[test]
    fn a_part_of_a_file_is_read_or_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        let (file, mut part) = (File::open(&path).unwrap(), [0; 4]);
        read_exact_at(&file, &mut part, 3).unwrap();
        assert_eq!(&part, b"3456");
        assert!(read_exact_at(&file, &mut part, 7).is_err());
    }

    #[test]
    fn one_at_a_time_has_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (lock_of(dir.path()).unwrap(), lock_of(dir.path()).unwrap());
        one.lock().unwrap();
        assert!(other.try_lock().is_err());
        drop(one);
        other.try_lock().unwrap();
    }
}
