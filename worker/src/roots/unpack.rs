//! A root, or a layer over another, becomes a directory on disk.
//!
//! Invariant: names come from [`Name`](kiln_trees::root::Name) and directories are made here, so no path leads out of the directory.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use kiln_proto::digest::Digest;
use kiln_sandbox::OnDisk;
use kiln_trees::root::{Attributes, Content, Directory, Forest, Leaf, Node, Time, Times};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::attributes;
use crate::inputs::{self, Error, disk};

/// Files written at once.
const THREADS: usize = 8;
/// What a device or a whiteout is that a worker without root cannot make.
const NO_DEVICE: [io::ErrorKind; 1] = [io::ErrorKind::PermissionDenied];

/// What is to be laid out.
#[derive(Debug, Default)]
struct Plan {
    /// Parents before children; with their attributes where they have some.
    directories: Vec<(PathBuf, Vec<u8>, Attributes)>,
    leaves: Vec<(PathBuf, Vec<u8>, Leaf)>,
    /// Names of nodes whose content is that of an earlier one.
    links: Vec<(PathBuf, PathBuf)>,
    whiteouts: Vec<PathBuf>,
}

/// The contents of all files of a root or layer.
pub(super) fn files(forest: &Forest, root: &Digest) -> Result<Vec<Digest>, Error> {
    let plan = plan(forest, root, Path::new(""))?;
    let file = |leaf: &Leaf| if let Content::File(digest) = leaf.content { Some(digest) } else { None };
    Ok(plan.leaves.iter().filter_map(|(_, _, leaf)| file(leaf)).collect())
}

/// Number of nodes of a root or layer; none where it is not whole.
pub(super) fn count(forest: &Forest, root: &Digest) -> Option<usize> {
    let directory = forest.get(root)?;
    let below = |node: &Node| if let Node::Directory(digest) = node { Some(*digest) } else { None };
    directory
        .entries
        .values()
        .filter_map(below)
        .try_fold(directory.entries.len(), |sum, digest| Some(sum + count(forest, &digest)?))
}

/// Lays a root or layer out in a new directory, and returns how many bytes it takes.
pub(super) fn unpack(
    forest: &Forest,
    root: &Digest,
    to: &Path,
    content: &inputs::Content,
    times: &Times,
    on_disk: OnDisk,
) -> Result<u64, Error> {
    let plan = plan(forest, root, to)?;
    let base = on_disk.layers;
    for (path, ..) in &plan.directories {
        DirBuilder::new().mode(0o700).create(path).map_err(disk(path))?;
    }
    let bytes = write(&plan.leaves, content, times, base)?;
    for (path, first) in &plan.links {
        fs::hard_link(first, path).map_err(disk(path))?;
    }
    for path in &plan.whiteouts {
        mknod(path, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).map_err(|error| disk(path)(error.into()))?;
    }
    // Children before parents: filling a directory gives it a new time.
    for (path, within, attributes) in plan.directories.iter().rev() {
        attributes::give(path, attributes, false, base).map_err(disk(path))?;
        attributes::age(path, time(times, within)).map_err(disk(path))?;
    }
    let nodes = (plan.directories.len() + plan.leaves.len()) as u64;
    Ok(bytes + nodes * 4096)
}

fn time(times: &Times, within: &[u8]) -> Time {
    times.0.get(within).copied().unwrap_or(Time::UNDATED)
}

fn plan(forest: &Forest, root: &Digest, to: &Path) -> Result<Plan, Error> {
    let absent = |digest: &Digest| Error::Missing(vec![*digest]);
    let own = |directory: &Directory| directory.attributes.clone().unwrap_or_else(Attributes::directory);
    let mut plan = Plan::default();
    let mut groups: HashMap<u64, PathBuf> = HashMap::new();
    let top = forest.get(root).ok_or_else(|| absent(root))?.clone();
    plan.directories.push((to.to_owned(), Vec::new(), own(&top)));
    // Not recursive: what is hostile was measured, and what is deep costs no stack.
    let mut waiting = vec![(to.to_owned(), Vec::new(), top)];
    while let Some((at, within, directory)) = waiting.pop() {
        for (name, node) in &directory.entries {
            let path = at.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
            let mut below = within.clone();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(name.as_bytes());
            match node {
                Node::Whiteout => plan.whiteouts.push(path),
                Node::Directory(digest) => {
                    let directory = forest.get(digest).ok_or_else(|| absent(digest))?.clone();
                    plan.directories.push((path.clone(), below.clone(), own(&directory)));
                    waiting.push((path, below, directory));
                }
                Node::Leaf(leaf) => match leaf.links.and_then(|group| groups.get(&group)) {
                    Some(first) => plan.links.push((path, first.clone())),
                    None => {
                        if let Some(group) = leaf.links {
                            groups.insert(group, path.clone());
                        }
                        plan.leaves.push((path, below, leaf.clone()));
                    }
                },
            }
        }
    }
    Ok(plan)
}

/// Writes nodes that are not directories, on all processors.
fn write(
    leaves: &[(PathBuf, Vec<u8>, Leaf)],
    content: &inputs::Content,
    times: &Times,
    base: u32,
) -> Result<u64, Error> {
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let work = || {
        while let Some((path, within, leaf)) = leaves.get(next.fetch_add(1, Ordering::Relaxed)) {
            let made = one(path, leaf, content, base).and_then(|size| {
                bytes.fetch_add(size, Ordering::Relaxed);
                attributes::age(path, time(times, within))
            });
            match made {
                Err(error) if is_device(&leaf.content) && NO_DEVICE.contains(&error.kind()) => {
                    tracing::warn!(path = %path.display(), "this worker cannot make a device of a root; it is left out");
                }
                result => result.map_err(disk(path))?,
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let panicked = |_| Err(Error::Farm("laying a root out was interrupted".to_owned()));
        handles.into_iter().try_for_each(|handle| handle.join().unwrap_or_else(panicked))
    })?;
    Ok(bytes.into_inner())
}

fn is_device(content: &Content) -> bool {
    matches!(content, Content::Character(..) | Content::Block(..))
}

fn one(path: &Path, leaf: &Leaf, content: &inputs::Content, base: u32) -> io::Result<u64> {
    let device = |kind, major: u32, minor: u32| {
        mknod(path, kind, Mode::empty(), makedev(major.into(), minor.into())).map_err(io::Error::from)
    };
    let mut size = 0;
    match &leaf.content {
        Content::File(digest) => {
            let mut file = File::create_new(path)?;
            if !digest.is_empty() {
                size = io::copy(&mut File::open(content.path(digest))?, &mut file)?;
                if size != digest.size {
                    return Err(io::Error::other("the cached file has another size than its digest"));
                }
            }
        }
        Content::Symlink(target) => {
            std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), path)?;
        }
        Content::Fifo => mknod(path, SFlag::S_IFIFO, Mode::empty(), 0).map_err(io::Error::from)?,
        Content::Character(major, minor) => device(SFlag::S_IFCHR, *major, *minor)?,
        Content::Block(major, minor) => device(SFlag::S_IFBLK, *major, *minor)?,
    }
    attributes::give(path, &leaf.attributes, matches!(leaf.content, Content::Symlink(_)), base)?;
    Ok(size)
}
