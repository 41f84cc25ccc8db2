//! The overlays of a root, mounted in the job's user namespace or before it is entered.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_executor::layers::Overlay;
use kiln_executor::rooted::FILE;
use kiln_kernel::syscalls;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::super::root::{self, NONE, Stages};
use super::super::spec::Spec;
use super::Way;
use super::spec::{Layers, RootSpec};

type Result<T> = std::result::Result<T, String>;

/// Directories that every Linux system has and that a job's init does not need.
const PLACES: [&str; 4] = ["/mnt", "/srv", "/home", "/sys"];

/// A detached mount of what is mounted at a path, with all mounts below it.
pub(super) fn detached(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(rustix::fs::CWD, path, flags)
        .map_err(|error| format!("cannot clone the mount of `{}`: {error}", path.display()))
}

/// Makes the mount namespace private, and mounts a place in memory where the root is put together.
pub(super) fn place() -> Result<PathBuf> {
    root::mounted(NONE, Path::new("/"), NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    let place =
        PLACES.iter().map(Path::new).find(|place| place.is_dir()).ok_or(
            "no directory to build the root file system in: expected one of `/mnt`, `/srv`, `/home` and `/sys`",
        )?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    root::mounted(Some("tmpfs"), place, Some("tmpfs"), safe, Some("mode=0755,size=64m"))?;
    Ok(place.to_owned())
}

/// If the overlays are to be mounted by the worker rather than in the job's namespace, does that, in a mount namespace of its own.
pub(in super::super) fn overlays(spec: &Spec, sent: &[OwnedFd]) -> Result<Option<Vec<OwnedFd>>> {
    let Some(root) = spec.rooted.as_ref().filter(|root| root.way == Way::Outside) else { return Ok(None) };
    mount(&apart()?, spec, root, sent).map(Some)
}

/// A place in a mount namespace of its own.
pub(super) fn apart() -> Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("the kernel refuses namespaces: {error}"))?;
    place()
}

/// Mounts the overlays; one detached mount for each.
pub(super) fn mount(place: &Path, spec: &Spec, root: &RootSpec, sent: &[OwnedFd]) -> Result<Vec<OwnedFd>> {
    let stages = Stages { directory: root::directory(place, "stage")?, sent };
    stages.fill(&spec.stage)?;
    // The root's own programs may change the user; nothing on it is a device.
    let mut trees = overlays_at(place, &stages, root.way, &root.overlays, 1)?;
    trees.append(&mut sockets_at(&stages, &root.sockets)?);
    std::env::set_current_dir("/").map_err(|error| format!("cannot leave the stages: {error}"))?;
    Ok(trees)
}

/// One detached mount for each of these sockets below stages.
pub(super) fn sockets_at(stages: &Stages<'_>, sockets: &[PathBuf]) -> Result<Vec<OwnedFd>> {
    let detached = |socket: &PathBuf| {
        let tree = detached(&stages.directory.join(socket))?;
        syscalls::restrict_tree(tree.as_fd(), true, true)
            .map_err(|error| format!("cannot restrict a mount: {error}"))?;
        Ok(tree)
    };
    sockets.iter().map(detached).collect()
}

/// Mounts overlays; one detached mount for each. From the number `restricted` on, they have no devices and no set-user-id programs.
pub(super) fn overlays_at(
    place: &Path,
    stages: &Stages<'_>,
    way: Way,
    overlays: &[Layers],
    restricted: usize,
) -> Result<Vec<OwnedFd>> {
    let mut trees = Vec::new();
    for (number, layers) in overlays.iter().enumerate() {
        let at = root::directory(place, &format!("overlay-{number}"))?;
        overlay(layers, way, &stages.directory, &at)?;
        let tree = if layers.is_file { at.join(FILE) } else { at };
        let tree = detached(&tree)?;
        syscalls::restrict_tree(tree.as_fd(), !layers.writable, number >= restricted)
            .map_err(|error| format!("cannot restrict a mount: {error}"))?;
        trees.push(tree);
    }
    Ok(trees)
}

fn overlay(layers: &Layers, way: Way, stages: &Path, at: &Path) -> Result<()> {
    let staged = |path: &PathBuf| stages.join(path);
    let lower = layers.lower.iter().map(staged).collect();
    let objects = layers.objects.as_ref().map(staged);
    let overlay = Overlay { lower, upper: staged(&layers.upper), work: staged(&layers.work), objects };
    // What a job writes is kept after it succeeded, so nothing must be written to disk while it runs, and nothing when it ends.
    let mut own = match way {
        Way::Inside | Way::Shared => vec!["userxattr"],
        Way::Outside => vec!["redirect_dir=nofollow", "metacopy=off"],
    };
    if overlay.objects.is_some() {
        // An image is another file system: without this, its files would be on another device than its directories.
        own.push("xino=on");
    }
    own.push("volatile");
    overlay.mount_with(at, MsFlags::MS_NODEV, &own).or_else(|_| {
        // Linux before 5.10 has no volatile overlays, and leaves nothing in the work directory of one that it refused.
        fs::create_dir_all(at).map_err(|error| format!("cannot create `{}`: {error}", at.display()))?;
        overlay.mount_with(at, MsFlags::MS_NODEV, &own[..own.len() - 1])
    })
}
