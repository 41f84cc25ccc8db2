//! How writes reach the disk.
//!
//! Invariant: after a power cut, a synced file can be found only if the directory that names it was synced after it,
//! and so was each new directory above.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::Path;

/// Waits for the disk. Tests replace it with one that records its calls.
pub trait Syncs: Debug + Send + Sync {
    /// Returns when the data and the length of a file are on the disk.
    ///
    /// Those of the disk.
    /// The disk's.
    fn file(&self, file: &File) -> io::Result<()>;

    /// Returns when the names in a directory are on the disk.
    ///
    /// # Errors
    /// Those of the disk.
    fn directory(&self, path: &Path) -> io::Result<()>;

    /// Returns when everything below a directory is on the disk, whoever wrote it.
    ///
    /// # Errors
    /// Those of the disk.
    fn all(&self, path: &Path) -> io::Result<()>;
}

/// The kernel's sync calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kernel;

impl Syncs for Kernel {
    fn file(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn all(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(path)?)?)
    }
}

/// Creates a directory and its parents, so that a power cut does not remove it with what is stored in it.
///
/// # Errors
/// If it cannot be created.
pub fn make_directory(path: &Path, syncs: &dyn Syncs) -> io::Result<()> {
    let new: Vec<&Path> = path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    std::fs::create_dir_all(path)?;
    for path in new.into_iter().rev() {
        match path.parent() {
            Some(above) if !above.as_os_str().is_empty() => syncs.directory(above)?,
            _ => syncs.directory(Path::new("."))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use parking_lot::Mutex;

    use super::*;

    /// Records which directories were synced.
    #[derive(Debug, Default)]
    struct Remembers(Mutex<Vec<PathBuf>>);

    impl Syncs for Remembers {
        fn file(&self, _: &File) -> io::Result<()> {
            Ok(())
        }

        fn directory(&self, path: &Path) -> io::Result<()> {
            self.0.lock().push(path.to_owned());
            Ok(())
        }

        fn all(&self, _: &Path) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_directory_above_one_that_is_new_is_synced() {
        let top = tempfile::tempdir().unwrap();
        let (above, path) = (top.path().join("a"), top.path().join("a/b"));
        let syncs = Remembers::default();
        make_directory(&path, &syncs).unwrap();
        assert_eq!(*syncs.0.lock(), [top.path(), above.as_path()]);
        make_directory(&path, &syncs).unwrap();
        assert_eq!(syncs.0.lock().len(), 2, "expected no directory to be new");
        make_directory(&path, &Kernel).unwrap();
        Kernel.all(&path).unwrap();
    }
}
