//! The init's own files, which every container finds at [`init::FILES`]: this program with its libraries and loader.
//! With them the init runs in any image, even an empty one.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::init;

const PROGRAM: &str = "program";
const LOADER: &str = "loader";
const LIBRARIES: &str = "lib";

/// The directory with the files, and the command that starts the program in a container.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) directory: PathBuf,
    pub(super) command: Vec<String>,
}

impl Files {
    /// Collects the files.
    pub(super) fn gather(directory: PathBuf, program: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot store the init's files at `{}`: {error}", directory.display());
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join(LIBRARIES)).map_err(failed)?;
        let copy = |from: &Path, to: PathBuf| fs::copy(from, to).map(drop).map_err(failed);
        let own = directory.join(PROGRAM);
        // A hard link if possible, because the program is large. The task's user must be able to run it.
        let runs = |path: &Path| path.metadata().is_ok_and(|data| data.permissions().mode() & 0o005 == 0o005);
        if !runs(program) || fs::hard_link(program, &own).is_err() {
            copy(program, own.clone())?;
            fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        }
        let inside = |name: &str| format!("{}/{name}", init::FILES);
        let mut command = Vec::new();
        let libraries = libraries(program)?;
        if let Some(loader) = &libraries.loader {
            copy(loader, directory.join(LOADER))?;
            command.extend([inside(LOADER), "--library-path".to_owned(), inside(LIBRARIES)]);
        }
        for (name, path) in &libraries.named {
            copy(path, directory.join(LIBRARIES).join(name))?;
        }
        command.extend([inside(PROGRAM), init::NAME.to_owned()]);
        Ok(Self { directory, command })
    }
}

/// The libraries of a program; none if it is static.
#[derive(Debug, Default, PartialEq, Eq)]
struct Libraries {
    loader: Option<PathBuf>,
    named: Vec<(String, PathBuf)>,
}

/// Asks the program's own loader, as `ldd` does.
fn libraries(program: &Path) -> Result<Libraries, String> {
    let output = Command::new(program)
        .arg("--version")
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot list the libraries of `{}`: {error}", program.display()))?;
    Ok(read(&String::from_utf8_lossy(&output.stdout)))
}

/// Parses lines such as `libc.so.6 => /lib/libc.so.6 (0x…)` and, for the loader, `/lib64/ld-linux-x86-64.so.2 (0x…)`.
/// Nothing matches in the output of a static program.
fn read(said: &str) -> Libraries {
    let mut libraries = Libraries::default();
    for line in said.lines().map(str::trim) {
        let Some((line, _)) = line.rsplit_once(" (0x") else { continue };
        match line.split_once(" => ") {
            Some((name, path)) if path.starts_with('/') => libraries.named.push((name.to_owned(), path.into())),
            None if line.starts_with('/') => libraries.loader = Some(line.into()),
            // The kernel's vDSO, which has no file.
            _ => {}
        }
    }
    libraries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_read_of_glibc_and_of_musl_and_a_static_program_has_none() {
        let glibc = "\tlinux-vdso.so.1 (0x00007fff)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let found = read(glibc);
        assert_eq!(found.loader, Some("/lib64/ld-linux-x86-64.so.2".into()));
        assert_eq!(found.named, [("libc.so.6".to_owned(), "/lib/x86_64-linux-gnu/libc.so.6".into())]);
        let musl = "\t/lib/ld-musl-x86_64.so.1 (0x7f)\n\tlibc.musl-x86_64.so.1 => /lib/ld-musl-x86_64.so.1 (0x7f)\n";
        assert_eq!(read(musl).loader, Some("/lib/ld-musl-x86_64.so.1".into()));
        assert_eq!(read("kiln-worker 0.1.0\n"), Libraries::default());
    }
}
