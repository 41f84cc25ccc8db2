//! A source tree in the store: its entries, and the small files that determine a plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use kiln_artifacts::{SentContext, SentContexts};
use kiln_planner::plan::{self, MemorySource, Source as _};
use kiln_proto::digest::Digest;
use kiln_proto::v1;
use kiln_trees::tree::{Entry, Tree};

use kiln_store::BlobStore;

use kiln_store::trees::{self, expand_noting, flatten};

/// Files that are read at once.
const CONCURRENCY: usize = 16;
/// Largest manifest or lock file that the planner reads.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// Maximum bytes of all of them.
const MAX_MANIFESTS_BYTES: u64 = 256 << 20;
/// Maximum symbolic links that are followed to a file.
const MAX_LINKS: usize = 8;
/// The directory of a tree that has the contexts of Dockerfiles.
const CONTEXTS: &str = ".contexts";

/// A tree that cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Tree(#[from] trees::Error),
    #[error("the manifests and lock files of the project have more than {} MiB together", MAX_MANIFESTS_BYTES >> 20)]
    Manifests,
    #[error("`{path}` has {size} bytes, more than a manifest may have")]
    Manifest { path: String, size: u64 },
    #[error("source.contexts: the tree has no directory `{place}`; expected one below `{CONTEXTS}`")]
    Context { place: String },
}

impl From<kiln_store::Error> for Error {
    fn from(error: kiln_store::Error) -> Self {
        Self::Tree(error.into())
    }
}

/// A whole source tree in memory, without its files' content.
#[derive(Debug, Clone)]
pub struct SourceTree {
    /// Its paths, and the files that the planner reads.
    pub planned: MemorySource,
    /// The entry at each of its paths.
    entries: Arc<Vec<Entry>>,
    /// The digest of all that was sent.
    pub root: Digest,
    /// The whole tree, without the contexts that were sent beside it.
    pub tree: Arc<Tree>,
    /// The directories of all that was sent.
    directories: Arc<Vec<Digest>>,
    /// The contexts.
    pub contexts: SentContexts,
    /// Their files, whose lock files belong to the bill of materials.
    pub beside: Option<Box<SourceTree>>,
}

impl SourceTree {
    /// Reads the tree under a root directory, without the content of its files. The project has none of `contexts`.
    pub async fn read(store: &dyn BlobStore, root: Digest, contexts: &[v1::SourceContext]) -> Result<Self, Error> {
        let (mut tree, directories) = expand_noting(store, root).await?;
        let (contexts, beside) = take_contexts(&mut tree, contexts)?;
        let beside = beside.map(|tree| Box::new(Self::of(root, tree)));
        Ok(Self { contexts, beside, directories: Arc::new(directories), ..Self::of(root, tree) })
    }

    fn of(root: Digest, tree: Tree) -> Self {
        let mut all = flatten(&tree);
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let (paths, entries): (Vec<String>, Vec<Entry>) = all.into_iter().unzip();
        let planned = MemorySource::with_paths(paths, BTreeMap::new());
        let (entries, tree) = (Arc::new(entries), Arc::new(tree));
        let (directories, contexts) = (Arc::default(), SentContexts::new());
        Self { planned, entries, root, tree, directories, contexts, beside: None }
    }

    /// The digests of all its directories, each once.
    pub fn directories(&self) -> &[Digest] {
        &self.directories
    }

    /// Every path of a file or symbolic link, sorted.
    pub fn paths(&self) -> &[String] {
        self.planned.paths()
    }

    /// The file or symbolic link at a path.
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries.get(self.paths().binary_search_by(|one| one.as_str().cmp(path)).ok()?)
    }

    /// All files and symbolic links, in the order of their paths.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.paths().iter().map(String::as_str).zip(self.entries.iter())
    }

    /// Calls `question` until every file that it reads has been supplied, and returns its answer.
    ///
    /// # Errors
    /// [`Error::Manifest`] and [`Error::Manifests`] if it reads more than a planner may.
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

    /// The file at a path, following the tree's symbolic links.
    fn file(&self, path: &str) -> Option<Digest> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.entry(&path)? {
                Entry::File { digest, .. } => return Some(*digest),
                Entry::Symlink { target } => path = plan::join(plan::parent(&path), target)?,
                Entry::Directory(_) | Entry::Sealed { .. } => return None,
            }
        }
        None
    }
}

impl SourceTree {
    /// Those of its blobs, and of these times, that are not in the store. The others are marked as used now.
    pub async fn missing(
        &self,
        store: &dyn BlobStore,
        times: Option<Digest>,
    ) -> Result<Vec<Digest>, kiln_store::Error> {
        let digest = |entry: &Entry| if let Entry::File { digest, .. } = entry { Some(*digest) } else { None };
        let beside = self.beside.iter().flat_map(|beside| beside.entries.iter());
        let files = self.entries.iter().chain(beside).filter_map(digest);
        let all: Vec<Digest> = self.directories.iter().copied().chain(files).chain(times).collect();
        store.find_missing(&all).await
    }
}

/// Takes the contexts out of a tree: each, and the tree that has them all.
fn take_contexts(tree: &mut Tree, wanted: &[v1::SourceContext]) -> Result<(SentContexts, Option<Tree>), Error> {
    let mut found = SentContexts::new();
    for v1::SourceContext { path, file, place } in wanted {
        let below = place.strip_prefix(CONTEXTS).is_some_and(|rest| rest.starts_with('/'));
        match tree.get(place) {
            Some(Entry::Directory(tree)) if below => {
                let context = SentContext { place: place.clone(), tree: tree.clone() };
                found.insert((file.clone(), path.clone()), context);
            }
            _ => return Err(Error::Context { place: place.clone() }),
        }
    }
    let taken = if wanted.is_empty() { None } else { tree.entries.remove_entry(CONTEXTS) };
    Ok((found, taken.map(|(name, entry)| Tree { entries: [(name, entry)].into(), mode: None })))
}
