//! The files that C compilers and assemblers read without `go` knowing.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What a file's extension is that they read. Libraries may have their version after it.
const READ_BY_OTHERS: [&str; 23] = [
    "a", "c", "cc", "cpp", "cxx", "def", "f", "h", "hh", "hpp", "hxx", "inc", "inl", "ipp", "m", "o", "pc", "s", "S",
    "so", "syso", "tcc", "tpp",
];
/// Directories in which nothing is that they read: git's, and Kiln's own.
const NOTHING: [&str; 2] = [".git", ".kiln"];

/// A tree of sources.
pub trait Sources {
    /// What is in a directory, and whether each is a directory itself. Links are none.
    ///
    /// # Errors
    /// If it cannot be listed.
    fn entries(&self, directory: &Path) -> io::Result<Vec<(PathBuf, bool)>>;

    /// The digest of a file, links followed; empty if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    fn digest(&self, file: &Path) -> io::Result<String>;
}

/// A digest that tells these files from other ones: their paths and contents. `go` looks at those of a package's own directory only. Modules that
/// were downloaded have a version in their path, and are never changed.
///
/// # Errors
/// If one cannot be read.
pub fn others(sources: &(impl Sources + ?Sized), top: &Path) -> io::Result<[u8; 32]> {
    digest_of(sources, &read_by_others(sources, top)?)
}

/// These files.
///
/// # Errors
/// If a directory cannot be listed.
pub fn read_by_others(sources: &(impl Sources + ?Sized), top: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(directory) = waiting.pop() {
        for (path, is_directory) in sources.entries(&directory)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if is_directory {
                if may_have_read_by_others(&name) {
                    waiting.push(path);
                }
            } else if is_read_by_others(&name) {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

/// The digest that tells these files from other ones.
///
/// # Errors
/// If one cannot be read.
pub fn digest_of(sources: &(impl Sources + ?Sized), files: &BTreeSet<PathBuf>) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    for path in files {
        hasher.update(path.as_os_str().as_encoded_bytes());
        hasher.update(format!("\0{}\0", sources.digest(path)?));
    }
    Ok(hasher.finalize().into())
}

/// Whether a directory of this name may have such files.
pub fn may_have_read_by_others(name: &str) -> bool {
    !name.contains('@') && !NOTHING.contains(&name)
}

/// Whether a file of this name is one that they read.
pub fn is_read_by_others(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    READ_BY_OTHERS.contains(&extension) || name.contains(".so.")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Files by their paths.
    struct Files(BTreeMap<PathBuf, String>);

    impl Sources for Files {
        fn entries(&self, directory: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
            let below = self.0.keys().filter_map(|path| path.strip_prefix(directory).ok());
            let first = below.filter_map(|below| Some((below.iter().next()?, below.iter().count() > 1)));
            Ok(first.map(|(name, is_directory)| (directory.join(name), is_directory)).collect())
        }

        fn digest(&self, file: &Path) -> io::Result<String> {
            Ok(self.0.get(file).cloned().unwrap_or_default())
        }
    }

    #[test]
    fn headers_of_other_packages_tell_commands_apart_and_sources_of_go_do_not() {
        let mut files = Files([("/b/main.go".into(), "package main".into())].into());
        let none = others(&files, Path::new("/b")).unwrap();
        for path in ["main.go", "go.mod", ".kiln/go-mod/x.h", "mods/y@v2/y.h", ".git/x.h"] {
            files.0.insert(Path::new("/b").join(path), "changed".into());
            assert_eq!(others(&files, Path::new("/b")).unwrap(), none, "{path}");
        }
        let mut seen = vec![none];
        for (round, path) in ["include/a.h", "lib/libx.so.1", "lib/liby.a", "include/a.h"].iter().enumerate() {
            files.0.insert(Path::new("/b").join(path), round.to_string());
            let after = others(&files, Path::new("/b")).unwrap();
            assert!(!seen.contains(&after), "{path}");
            seen.push(after);
        }
    }
}
