//! Paths without a file system.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// The absolute form of `path` in `directory`, without `.` and `..`.
///
/// Lexical: where a component before `..` is a symbolic link, the kernel would go elsewhere. A call whose output is not where
/// this says fails to produce it, and then runs in its step.
pub fn absolute(directory: &Path, path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in directory.components().chain(path.components()) {
        match component {
            Component::RootDir => clean = PathBuf::from("/"),
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Whether an absolute path without `..` is part of the machine's own system, which all calls of an environment share.
pub(crate) fn of_the_system(path: &Path) -> bool {
    ["/usr", "/lib", "/lib64", "/bin", "/opt"].iter().any(|system| path.starts_with(system))
}

/// The last component of a path, as bytes; empty if there is none.
pub(crate) fn file_name(path: &OsStr) -> &[u8] {
    Path::new(path).file_name().unwrap_or_default().as_encoded_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_from_the_directory_and_cleaned() {
        let absolute = |path: &str| absolute(Path::new("/build/src"), Path::new(path)).display().to_string();
        assert_eq!(absolute("a.c"), "/build/src/a.c");
        assert_eq!(absolute("./x/../../lib//y.o"), "/build/lib/y.o");
        assert_eq!(absolute("/usr/include/."), "/usr/include");
        assert_eq!(absolute("../../../../etc"), "/etc");
        assert_eq!(absolute(""), "/build/src");
    }
}
