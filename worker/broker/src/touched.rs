//! Whether a step has changed files of its root that C compilers and assemblers read without `go` knowing.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use kiln_gocache::{is_read_by_others, may_have_read_by_others};

/// The attributes by which an overlay says that a directory hides the one below it, if there is any: new ones have them too.
const OPAQUE: [&str; 2] = ["user.overlay.opaque", "trusted.overlay.opaque"];
/// Entries that are looked at.
const MOST: usize = 100_000;

/// Whether there may be such a file in what was written to an overlay, or something that removes one of these, which are below it.
pub(super) fn is_touched(written: &Path, below: &BTreeSet<PathBuf>) -> bool {
    look(written, below).unwrap_or(true)
}

fn look(written: &Path, below: &BTreeSet<PathBuf>) -> io::Result<bool> {
    let (mut waiting, mut left) = (vec![PathBuf::from("/")], MOST);
    while let Some(directory) = waiting.pop() {
        let at = directory.strip_prefix("/").map_or_else(|_| written.to_owned(), |below| written.join(below));
        for entry in std::fs::read_dir(at)? {
            let entry = entry?;
            let Some(fewer) = left.checked_sub(1) else { return Ok(true) };
            left = fewer;
            let (path, kind) = (directory.join(entry.file_name()), entry.file_type()?);
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // A device stands for what has been removed.
            let hides = kind.is_char_device() || (kind.is_dir() && is_opaque(&entry.path()));
            if (hides && has_any(below, &path)) || (!kind.is_dir() && is_read_by_others(&name)) {
                return Ok(true);
            }
            if kind.is_dir() && may_have_read_by_others(&name) {
                waiting.push(path);
            }
        }
    }
    Ok(false)
}

/// Whether one of the files is at a path, or below it.
fn has_any(files: &BTreeSet<PathBuf>, path: &Path) -> bool {
    files.range(path.to_owned()..).next().is_some_and(|first| first.starts_with(path))
}

fn is_opaque(directory: &Path) -> bool {
    OPAQUE.iter().any(|name| rustix::fs::lgetxattr(directory, *name, &mut [0_u8; 8][..]).is_ok_and(|size| size > 0))
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::{Mode, SFlag, mknod};

    use super::*;

    #[test]
    fn headers_and_what_removes_them_are_seen_and_other_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let below: BTreeSet<PathBuf> = ["/usr/include/a/x.h", "/usr/include.h"].map(PathBuf::from).into();
        let is_touched = || is_touched(dir.path(), &below);
        let put = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        for path in ["usr/bin/tool", "src/main.go", "go/pkg/mod/x@v1/x.h", "var/lib/dpkg/status"] {
            put(path);
        }
        assert!(!is_touched());
        for path in ["usr/include/y.h", "lib/libx.so.1", "src/x.s"] {
            put(path);
            assert!(is_touched(), "{path}");
            std::fs::remove_file(dir.path().join(path)).unwrap();
        }
        assert!(!is_touched());
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        for (path, counts) in
            [("usr/include/a", true), ("usr/include/b", false), ("usr/include/a/x.h", true), ("usr/share", false)]
        {
            let at = dir.path().join(path);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            mknod(&at, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
            assert_eq!(is_touched(), counts, "expected a whiteout of `{path}` to count if there was a header");
            std::fs::remove_file(at).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_read_counts_and_so_does_a_directory_that_hides_headers() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_touched(&dir.path().join("absent"), &BTreeSet::new()));
        std::fs::create_dir_all(dir.path().join("usr/include")).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(dir.path().join("usr"), OPAQUE[0], b"y", flags).is_err() {
            return;
        }
        assert!(!is_touched(dir.path(), &BTreeSet::new()), "expected a new directory not to count");
        assert!(is_touched(dir.path(), &[PathBuf::from("/usr/lib/x.a")].into()));
    }
}
