//! A source tree as it lies in the store: its shape, and the small files that decide a plan.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use kiln_planner::plan::{self, MemorySource};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::shape;
use kiln_proto::tree::{self, Entry, Tree};

use kiln_store::BlobStore;

/// Directories read at once.
const CONCURRENCY: usize = 16;
/// Largest manifest or lock file that the planner reads.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// Bytes of all of them.
const MAX_MANIFESTS_BYTES: u64 = 256 << 20;
/// Symbolic links that are followed to a file.
const MAX_LINKS: usize = 8;

/// A tree that cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    #[error("directory `{digest}` is malformed: {reason}")]
    Malformed { digest: Digest, reason: String },
    #[error(transparent)]
    Shape(#[from] shape::Error),
    #[error("the manifests and lock files of the project have more than {} MiB together", MAX_MANIFESTS_BYTES >> 20)]
    Manifests,
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

impl SourceTree {
    /// Reads the tree under a root directory, and of no file its content.
    pub async fn read(store: &dyn BlobStore, root: Digest) -> Result<Self, Error> {
        let tree = expand(store, root).await?;
        let mut all = flatten(&tree);
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let paths: Vec<String> = all.iter().map(|(path, _)| path.clone()).collect();
        let planned = MemorySource::with_paths(paths.iter().cloned(), BTreeMap::new());
        Ok(Self { paths, entries: all.into_iter().collect(), planned, tree })
    }

    /// Asks `question` of the tree until every file that it reads has been supplied; answers what it said then.
    ///
    /// # Errors
    /// [`Error::Manifest`] and [`Error::Manifests`] where it reads more than a planner may.
    pub async fn ask<T>(
        &mut self,
        store: &dyn BlobStore,
        question: impl Fn(&MemorySource) -> T + Send + Sync,
    ) -> Result<T, Error> {
        let mut bytes = 0_u64;
        loop {
            let answer = question(&self.planned);
            let unread = self.planned.unread();
            if unread.is_empty() {
                return Ok(answer);
            }
            drop(answer);
            let mut files: Vec<(String, Option<Digest>)> = Vec::new();
            for path in unread {
                let digest = self.file(&path);
                if let Some(Digest { size, .. }) = digest.filter(|digest| digest.size > MAX_MANIFEST_BYTES) {
                    return Err(Error::Manifest { path, size });
                }
                bytes = bytes.saturating_add(digest.map_or(0, |digest| digest.size));
                files.push((path, digest));
            }
            if bytes > MAX_MANIFESTS_BYTES {
                return Err(Error::Manifests);
            }
            let read: Vec<(String, Option<Vec<u8>>)> = stream::iter(files)
                .map(|(path, digest)| async move {
                    let content = match digest {
                        Some(digest) => Some(store.get(&digest).await?.to_vec()),
                        None => None,
                    };
                    Ok::<_, kiln_store::Error>((path, content))
                })
                .buffer_unordered(CONCURRENCY)
                .try_collect()
                .await?;
            for (path, content) in read {
                self.planned.supply(path, content);
            }
        }
    }

    /// The file at a path, through symbolic links of the tree.
    fn file(&self, path: &str) -> Option<Digest> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.entries.get(&path)? {
                Entry::File { digest, .. } => return Some(*digest),
                Entry::Symlink { target } => path = plan::join(plan::parent(&path), target)?,
                Entry::Directory(_) | Entry::Sealed { .. } => return None,
            }
        }
        None
    }
}

impl SourceTree {
    /// Has the store count all files as used now, as far as they are there.
    pub async fn use_files(&self, store: &dyn BlobStore) -> Result<(), kiln_store::Error> {
        let digest = |entry: &Entry| if let Entry::File { digest, .. } = entry { Some(*digest) } else { None };
        let files: Vec<Digest> = self.entries.values().filter_map(digest).collect();
        store.find_missing(&files).await.map(|_| ())
    }
}

/// Encodes a tree and stores its directories; returns its root.
pub async fn store_tree(
    store: &dyn BlobStore,
    function: DigestFunction,
    tree: &Tree,
) -> Result<Digest, kiln_store::Error> {
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
