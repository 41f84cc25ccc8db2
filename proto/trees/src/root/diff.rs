//! Two roots become the layer between them.

use std::collections::BTreeSet;

use kiln_proto::digest::Digest;

use super::{Directory, Error, Forest, Name, Node};
use crate::shape::MAX_DEPTH;

impl Forest {
    /// The smallest layer that makes `after` of `before`: `apply(before, diff(before, after)) == after`. Directories that are equal are
    /// not read. A directory in it has the attributes that it has in `after`.
    ///
    /// # Errors
    /// [`Error::Unread`]; [`Error::NotRoot`] where one of them is a layer.
    pub fn diff(&mut self, before: &Digest, after: &Digest) -> Result<Digest, Error> {
        self.whole(|forest| forest.between(*before, *after, 0))
    }

    fn between(&mut self, before: Digest, after: Digest, depth: usize) -> Result<Option<Digest>, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Depth);
        }
        let (old, new) = (self.open_root(&before)?, self.open_root(&after)?);
        let (Some(old), Some(new)) = (old, new) else { return Ok(None) };
        let mut layer = Directory { attributes: new.attributes.clone(), ..Directory::default() };
        let mut whole = true;
        let names: BTreeSet<&Name> = old.entries.keys().chain(new.entries.keys()).collect();
        for name in names {
            let node = match (old.entries.get(name), new.entries.get(name)) {
                (Some(old), Some(new)) if old == new => continue,
                (Some(Node::Directory(old)), Some(Node::Directory(new))) => {
                    match self.between(*old, *new, depth.saturating_add(1))? {
                        Some(digest) => Node::Directory(digest),
                        None => {
                            whole = false;
                            continue;
                        }
                    }
                }
                (_, Some(new)) => new.clone(),
                (_, None) => Node::Whiteout,
            };
            layer.entries.insert(name.clone(), node);
        }
        Ok(whole.then(|| self.put(layer)))
    }
}
