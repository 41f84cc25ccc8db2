//! What `proto/fuzz` and the short form of it in `tests/hostile_bytes.rs` feed with hostile bytes.
//!
//! Each function takes any bytes at all, and panics where an invariant does not hold.

use std::collections::HashMap;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use prost::Message;

use crate::shape::{self, Node};
use crate::tree::Tree;

const F: DigestFunction = DigestFunction::Sha256;

fn lay_out(directory: &reapi::Directory) {
    let Ok(tree) = Tree::from_directory(F, directory) else { return };
    for name in tree.entries.keys() {
        assert!(!name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']), "{name:?} leads out");
    }
    let mut encoded = Vec::new();
    let digest = tree.encode(F, &mut |one| encoded.push(one));
    let last = encoded.last().expect("a tree has a root");
    assert_eq!(last.digest, digest);
    let again = shape::decode(&digest, &last.data).expect("what was written is read");
    assert_eq!(Tree::from_directory(F, &again).expect("and is lawful"), tree);
}

/// A `Directory` as it lies in the store.
pub fn directory(data: &[u8]) {
    if let Ok(directory) = shape::decode(&F.digest(data), data) {
        lay_out(&directory);
    }
}

/// A `Tree`, of which each child is a directory: measured first, whatever its directories name.
pub fn tree(data: &[u8]) {
    let Ok(tree) = reapi::Tree::decode(data) else { return };
    let mut nodes = HashMap::new();
    for directory in tree.root.iter().chain(&tree.children) {
        lay_out(directory);
        let below = directory
            .directories
            .iter()
            .filter_map(|node| Some((Digest::required(F, node.digest.as_ref()).ok()?, node.name.len())));
        let entries =
            [directory.files.len(), directory.directories.len(), directory.symlinks.len()].iter().sum::<usize>();
        let node = Node { entries: entries as u64, longest: 1, below: below.collect() };
        nodes.insert(F.digest(&directory.encode_to_vec()), node);
    }
    if let Some(root) = &tree.root {
        let shape = shape::measure(&F.digest(&root.encode_to_vec()), &nodes);
        assert!(shape.is_err() || shape.is_ok_and(|shape| shape.entries <= shape::MAX_ENTRIES));
    }
}
