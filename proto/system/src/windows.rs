//! Windows.

use std::borrow::Cow;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::windows::fs::{FileExt, MetadataExt, symlink_dir, symlink_file};
use std::os::windows::io::AsHandle;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Stamp;

/// Variables with the user's name.
pub(super) const USER: [&str; 2] = ["USERNAME", "USER"];
/// What stands for the home directory, and the directory in it.
pub(super) const PROFILE: Option<(&str, &str)> = Some(("LOCALAPPDATA", ""));
/// From the beginning of Windows' time to the epoch, in units of 100 ns.
const EPOCH: i64 = 116_444_736_000_000_000;
/// `ERROR_PRIVILEGE_NOT_HELD`.
const NOT_ALLOWED: i32 = 1314;

pub(super) fn stamp(data: &Metadata) -> Stamp {
    let ns = |time: u64| i64::try_from(time).unwrap_or(i64::MAX).saturating_sub(EPOCH).saturating_mul(100);
    Stamp {
        size: data.file_size(),
        modified_ns: ns(data.last_write_time()),
        changed_ns: ns(data.creation_time()),
        inode: 0,
        device: 0,
    }
}

pub(super) fn mode(data: &Metadata) -> u32 {
    if data.is_dir() { 0o755 } else { 0o644 }
}

pub(super) fn set_mode(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// What a link leads to decides of which kind it is.
pub(super) fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    let native = target.to_string_lossy().replace('/', "\\");
    let leads_to = link.parent().unwrap_or(Path::new("")).join(&native);
    let made = if leads_to.is_dir() { symlink_dir(&native, link) } else { symlink_file(&native, link) };
    made.map_err(|error| match error.raw_os_error() {
        Some(NOT_ALLOWED) => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "Windows lets you make symbolic links in Developer Mode only (Settings, System, For developers), or as an administrator",
        ),
        _ => error,
    })
}

pub(super) fn slashes(path: String) -> String {
    path.replace('\\', "/")
}

pub(super) fn path_of(bytes: &[u8]) -> Option<&Path> {
    std::str::from_utf8(bytes).ok().map(Path::new)
}

pub(super) fn with_slashes(path: &str) -> Cow<'_, str> {
    if path.contains('\\') { path.replace('\\', "/").into() } else { path.into() }
}

pub(super) fn special(_file_type: FileType) -> &'static str {
    "special file"
}

/// A link keeps the time at which it was made.
pub(super) fn set_modified(path: &Path, seconds: i64, nanos: u32) -> io::Result<()> {
    if path.symlink_metadata()?.is_symlink() || path.is_dir() {
        return Ok(());
    }
    let since = Duration::new(u64::try_from(seconds).unwrap_or_default(), nanos);
    File::options().write(true).open(path)?.set_modified(SystemTime::UNIX_EPOCH + since)
}

/// Source: "Naming Files, Paths, and Namespaces" of Microsoft's documentation of Win32.
pub(super) fn refused_name(name: &str) -> Option<&'static str> {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |device: &str| {
        stem.strip_prefix(device)
            .is_some_and(|rest| matches!(rest.as_bytes(), [b'0'..=b'9']) || ["¹", "²", "³"].contains(&rest))
    };
    if name.chars().any(|c| c < ' ' || "<>:\"/\\|?*".contains(c)) {
        Some("Windows has no names with `< > : \" / \\ | ? *`")
    } else if name.ends_with(['.', ' ']) {
        Some("Windows has no names that end with a dot or a space")
    } else if ["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str()) || numbered("COM") || numbered("LPT") {
        Some("it is the name of a device on Windows")
    } else {
        None
    }
}

pub(super) fn stdout() -> io::Result<File> {
    Ok(io::stdout().as_handle().try_clone_to_owned()?.into())
}

pub(super) fn make_private(_options: &mut OpenOptions) {}

pub(super) fn create_private_directory(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

/// Files have the access list of the profile that they are in.
pub(super) fn is_private(_data: &Metadata) -> bool {
    true
}

pub(super) fn is_written_by_owner_alone(_data: &Metadata) -> bool {
    true
}

pub(super) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.seek_read(&mut buffer[done..], offset + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(())
}

pub(super) fn nameless() -> String {
    "unknown".to_owned()
}

pub(super) fn host() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "windows".to_owned())
}

pub(super) fn no_core_dumps() {}

/// A directory cannot be locked.
pub(super) fn lock_of(directory: &Path) -> io::Result<File> {
    let mut hasher = DefaultHasher::new();
    directory.canonicalize()?.hash(&mut hasher);
    let path = std::env::temp_dir().join(format!("kiln-{:016x}.lock", hasher.finish()));
    File::options().create(true).truncate(false).read(true).write(true).open(path)
}
