//! A root and a layer become the root that the layer's maker saw.

use std::sync::Arc;

use kiln_proto::digest::Digest;

use super::{Attributes, Directory, Error, Forest, Node};
use crate::shape::MAX_DEPTH;

impl Forest {
    /// Applies a layer to a root, and returns the new root. Only directories that the layer names are read.
    ///
    /// As OCI image layers are applied: what the layer has replaces what the root has, but a directory over a directory merges with it;
    /// whiteouts and opaque directories remove. A whiteout of what is not there does nothing.
    ///
    /// # Errors
    /// [`Error::Unread`]; [`Error::NotRoot`] where `root` is a layer.
    pub fn apply(&mut self, root: &Digest, layer: &Digest) -> Result<Digest, Error> {
        self.whole(|forest| forest.merge(Some(*root), *layer, 0))
    }

    /// The root that a layer makes of an empty one.
    ///
    /// # Errors
    /// [`Error::Unread`].
    pub fn flatten(&mut self, layer: &Digest) -> Result<Digest, Error> {
        self.whole(|forest| forest.merge(None, *layer, 0))
    }

    fn merge(&mut self, base: Option<Digest>, layer: Digest, depth: usize) -> Result<Option<Digest>, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Depth);
        }
        let below = match base {
            Some(base) => self.open_root(&base)?,
            None => Some(Arc::new(Directory::default())),
        };
        let over = self.open(&layer);
        let (Some(below), Some(over)) = (below, over) else { return Ok(None) };
        let attributes = over.attributes.clone().or_else(|| below.attributes.clone());
        let mut merged = Directory::empty(attributes.unwrap_or_else(Attributes::directory));
        if !over.opaque {
            merged.entries = below.entries.clone();
        }
        let mut whole = true;
        for (name, node) in &over.entries {
            let node = match node {
                Node::Whiteout => {
                    merged.entries.remove(name);
                    continue;
                }
                Node::Leaf(_) => node.clone(),
                Node::Directory(over) => {
                    let below = match merged.entries.get(name) {
                        Some(Node::Directory(below)) => Some(*below),
                        _ => None,
                    };
                    match self.merge(below, *over, depth.saturating_add(1))? {
                        Some(digest) => Node::Directory(digest),
                        None => {
                            whole = false;
                            continue;
                        }
                    }
                }
            };
            merged.entries.insert(name.clone(), node);
        }
        Ok(whole.then(|| self.put(merged)))
    }
}
