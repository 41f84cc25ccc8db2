//! Finds a command's program the way a shell would.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Resolves the program's file: an absolute path, a path relative to the working directory, or a name looked up in the
/// command's own `PATH`. An error is a shell's exit code and a message that names the `place` where the program was
/// looked for.
pub fn resolve(program: &str, directory: &Path, path: &str, place: &str) -> Result<PathBuf, (i32, String)> {
    let runs = |file: &Path| file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        let file = directory.join(program);
        return match file.metadata() {
            Err(_) => Err((127, format!("`{program}` not found; expected it in the inputs or {place}"))),
            Ok(_) if !runs(&file) => Err((126, format!("`{program}` is not executable"))),
            Ok(_) => Ok(file),
        };
    }
    path.split(':')
        .filter(|part| !part.is_empty())
        .map(|part| directory.join(part).join(program))
        .find(|file| runs(file))
        .ok_or_else(|| (127, format!("`{program}` is not installed {place}; PATH is `{path}`")))
}
