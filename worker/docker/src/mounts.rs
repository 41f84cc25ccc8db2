//! Mounts a task's inputs and `/tmp` into a running container.
//!
//! A container has two empty directories of the worker's, its *slot*. What the worker mounts there appears in the
//! container: the input layers stacked below a fresh directory, and a fresh `/tmp`. The worker is root and the task is
//! not, so both are seen through a *view*: an id-mapped mount of the state directory on which the worker's files belong
//! to the task's user, while on disk they stay the worker's.
//!
//! This needs root, overlayfs, id-mapped mounts (Linux 5.19), and an engine in the same mount namespace.
//! Invariant: nothing of one task is still mounted when the next begins.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::USER;
use kiln_executor::layers::Overlay;
use kiln_executor::scratch::Scratch;
use kiln_kernel::{syscalls, userns};

const NONE: Option<&Path> = None;

/// The directories below which tasks' files are mounted.
#[derive(Debug)]
pub(super) struct Mounts {
    state: PathBuf,
    view: PathBuf,
    slots: PathBuf,
}

/// The two directories of one container; removed on drop.
#[derive(Debug)]
pub(super) struct Slot {
    directory: PathBuf,
}

/// What is mounted in a slot; unmounted on drop.
#[derive(Debug)]
pub(super) struct Placed {
    points: Vec<PathBuf>,
}

impl Mounts {
    /// Creates the view and the directory of the slots below `directory`.
    ///
    /// # Errors
    /// Why this worker cannot mount for containers.
    pub(super) fn open(directory: &Path, state: &Path, init: &Path) -> Result<Self, String> {
        if !userns::is_machine_root() {
            return Err("the worker is not root".to_owned());
        }
        let mounts = Self { state: state.to_owned(), view: directory.join("view"), slots: directory.join("slots") };
        for path in [&mounts.view, &mounts.slots] {
            fs::create_dir_all(path).map_err(|error| format!("cannot create `{}`: {error}", path.display()))?;
        }
        look_through(state, &mounts.view, init)?;
        let failed = |error: nix::Error| format!("cannot mount `{}`: {error}", mounts.slots.display());
        mount(Some(&mounts.slots), &mounts.slots, NONE, MsFlags::MS_BIND, NONE).map_err(failed)?;
        mount(NONE, &mounts.slots, NONE, MsFlags::MS_SHARED, NONE).map_err(failed)?;
        Ok(mounts)
    }

    /// Creates a slot.
    pub(super) fn slot(&self, name: &str) -> io::Result<Slot> {
        let slot = Slot { directory: self.slots.join(name) };
        fs::create_dir_all(slot.build())?;
        fs::create_dir_all(slot.tmp())?;
        Ok(slot)
    }

    fn seen(&self, path: &Path) -> Result<PathBuf, String> {
        let below = path.strip_prefix(&self.state);
        below
            .map(|below| self.view.join(below))
            .map_err(|_| format!("`{}` is not in the state directory", path.display()))
    }

    /// Mounts a task's inputs and `/tmp`. Blocks.
    pub(super) fn place(&self, slot: &Slot, layers: &[PathBuf], scratch: &Scratch) -> Result<Placed, String> {
        let made = |name: &str| scratch.directory(name).map_err(|error| format!("cannot prepare a job: {error}"));
        let (upper, work, tmp) = (made("written")?, made("work")?, made("tmp")?);
        made("tmp/home")?;
        fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)).map_err(|error| error.to_string())?;
        let lower = layers.iter().map(|layer| self.seen(layer)).collect::<Result<_, _>>()?;
        let overlay = Overlay { lower, upper: self.seen(&upper)?, work: self.seen(&work)?, objects: None };
        let mut placed = Placed { points: Vec::new() };
        let build = slot.build();
        alone(|| overlay.mount(&build, false))?;
        placed.points.push(build);
        let flags = MsFlags::MS_BIND;
        mount(Some(&self.seen(&tmp)?), &slot.tmp(), NONE, flags, NONE)
            .map_err(|error| format!("cannot mount `{}`: {error}", slot.tmp().display()))?;
        placed.points.push(slot.tmp());
        Ok(placed)
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = umount2(&self.slots, MntFlags::MNT_DETACH);
        let _ = umount2(&self.view, MntFlags::MNT_DETACH);
    }
}

impl Slot {
    pub(super) fn build(&self) -> PathBuf {
        self.directory.join("build")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.directory.join("tmp")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Removes only empty directories, so nothing that is still mounted is touched.
        for path in [self.build(), self.tmp(), self.directory.clone()] {
            let _ = fs::remove_dir(path);
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        for point in self.points.iter().rev() {
            if let Err(error) = umount2(point, MntFlags::MNT_DETACH) {
                tracing::error!(%error, path = %point.display(), "cannot unmount a job's directory");
            }
        }
    }
}

/// Runs a closure in a thread that has its own working directory.
fn alone<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS).map_err(|error| format!("cannot unshare the working directory: {error}"))?;
            work()
        });
        thread.join().map_err(|_| "a mounting thread panicked".to_owned())?
    })
}

/// Mounts `from` at `to` with owners swapped: root's files belong to the tasks' user, and that user's to root.
fn look_through(from: &Path, to: &Path, program: &Path) -> Result<(), String> {
    let words = |what: &'static str| move |error: rustix::io::Errno| format!("{what}: {error}");
    // Root and the tasks' user are swapped; all other ids stay the same.
    let (id, rest) = (USER, USER + 1);
    let map = format!("0 {id} 1\n1 1 {}\n{id} 0 1\n{rest} {rest} {}\n", id - 1, 65_536 - rest);
    let namespace =
        userns::make(program, None, &map).map_err(|error| format!("cannot create a user namespace: {error}"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, from, flags).map_err(words("cannot clone the state directory's mount"))?;
    use std::os::fd::AsFd;
    syscalls::map_owners(tree.as_fd(), namespace.as_fd())
        .map_err(|error| format!("the file system of `{}` cannot map owners: {error}", from.display()))?;
    move_mount(&tree, "", rustix::fs::CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(words("cannot mount the view"))
}

/// Unmounts what an earlier run left mounted below a directory.
pub(super) fn sweep(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(directory)).collect();
    points.reverse();
    for point in points {
        let _ = umount2(&point, MntFlags::MNT_DETACH);
    }
}

/// The kernel writes spaces and similar characters as octal escapes.
fn unescape(text: &str) -> PathBuf {
    let mut plain = text.to_owned();
    for (code, c) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(code, c);
    }
    plain.into()
}
