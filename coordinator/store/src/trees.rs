//! Merkle trees in the store: read with all that is below them, laid over one another, and written.
//!
//! Invariant: nothing here is larger in memory than the farm takes ([`shape::MAX_ENTRIES`]), and nothing calls itself deeper than that was measured.

use std::collections::{HashMap, HashSet};

use crate::BlobStore;
use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::shape;
use kiln_proto::tree::{self, Entry, Tree};

/// Directories read at once.
const CONCURRENCY: usize = 16;

/// A tree that cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] crate::Error),
    #[error("directory `{digest}` is malformed: {reason}")]
    Malformed { digest: Digest, reason: String },
    #[error(transparent)]
    Shape(#[from] shape::Error),
}

/// Reads one directory message.
pub async fn directory(store: &dyn BlobStore, digest: &Digest) -> Result<Tree, Error> {
    shape::check_size(digest)?;
    let data = store.get(digest).await?;
    let malformed = |reason: String| Error::Malformed { digest: *digest, reason };
    let directory = shape::decode(digest, &data)?;
    Tree::from_directory(digest.function, &directory).map_err(|error| malformed(error.to_string()))
}

/// Reads a tree with everything below it.
///
/// # Errors
/// [`Error::Shape`] where it would be larger than the farm takes, before it is laid out.
pub async fn expand(store: &dyn BlobStore, digest: Digest) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    tree.entries.insert(String::new(), Entry::Sealed { digest });
    expand_in_place(store, &mut tree).await?;
    match tree.entries.pop_first() {
        Some((_, Entry::Directory(tree))) => Ok(tree),
        _ => Ok(Tree::default()),
    }
}

/// Reads what is sealed in a tree, everything below included.
///
/// # Errors
/// As those of [`expand`].
pub async fn expand_in_place(store: &dyn BlobStore, tree: &mut Tree) -> Result<(), Error> {
    let mut roots = Vec::new();
    sealed(tree, &mut roots);
    let known = directories(store, &roots).await?;
    let nodes = known.iter().map(|(digest, tree)| (*digest, node(tree))).collect();
    let mut entries = 0_u64;
    for root in &roots {
        entries = entries.saturating_add(shape::measure(root, &nodes)?.entries);
        if entries > shape::MAX_ENTRIES {
            return Err(shape::Error::Entries.into());
        }
    }
    lay_out(tree, &known);
    Ok(())
}

/// The sealed directories of a tree, at every place where they stand.
fn sealed(tree: &Tree, found: &mut Vec<Digest>) {
    for entry in tree.entries.values() {
        match entry {
            Entry::Sealed { digest } => found.push(*digest),
            Entry::Directory(below) => sealed(below, found),
            Entry::File { .. } | Entry::Symlink { .. } => {}
        }
    }
}

/// Each directory below these once, level by level: however deep they are, nothing here calls itself.
async fn directories(store: &dyn BlobStore, roots: &[Digest]) -> Result<HashMap<Digest, Tree>, Error> {
    let (mut known, mut entries) = (HashMap::new(), 0);
    let mut level: HashSet<Digest> = roots.iter().copied().collect();
    while !level.is_empty() {
        let mut read = stream::iter(level)
            .map(|digest| async move { Ok::<_, Error>((digest, directory(store, &digest).await?)) })
            .buffer_unordered(CONCURRENCY);
        let mut below = Vec::new();
        while let Some((digest, tree)) = read.try_next().await? {
            // Each stands somewhere at least once, so this many there are at least.
            entries += tree.entries.len() as u64;
            if entries > shape::MAX_ENTRIES {
                return Err(shape::Error::Entries.into());
            }
            sealed(&tree, &mut below);
            known.insert(digest, tree);
        }
        level = below.into_iter().filter(|digest| !known.contains_key(digest)).collect();
    }
    Ok(known)
}

/// What a directory says itself, to be measured.
fn node(tree: &Tree) -> shape::Node {
    let below = tree.entries.iter().filter_map(|(name, entry)| match entry {
        Entry::Sealed { digest } => Some((*digest, name.len())),
        _ => None,
    });
    shape::Node {
        entries: tree.entries.len() as u64,
        longest: tree.entries.keys().map(String::len).max().unwrap_or(0),
        below: below.collect(),
    }
}

/// Puts directories in the places of their digests. As deep as was measured, and no deeper.
fn lay_out(tree: &mut Tree, known: &HashMap<Digest, Tree>) {
    for entry in tree.entries.values_mut() {
        if let Entry::Sealed { digest } = entry {
            *entry = Entry::Directory(known.get(digest).cloned().unwrap_or_default());
        }
        if let Entry::Directory(below) = entry {
            lay_out(below, known);
        }
    }
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

/// Lays `over` onto `base`: files replace, directories become one. What is sealed is read where both have it.
pub async fn overlay(store: &dyn BlobStore, base: &mut Tree, over: Tree) -> Result<(), Error> {
    base.mode = over.mode.or(base.mode);
    for (name, entry) in over.entries {
        let both = match (base.entries.get(&name), &entry) {
            (Some(Entry::Sealed { digest: a }), Entry::Sealed { digest: b }) if a == b => continue,
            (Some(Entry::Directory(_) | Entry::Sealed { .. }), Entry::Directory(_) | Entry::Sealed { .. }) => true,
            _ => false,
        };
        if !both {
            base.entries.insert(name, entry);
            continue;
        }
        let mut below = open(store, base.entries.remove(&name)).await?;
        let over = open(store, Some(entry)).await?;
        Box::pin(overlay(store, &mut below, over)).await?;
        base.entries.insert(name, Entry::Directory(below));
    }
    Ok(())
}

async fn open(store: &dyn BlobStore, entry: Option<Entry>) -> Result<Tree, Error> {
    match entry {
        Some(Entry::Directory(tree)) => Ok(tree),
        Some(Entry::Sealed { digest }) => directory(store, &digest).await,
        _ => Ok(Tree::default()),
    }
}

/// Encodes a tree and stores its directories; returns its root.
pub async fn store_tree(store: &dyn BlobStore, function: DigestFunction, tree: &Tree) -> Result<Digest, crate::Error> {
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
