//! The source trees of the last builds, in memory: who builds an unchanged tree again does not wait until it has been read again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use kiln_proto::digest::Digest;
use kiln_store::BlobStore;

use super::source::SourceTree;

/// Paths of all trees together.
const MOST_PATHS: usize = 300_000;
/// Content of the files of one tree that the planner reads, in bytes.
const MOST_BYTES: usize = 8 << 20;

/// Trees without contexts, the one that was used last first.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<SourceTree>>);

impl Recent {
    /// A tree whose directories are all still in the store.
    pub(super) async fn get(&self, store: &dyn BlobStore, root: &Digest) -> Option<SourceTree> {
        let source = {
            let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let at = trees.iter().position(|tree| tree.root == *root)?;
            let source = trees.remove(at)?;
            trees.push_front(source.clone());
            source
        };
        let missing = store.find_missing(source.directories()).await;
        missing.is_ok_and(|missing| missing.is_empty()).then_some(source)
    }

    /// Keeps a tree, with the files that were read from it.
    pub(super) fn put(&self, source: &SourceTree) {
        let is_small = source.planned.supplied_bytes() <= MOST_BYTES && source.paths().len() <= MOST_PATHS;
        if !source.contexts.is_empty() || !is_small {
            return;
        }
        let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trees.retain(|tree| tree.root != source.root);
        trees.push_front(source.clone());
        let mut paths = 0;
        let fits = |tree: &SourceTree| {
            paths += tree.paths().len();
            paths <= MOST_PATHS
        };
        trees.retain(fits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::digest::DigestFunction;
    use kiln_store::trees::store_tree;
    use kiln_trees::tree::{Entry, Tree};

    #[tokio::test]
    async fn a_tree_is_had_from_memory_only_while_the_store_has_it() {
        let (function, dir) = (DigestFunction::Sha256, tempfile::tempdir().unwrap());
        let open = async |name: &str| {
            let config = kiln_store::Config::on_disk(dir.path().join(name), 1 << 30);
            kiln_store::Stores::open(&config).await.unwrap().blobs
        };
        let (store, empty) = (open("a").await, open("b").await);
        let file = function.digest(b"1");
        let mut tree = Tree::default();
        tree.insert("a/b", Entry::file(file, false)).unwrap();
        let root = store_tree(&*store, function, &tree).await.unwrap();
        let recent = Recent::default();
        assert!(recent.get(&*store, &root).await.is_none());
        recent.put(&SourceTree::read(&*store, root, &[]).await.unwrap());
        let again = recent.get(&*store, &root).await.unwrap();
        assert_eq!((again.paths(), again.entry("a/b")), (&["a/b".to_owned()][..], Some(&Entry::file(file, false))));
        assert_eq!(again.missing(&*store, None).await.unwrap(), [file], "content is looked for each time");
        assert!(recent.get(&*empty, &root).await.is_none(), "its directories are gone");
    }
}
