//! Detects whether files were modified.
//!
//! Invariant: any change that a program makes to a file's content, name, mode or link changes the state.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use kiln_proto::digest::DigestFunction;
use kiln_system::Stamp;

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

/// The bits of a file's kind, as `st_mode` has them (inode(7)): records of earlier versions have them.
fn kind(data: &std::fs::Metadata) -> u32 {
    if data.is_dir() { 0o040_000 } else { 0o100_000 }
}

fn describe(path: &Path, relative: &Path, lines: &mut String) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    let mode = kiln_system::mode(&metadata) | kind(&metadata);
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
        let Stamp { size, modified_ns, .. } = Stamp::of(&metadata);
        let (seconds, nanos) = (modified_ns.div_euclid(1_000_000_000), modified_ns.rem_euclid(1_000_000_000));
        let _ = writeln!(lines, "{relative:?} {mode:o} {size} {seconds}.{nanos:09}");
    }
    Ok(())
}
