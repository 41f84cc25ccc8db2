//! An action's input tree before anyone fetches it: every blob is there, every name is lawful, and laid out it stays within
//! what the farm takes.
//!
//! Invariant: memory is bounded by [`shape::MAX_ENTRIES`] for a tree under way, and by [`REMEMBERED_DIGESTS`] for those that
//! are remembered, however many files a hostile tree names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hashlink::LruCache;
use kiln_proto::digest::Digest;
use kiln_store::Stores;
use kiln_store::trees::{self, Stored};
use kiln_trees::walk::{self, Blobs, Decoded, Found, Walk};
use kiln_trees::{Entry, Tree, shape};
use parking_lot::Mutex;
use tonic::Status;

use super::prepare::{invalid, missing};

/// Input trees whose digests are remembered, so that an unchanged tree is not walked again.
const REMEMBERED_TREES: usize = 64;
/// Digests of all remembered trees together.
const REMEMBERED_DIGESTS: usize = 2_000_000;
/// Input directories named to the scheduler for affinity.
const AFFINITY_DIRECTORIES: usize = 32;

/// All blobs that a tree consists of.
#[derive(Debug)]
pub(super) struct Walked {
    digests: Vec<Digest>,
    /// Hashes of the directories nearest to the root, for affinity.
    pub(super) directories: Vec<u64>,
}

impl Walked {
    /// Every blob once, the tree's root included.
    pub(super) fn digests(&self) -> &[Digest] {
        &self.digests
    }
}

#[derive(Debug)]
struct Known {
    trees: LruCache<Digest, Arc<Walked>>,
    digests: usize,
}

impl Default for Known {
    fn default() -> Self {
        Self { trees: LruCache::new_unbounded(), digests: 0 }
    }
}

impl Known {
    fn remember(&mut self, root: Digest, walked: Arc<Walked>) {
        self.digests += walked.digests.len();
        if let Some(before) = self.trees.insert(root, walked) {
            self.digests -= before.digests.len();
        }
        while self.trees.len() > REMEMBERED_TREES || (self.digests > REMEMBERED_DIGESTS && self.trees.len() > 1) {
            let Some((_, oldest)) = self.trees.remove_lru() else { return };
            self.digests -= oldest.digests.len();
        }
    }
}

/// Checks input trees against a store.
#[derive(Debug)]
pub(super) struct InputTrees {
    stores: Stores,
    known: Mutex<Known>,
}

impl InputTrees {
    pub(super) fn new(stores: Stores) -> Self {
        Self { stores, known: Mutex::default() }
    }

    /// Every blob of the tree is there; else `FAILED_PRECONDITION` names all that are known to miss.
    pub(super) async fn check(
        &self,
        root: &Digest,
        known: Option<&HashMap<Digest, Bytes>>,
    ) -> Result<Arc<Walked>, Status> {
        let walked = self.walked_with(root, known).await?;
        let absent = self.stores.blobs.find_missing(&walked.digests).await?;
        if !absent.is_empty() {
            return Err(missing(&absent));
        }
        self.known.lock().remember(*root, walked.clone());
        Ok(walked)
    }

    /// The blobs of a tree that is about to be checked, which is not read again for that.
    pub(super) async fn walked_ahead(&self, root: &Digest) -> Result<Arc<Walked>, Status> {
        let walked = self.walked(root).await?;
        self.known.lock().remember(*root, walked.clone());
        Ok(walked)
    }

    /// The tree's blobs, of which some may be absent by now.
    pub(super) async fn walked(&self, root: &Digest) -> Result<Arc<Walked>, Status> {
        self.walked_with(root, None).await
    }

    async fn walked_with(
        &self,
        root: &Digest,
        directories: Option<&HashMap<Digest, Bytes>>,
    ) -> Result<Arc<Walked>, Status> {
        let known = self.known.lock().trees.get(root).cloned();
        match known {
            Some(walked) => Ok(walked),
            None => Ok(Arc::new(self.walk(root, directories).await?)),
        }
    }

    /// One directory, with those below it sealed.
    pub(super) async fn directory(&self, digest: &Digest) -> Result<Tree, Status> {
        match trees::directory(&*self.stores.blobs, digest).await {
            Ok(tree) => Ok(tree),
            Err(trees::Error::Malformed(error)) => Err(unusable(&error)),
            Err(trees::Error::Store(kiln_store::Error::NotFound { .. })) => Err(missing(&[*digest])),
            Err(trees::Error::Store(error)) => Err(error.into()),
        }
    }

    async fn walk(&self, root: &Digest, directories: Option<&HashMap<Digest, Bytes>>) -> Result<Walked, Status> {
        let (mut digests, mut absent) = (HashSet::new(), Vec::new());
        let (mut nodes, mut topmost) = (HashMap::new(), Vec::new());
        let blobs = Decoded::<_, Tree>::new(Partly { directories, stored: Stored(&*self.stores.blobs) });
        let mut walk = Walk::new(blobs, [*root]);
        loop {
            let (digest, tree) = match walk.next().await {
                Ok(Some((digest, Found::Directory(tree)))) => (digest, tree),
                Ok(Some((digest, Found::Absent))) => {
                    absent.push(digest);
                    continue;
                }
                Ok(Some((_, Found::Malformed(error)))) => return Err(unusable(&error)),
                Ok(None) => break,
                Err(walk::Error::Entries) => return Err(unusable(&shape::Error::Entries)),
                Err(walk::Error::Source(error)) => return Err(error.into()),
            };
            if topmost.len() < AFFINITY_DIRECTORIES {
                topmost.push(u64::from_le_bytes(digest.hash[..8].try_into().unwrap_or_default()));
            }
            let file = |entry: &Entry| if let Entry::File { digest, .. } = entry { Some(*digest) } else { None };
            digests.extend(tree.entries.values().filter_map(file));
            digests.insert(digest);
            nodes.insert(digest, tree.node());
        }
        shape::measure(root, &nodes).map_err(|error| unusable(&error))?;
        let digests: Vec<Digest> = digests.into_iter().collect();
        if absent.is_empty() {
            return Ok(Walked { digests, directories: topmost });
        }
        absent.extend(self.stores.blobs.find_missing(&digests).await?);
        Err(missing(&absent))
    }
}

/// A store's blobs, of which some are in memory.
struct Partly<'a> {
    directories: Option<&'a HashMap<Digest, Bytes>>,
    stored: Stored<&'a dyn kiln_store::BlobStore>,
}

#[async_trait]
impl Blobs for Partly<'_> {
    type Error = kiln_store::Error;

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, kiln_store::Error> {
        match self.directories.and_then(|directories| directories.get(digest)) {
            Some(data) => Ok(Some(data.clone())),
            None => self.stored.get(digest).await,
        }
    }
}

fn unusable(error: &impl std::fmt::Display) -> Status {
    invalid(format!("inputs: {error}"))
}
