//! A source tree as it lies in the store: its shape, and the small files that decide a plan.

use std::collections::{BTreeMap, HashMap};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use kiln_core::plan::{MemorySource, wants};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use kiln_proto::tree::{self, Entry, Tree};
use prost::Message;

use crate::store::{self, BlobStore};

/// Directories read at once.
const CONCURRENCY: usize = 16;
/// Largest manifest or lock file that the planner reads.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// A tree that cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("directory `{digest}` is malformed: {reason}")]
    Malformed { digest: Digest, reason: String },
    #[error("`{path}` has {size} bytes, more than a manifest may have")]
    Manifest { path: String, size: u64 },
}

/// A whole source tree in memory, without its files' content.
#[derive(Debug)]
pub struct SourceTree {
    /// Every path of a file or symbolic link, sorted.
    pub paths: Vec<String>,
    /// What stands at each of `paths`.
    pub entries: HashMap<String, Entry>,
    /// What the planner reads.
    pub planned: MemorySource,
    /// The whole tree.
    pub tree: Tree,
}

/// Reads one directory message.
pub async fn directory(store: &dyn BlobStore, digest: &Digest) -> Result<Tree, Error> {
    let data = store.get(digest).await?;
    let malformed = |reason: String| Error::Malformed { digest: *digest, reason };
    let directory = reapi::Directory::decode(data).map_err(|error| malformed(error.to_string()))?;
    Tree::from_directory(digest.function, &directory).map_err(|error| malformed(error.to_string()))
}

/// Reads a tree with everything below it.
pub fn expand<'a>(store: &'a dyn BlobStore, digest: Digest) -> BoxFuture<'a, Result<Tree, Error>> {
    async move {
        let mut tree = directory(store, &digest).await?;
        expand_in_place(store, &mut tree).await?;
        Ok(tree)
    }
    .boxed()
}

/// Reads what is sealed in a tree, everything below included.
pub fn expand_in_place<'a>(store: &'a dyn BlobStore, tree: &'a mut Tree) -> BoxFuture<'a, Result<(), Error>> {
    async move {
        let below: Vec<BoxFuture<'_, Result<(), Error>>> = tree
            .entries
            .values_mut()
            .filter_map(|entry| match entry {
                Entry::Sealed { digest } => {
                    let digest = *digest;
                    Some(
                        async move {
                            *entry = Entry::Directory(expand(store, digest).await?);
                            Ok(())
                        }
                        .boxed(),
                    )
                }
                Entry::Directory(tree) => Some(expand_in_place(store, tree)),
                Entry::File { .. } | Entry::Symlink { .. } => None,
            })
            .collect();
        stream::iter(below).buffer_unordered(CONCURRENCY).try_collect::<()>().await
    }
    .boxed()
}

/// Every file and symbolic link of an expanded tree, by path.
pub fn flatten(tree: &Tree) -> Vec<(String, Entry)> {
    fn walk(tree: &Tree, prefix: &str, found: &mut Vec<(String, Entry)>) {
        for (name, entry) in &tree.entries {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            match entry {
                Entry::Directory(below) => walk(below, &path, found),
                Entry::File { .. } | Entry::Symlink { .. } => found.push((path, entry.clone())),
                Entry::Sealed { .. } => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(tree, "", &mut found);
    found
}

impl SourceTree {
    /// Reads the tree under a root directory.
    pub async fn read(store: &dyn BlobStore, root: Digest) -> Result<Self, Error> {
        let tree = expand(store, root).await?;
        let mut all = flatten(&tree);
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let wanted = all.iter().filter_map(|(path, entry)| match entry {
            Entry::File { digest, .. } if wants(path) => Some((path.clone(), *digest)),
            _ => None,
        });
        let files: BTreeMap<String, Vec<u8>> = stream::iter(wanted.collect::<Vec<_>>())
            .map(|(path, digest)| async move {
                if digest.size > MAX_MANIFEST_BYTES {
                    return Err(Error::Manifest { path, size: digest.size });
                }
                Ok((path, store.get(&digest).await?.to_vec()))
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        let paths: Vec<String> = all.iter().map(|(path, _)| path.clone()).collect();
        let planned = MemorySource::with_paths(paths.iter().cloned(), files);
        Ok(Self { paths, entries: all.into_iter().collect(), planned, tree })
    }
}

impl SourceTree {
    /// Has the store count all files as used now, as far as they are there.
    pub async fn use_files(&self, store: &dyn BlobStore) -> Result<(), store::Error> {
        let digest = |entry: &Entry| if let Entry::File { digest, .. } = entry { Some(*digest) } else { None };
        let files: Vec<Digest> = self.entries.values().filter_map(digest).collect();
        store.find_missing(&files).await.map(|_| ())
    }
}

/// Encodes a tree and stores its directories; returns its root.
pub async fn store_tree(store: &dyn BlobStore, function: DigestFunction, tree: &Tree) -> Result<Digest, store::Error> {
    let mut encoded: Vec<tree::Encoded> = Vec::new();
    let root = tree.encode(function, &mut |directory| encoded.push(directory));
    let digests: Vec<Digest> = encoded.iter().map(|directory| directory.digest).collect();
    let missing: std::collections::HashSet<Digest> = store.find_missing(&digests).await?.into_iter().collect();
    for directory in encoded {
        if missing.contains(&directory.digest) {
            store.put(&directory.digest, directory.data.into()).await?;
        }
    }
    Ok(root)
}
