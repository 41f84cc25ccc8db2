//! What a command changed in its root: the layer, and the root that it leads to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_proto::digest::Digest;
use kiln_trees::Encoded;
use kiln_trees::root::{self, Content, Directory, Forest, Node, Time, Times};
use tokio_util::sync::CancellationToken;

use super::scan::{self, Upper};
use crate::outputs::Error;

/// A command's changes.
#[derive(Debug)]
pub(super) struct Changes {
    /// The layer: `apply(root, layer)` is the new root, and nothing smaller leads to it.
    pub(super) layer: Digest,
    /// The new root.
    pub(super) root: Digest,
    /// The layer's directories, parents before children.
    pub(super) directories: Vec<Encoded>,
    /// When the nodes of the layer were modified.
    pub(super) times: Times,
    /// The layer's files.
    pub(super) files: Vec<(Digest, PathBuf)>,
    /// Directories of the new root that were not in the one before.
    pub(super) made: Vec<Encoded>,
    /// When each node was modified that overlayfs has a copy of, changed or not.
    pub(super) touched: BTreeMap<Vec<u8>, Time>,
}

fn failed(error: root::Error) -> Error {
    Error::Precondition(format!("the command left what cannot be a root file system: {error}"))
}

/// Finds out what was changed. All directories of the root must be in the forest.
///
/// overlayfs copies what a command only touched, and marks directories as opaque that only are new: what was read is applied to the root, and
/// compared with it.
pub(super) fn changes(
    upper: Upper<'_>,
    forest: &mut Forest,
    before: &Digest,
    cancel: &CancellationToken,
) -> Result<Changes, Error> {
    let scanned = scan::scan(upper, forest, cancel)?;
    let read = unlink_known(forest, Some(*before), &scanned.layer);
    let root = forest.apply(before, &read).map_err(failed)?;
    let made = forest.take_made();
    let layer = forest.diff(before, &root).map_err(failed)?;
    let mut changes = Changes {
        layer,
        root,
        directories: Vec::new(),
        times: Times::default(),
        files: Vec::new(),
        made: super::step::among(forest, &root, made),
        touched: BTreeMap::new(),
    };
    let mut files: BTreeMap<Digest, PathBuf> = BTreeMap::new();
    let mut waiting = vec![(layer, Vec::new())];
    while let Some((digest, within)) = waiting.pop() {
        let Some(directory) = forest.get(&digest).cloned() else { continue };
        changes.directories.push(Encoded { digest, data: directory.encode(upper.function) });
        stamp(&mut changes.times, &scanned.times, within.clone());
        for (name, node) in &directory.entries {
            let within = scan::joined(&within, name);
            match node {
                Node::Directory(below) => waiting.push((*below, within)),
                Node::Leaf(leaf) => {
                    stamp(&mut changes.times, &scanned.times, within);
                    if let Content::File(digest) = leaf.content
                        && let Some(path) = scanned.files.get(&digest)
                    {
                        files.insert(digest, path.clone());
                    }
                }
                Node::Whiteout => {}
            }
        }
    }
    changes.files = files.into_iter().collect();
    changes.touched = scanned.times;
    Ok(changes)
}

fn stamp(times: &mut Times, known: &BTreeMap<Vec<u8>, Time>, path: Vec<u8>) {
    if let Some(time) = known.get(&path) {
        times.0.insert(path, *time);
    }
}

/// The layer in which a file that was only touched is what it was: overlayfs copies one name of several, and that one no longer says
/// that it had others.
fn unlink_known(forest: &mut Forest, before: Option<Digest>, layer: &Digest) -> Digest {
    let known = before.and_then(|before| forest.get(&before).cloned());
    let (Some(known), Some(read)) = (known, forest.get(layer).cloned()) else { return *layer };
    let mut settled = Directory::clone(&read);
    for (name, node) in &read.entries {
        let node = match (node, known.entries.get(name)) {
            (Node::Directory(read), Some(Node::Directory(before))) => {
                Node::Directory(unlink_known(forest, Some(*before), read))
            }
            (Node::Leaf(read), Some(Node::Leaf(before)))
                if read.links.is_none() && read.content == before.content && read.attributes == before.attributes =>
            {
                Node::Leaf(before.clone())
            }
            _ => continue,
        };
        settled.entries.insert(name.clone(), node);
    }
    if settled == *read { *layer } else { forest.put(settled) }
}
