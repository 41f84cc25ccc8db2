//! Detects whether files were modified.
//!
//! Invariant: any change that a program makes to a file's content, name, mode or link changes the state.

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kiln_proto::digest::DigestFunction;

/// Byte code that Python writes next to sources when it runs them; ignored.
const BYTE_CODE: &str = "__pycache__";

/// The state, as a hash, of a file, a link, or a directory with everything below it; `None` if nothing exists.
pub(super) fn of(path: &Path) -> io::Result<Option<String>> {
    if let Err(error) = path.symlink_metadata() {
        return if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) };
    }
    let mut lines = String::new();
    describe(path, Path::new(""), &mut lines)?;
    Ok(Some(DigestFunction::Sha256.digest(lines.as_bytes()).hex()))
}

fn describe(path: &Path, relative: &Path, lines: &mut String) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    let mode = metadata.mode();
    if metadata.is_dir() {
        let _ = writeln!(lines, "{relative:?} {mode:o}");
        let mut names = std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names.iter().filter(|name| *name != BYTE_CODE) {
            describe(&path.join(name), &relative.join(name), lines)?;
        }
    } else if metadata.is_symlink() {
        let _ = writeln!(lines, "{relative:?} -> {:?}", std::fs::read_link(path)?);
    } else {
        let (size, seconds, nanos) = (metadata.size(), metadata.mtime(), metadata.mtime_nsec());
        let _ = writeln!(lines, "{relative:?} {mode:o} {size} {seconds}.{nanos:09}");
    }
    Ok(())
}
