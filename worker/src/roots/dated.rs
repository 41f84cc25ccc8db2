//! When the nodes of the roots were modified that were laid out last.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use kiln_proto::digest::Digest;
use kiln_trees::root::{Forest, Node, Time, Times};
use parking_lot::Mutex;

use super::scan;

/// Roots whose times are remembered. Those of a large root take some megabytes.
const REMEMBERED: usize = 8;

/// The times of roots, by their keys, the last laid out first.
#[derive(Debug, Default)]
pub(super) struct Dated(Mutex<VecDeque<(String, Arc<Times>)>>);

impl Dated {
    /// The times with which a root was laid out, if that is remembered.
    pub(super) fn of(&self, key: &str) -> Option<Arc<Times>> {
        let all = self.0.lock();
        all.iter().find(|(other, _)| other == key).map(|(_, times)| times.clone())
    }

    pub(super) fn remember(&self, key: String, times: Arc<Times>) {
        let mut all = self.0.lock();
        all.retain(|(other, _)| *other != key);
        all.truncate(REMEMBERED - 1);
        all.push_front((key, times));
    }
}

/// Whether two roots have the same times, but for what is in the layer between them.
pub(super) fn agree(forest: &Forest, layer: &Digest, before: &Times, after: &Times) -> bool {
    let changed = paths(forest, layer);
    let is_other = |entry: &(&Vec<u8>, &Time)| !changed.contains(entry.0);
    before.0.iter().filter(is_other).eq(after.0.iter().filter(is_other))
}

/// The paths of all nodes of a layer, its root among them.
fn paths(forest: &Forest, layer: &Digest) -> HashSet<Vec<u8>> {
    let mut found = HashSet::new();
    let mut waiting = vec![(*layer, Vec::new())];
    while let Some((digest, within)) = waiting.pop() {
        if let Some(directory) = forest.get(&digest) {
            for (name, node) in &directory.entries {
                let path = scan::joined(&within, name);
                match node {
                    Node::Directory(below) => waiting.push((*below, path)),
                    Node::Leaf(_) | Node::Whiteout => drop(found.insert(path)),
                }
            }
        }
        found.insert(within);
    }
    found
}
