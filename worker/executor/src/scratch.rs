//! A job's own directory on disk: what it writes, and where its root is built.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A directory that is removed on drop, in the background, even if the runtime shuts down before the removal has
/// started.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Creates a new one below `parent`.
    pub fn new(parent: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let path = parent.join(format!("job-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it, created if missing.
    pub fn directory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let left = Left(std::mem::take(&mut self.path));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(left)));
        }
    }
}

/// A removed job's files. They are deleted on drop, because a runtime that shuts down drops queued blocking tasks
/// without running them.
struct Left(PathBuf);

impl Drop for Left {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "cannot remove a job's files");
        }
    }
}

/// Removes what an earlier run left, and creates the directory if it is missing.
pub fn sweep(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("job-") {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Maximum depth of the descent; anything deeper is moved up first.
const DEPTH: usize = 64;
/// Maximum path length of the descent in bytes, with room for one more name below Linux's 4096.
const PATH_BYTES: usize = 3_072;

/// Removes a tree of any depth, including directories without permissions for their owner. A job may leave a tree that
/// is deeper than a path may be long, than there are file descriptors, and than a thread's stack allows. Its last process may still be on
/// its way out, and add or remove entries meanwhile.
pub fn remove(path: &Path) -> io::Result<()> {
    let mut removal = Removal { top: path, lifted: 0 };
    loop {
        let before = removal.lifted;
        removal.remove(path, 0)?;
        if removal.lifted == before {
            return Ok(());
        }
    }
}

/// How often a directory is looked through that still has entries afterwards, and how long apart.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

struct Removal<'a> {
    top: &'a Path,
    /// Number of directories that were moved to the top, to be removed from there.
    lifted: u64,
}

impl Removal<'_> {
    /// Removes a directory with all that is in it, unless something of that was moved to the top.
    fn remove(&mut self, directory: &Path, depth: usize) -> io::Result<()> {
        let mut looks = 0;
        loop {
            let before = self.lifted;
            gone(self.empty(directory, depth))?;
            if directory == self.top && self.lifted != before {
                return Ok(());
            }
            looks += 1;
            match gone(fs::remove_dir(directory)) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && looks < LOOKS => {
                    std::thread::sleep(BETWEEN_LOOKS);
                }
                result => return result,
            }
        }
    }

    /// Removes everything in a directory; moves up what lies too deep.
    fn empty(&mut self, directory: &Path, depth: usize) -> io::Result<()> {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            if !entry.file_type()?.is_dir() {
                gone(fs::remove_file(&path))?;
            } else if depth < DEPTH && path.as_os_str().len() < PATH_BYTES {
                self.remove(&path, depth + 1)?;
            } else {
                gone(self.lift(&path))?;
            }
        }
        Ok(())
    }

    fn lift(&mut self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        self.lifted += 1;
        fs::rename(path, self.top.join(format!("lifted-{}", self.lifted)))
    }
}

/// What is not there any more need not be removed.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Size of the files below a directory.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files and directories.
    pub files: u64,
}

/// Counts files and bytes below a directory. Files that vanish meanwhile, or lie deeper than a path may be long, are
/// not counted.
pub fn written_below(path: &Path) -> Written {
    use std::os::unix::fs::MetadataExt;
    let mut written = Written::default();
    // Not recursive: a job may create a tree that is deeper than a thread's stack allows.
    let mut waiting = vec![path.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(data) = entry.metadata() else { continue };
            written.bytes += data.blocks() * 512;
            written.files += 1;
            if data.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of so many directories above one another, made from the bottom up.
    fn deep(at: &Path, levels: usize) {
        let (below, above) = (at.join("below"), at.join("above"));
        fs::create_dir(&below).unwrap();
        fs::write(below.join("file"), "x").unwrap();
        for _ in 0..levels {
            fs::create_dir(&above).unwrap();
            fs::rename(&below, above.join("d")).unwrap();
            fs::rename(&above, &below).unwrap();
        }
    }

    #[test]
    fn a_tree_that_is_deeper_than_a_path_may_be_long_is_counted_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("job");
        fs::create_dir(&top).unwrap();
        deep(&top, 3_000);
        fs::write(top.join("large"), vec![1; 100_000]).unwrap();
        let written = written_below(&top);
        assert!(written.bytes >= 100_000 && written.files > 700, "{written:?}");
        remove(&top).unwrap();
        assert!(!top.exists());
        remove(&top).unwrap();
    }

    #[test]
    fn what_vanishes_meanwhile_is_no_reason_to_leave_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("job");
        fs::create_dir(&top).unwrap();
        let file = |number: u32| top.join(number.to_string());
        let (files, others) = (0..1_000, 0..1_000);
        files.for_each(|number| fs::write(file(number), "").unwrap());
        std::thread::scope(|scope| {
            // As a process does that is on its way out.
            scope.spawn(|| others.for_each(|number| drop(fs::remove_file(file(number)))));
            remove(&top).unwrap();
        });
        assert!(!top.exists(), "expected the directory to be gone");
    }

    #[test]
    fn links_are_removed_and_what_they_point_to_is_not_and_lost_rights_are_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let (top, kept) = (dir.path().join("job"), dir.path().join("kept"));
        fs::create_dir_all(top.join("closed/below")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&kept, top.join("link")).unwrap();
        fs::set_permissions(top.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        remove(&top).unwrap();
        assert!(!top.exists() && kept.join("file").exists());
    }
}
