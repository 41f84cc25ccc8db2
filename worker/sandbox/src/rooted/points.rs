//! Where things are mounted in a root. The mount points that are missing are made, and removed when the job has ended.
//!
//! Paths are followed as the job would follow them: this runs when the root is `/` and nothing else can be reached.

use std::fs::{self, FileTimes};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use nix::mount::{MntFlags, umount2};
use rustix::mount::{MoveMountFlags, move_mount};

/// Symbolic links that are followed on the way to a mount point, as Linux has it.
const MAX_LINKS: usize = 40;

/// What is mounted, and what was made for it.
#[derive(Debug, Default)]
pub(super) struct Points {
    mounted: Vec<PathBuf>,
    made: Vec<Made>,
}

/// A mount point that was not there.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    is_directory: bool,
    /// When its parent was modified before, and by this.
    before: SystemTime,
    by_this: SystemTime,
}

fn modified(path: &Path) -> io::Result<SystemTime> {
    path.symlink_metadata()?.modified()
}

fn set_modified(path: &Path, time: SystemTime) -> io::Result<()> {
    fs::File::open(path)?.set_times(FileTimes::new().set_modified(time))
}

impl Points {
    /// Mounts at a path of the root.
    pub(super) fn attach(&mut self, target: &Path, tree: &OwnedFd, is_directory: bool) -> Result<(), String> {
        let at = self.point(&absolute(target), is_directory, 0)?;
        if at == Path::new("/") {
            return Err("nothing can be mounted over the root itself".to_owned());
        }
        move_mount(tree, "", rustix::fs::CWD, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|error| format!("cannot mount at `{}`: {error}", target.display()))?;
        self.mounted.push(at);
        Ok(())
    }

    /// The real path of a mount point, which is made if it is missing.
    fn point(&mut self, target: &Path, is_directory: bool, links: usize) -> Result<PathBuf, String> {
        let failed = |error: io::Error| format!("cannot make the mount point `{}`: {error}", target.display());
        match fs::canonicalize(target) {
            Ok(real) if real.is_dir() == is_directory => return Ok(real),
            Ok(_) if is_directory => {
                return Err(format!("cannot mount a directory at `{}`, which is not one", target.display()));
            }
            Ok(_) => return Err(format!("cannot mount a file at `{}`, which is a directory", target.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        let parent = self.point(parent, true, links)?;
        let path = parent.join(name);
        if let Ok(to) = fs::read_link(&path) {
            if links >= MAX_LINKS {
                return Err(format!("too many symbolic links on the way to `{}`", target.display()));
            }
            return self.point(&absolute(&parent.join(to)), is_directory, links + 1);
        }
        let before = modified(&parent).map_err(failed)?;
        if is_directory { fs::create_dir(&path) } else { fs::File::create_new(&path).map(drop) }.map_err(failed)?;
        let by_this = modified(&parent).map_err(failed)?;
        self.made.push(Made { path: path.clone(), is_directory, before, by_this });
        Ok(path)
    }

    /// Unmounts everything, and removes what was made and is still empty. A directory that had nothing else made or removed in it gets its
    /// time back.
    pub(super) fn leave(self) {
        for at in self.mounted.iter().rev() {
            let _ = umount2(at, MntFlags::MNT_DETACH);
        }
        for made in self.made.iter().rev() {
            let Some(parent) = made.path.parent() else { continue };
            let Ok(now) = modified(parent) else { continue };
            let is_empty =
                made.path.symlink_metadata().is_ok_and(|data| data.is_dir() || (data.is_file() && data.len() == 0));
            let removed = match made.is_directory {
                true => fs::remove_dir(&made.path),
                false if is_empty => fs::remove_file(&made.path),
                false => continue,
            };
            if removed.is_ok() {
                let _ = set_modified(parent, if now == made.by_this { made.before } else { now });
            }
        }
    }
}

/// A path without `.`, `..` and repeated slashes.
pub(super) fn absolute(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_in_the_root() {
        for (path, plain) in [("/a/./b//c", "/a/b/c"), ("../../etc", "/etc"), ("/a/../../..", "/"), ("", "/")] {
            assert_eq!(absolute(Path::new(path)), Path::new(plain));
        }
    }

    #[test]
    fn what_was_made_is_removed_and_its_parent_keeps_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let old = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(7);
        fs::create_dir(root.join("etc")).unwrap();
        std::os::unix::fs::symlink("made/by/link", root.join("link")).unwrap();
        fs::create_dir(root.join("used")).unwrap();
        for name in ["etc", "used", ""] {
            set_modified(&root.join(name), old).unwrap();
        }
        let mut points = Points::default();
        for name in ["etc/resolv.conf", "link", "used/stub"] {
            points.point(&root.join(name), false, 0).unwrap();
        }
        assert!(root.join("made/by/link").is_file());
        assert!(points.point(&root.join("etc"), false, 0).unwrap_err().contains("is a directory"));
        fs::write(root.join("used/other"), "x").unwrap();
        let changed = modified(&root.join("used")).unwrap();
        fs::write(root.join("made/by/link"), "written").unwrap();
        points.leave();
        assert!(!root.join("etc/resolv.conf").exists() && !root.join("used/stub").exists());
        assert_eq!((modified(&root.join("etc")).unwrap(), modified(&root.join("used")).unwrap()), (old, changed));
        assert!(root.join("made/by/link").exists(), "expected what somebody wrote to stay");
    }
}
