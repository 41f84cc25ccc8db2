//! An action's input tree before anyone fetches it: every blob is there, every name is lawful, and laid out it stays within
//! what the farm takes.
//!
//! Invariant: memory is bounded by [`shape::MAX_ENTRIES`] for a tree under way, and by [`REMEMBERED_DIGESTS`] for those that
//! are remembered, however many files a hostile tree names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use kiln_proto::shape::{self, Node};
use parking_lot::Mutex;
use tonic::Status;

use super::prepare::{invalid, missing, required};
use kiln_store::Stores;

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

#[derive(Debug, Default)]
struct Known {
    trees: HashMap<Digest, (u64, Arc<Walked>)>,
    digests: usize,
    clock: u64,
}

impl Known {
    fn get(&mut self, root: &Digest) -> Option<Arc<Walked>> {
        self.clock += 1;
        let clock = self.clock;
        self.trees.get_mut(root).map(|(used, walked)| {
            *used = clock;
            walked.clone()
        })
    }

    fn remember(&mut self, root: Digest, walked: Arc<Walked>) {
        self.clock += 1;
        self.digests += walked.digests.len();
        if let Some((_, before)) = self.trees.insert(root, (self.clock, walked)) {
            self.digests -= before.digests.len();
        }
        while self.trees.len() > REMEMBERED_TREES || (self.digests > REMEMBERED_DIGESTS && self.trees.len() > 1) {
            let oldest = self.trees.iter().min_by_key(|(_, (used, _))| *used).map(|(digest, _)| *digest);
            let Some((_, gone)) = oldest.and_then(|digest| self.trees.remove(&digest)) else { return };
            self.digests -= gone.digests.len();
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
    pub(super) async fn check(&self, root: &Digest) -> Result<Arc<Walked>, Status> {
        let walked = self.walked(root).await?;
        let absent = self.stores.blobs.find_missing(&walked.digests).await?;
        if !absent.is_empty() {
            return Err(missing(&absent));
        }
        self.known.lock().remember(*root, walked.clone());
        Ok(walked)
    }

    /// The tree's blobs, of which some may be absent by now.
    pub(super) async fn walked(&self, root: &Digest) -> Result<Arc<Walked>, Status> {
        let known = self.known.lock().get(root);
        match known {
            Some(walked) => Ok(walked),
            None => Ok(Arc::new(self.walk(root).await?)),
        }
    }

    async fn walk(&self, root: &Digest) -> Result<Walked, Status> {
        let (mut seen, mut absent, mut level) = (HashSet::from([*root]), HashSet::new(), vec![*root]);
        let (mut nodes, mut directories, mut entries) = (HashMap::new(), Vec::new(), 0);
        while !level.is_empty() {
            let mut next = Vec::new();
            for digest in level {
                let Some(directory) = self.directory(&digest).await? else {
                    absent.insert(digest);
                    continue;
                };
                if directories.len() < AFFINITY_DIRECTORIES {
                    directories.push(u64::from_le_bytes(digest.hash[..8].try_into().unwrap_or_default()));
                }
                let node = node(root, &directory, &mut seen, &mut next)?;
                // Each directory stands in the tree at least once, so this many there are at least.
                entries += node.entries;
                if entries > shape::MAX_ENTRIES {
                    return Err(too_large(&shape::Error::Entries));
                }
                nodes.insert(digest, node);
            }
            level = next;
        }
        shape::measure(root, &nodes).map_err(|error| too_large(&error))?;
        if absent.is_empty() {
            return Ok(Walked { digests: seen.into_iter().collect(), directories });
        }
        let files: Vec<Digest> = seen.into_iter().filter(|digest| !absent.contains(digest)).collect();
        let mut absent: Vec<Digest> = absent.into_iter().collect();
        absent.extend(self.stores.blobs.find_missing(&files).await?);
        Err(missing(&absent))
    }

    /// None where it is absent.
    pub(super) async fn directory(&self, digest: &Digest) -> Result<Option<reapi::Directory>, Status> {
        shape::check_size(digest).map_err(|error| too_large(&error))?;
        match self.stores.blobs.get(digest).await {
            Ok(data) => Ok(Some(shape::decode(digest, &data).map_err(|error| too_large(&error))?)),
            Err(kiln_store::Error::NotFound { .. }) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }
}

fn too_large(error: &shape::Error) -> Status {
    invalid(format!("inputs: {error}"))
}

/// A directory's own measures; adds what it names to `seen`, and the directories that are new to `next`.
fn node(
    root: &Digest,
    directory: &reapi::Directory,
    seen: &mut HashSet<Digest>,
    next: &mut Vec<Digest>,
) -> Result<Node, Status> {
    let longest = check_names(directory)?;
    let entries = directory.files.len() + directory.directories.len() + directory.symlinks.len();
    for file in &directory.files {
        seen.insert(required(root.function, file.digest.as_ref(), "a file's digest")?);
    }
    let mut below = Vec::with_capacity(directory.directories.len());
    for node in &directory.directories {
        let digest = required(root.function, node.digest.as_ref(), "a directory's digest")?;
        below.push((digest, node.name.len()));
        if seen.insert(digest) {
            next.push(digest);
        }
    }
    Ok(Node { entries: entries as u64, longest, below })
}

/// Bytes of the longest name, where all of them are lawful.
fn check_names(directory: &reapi::Directory) -> Result<usize, Status> {
    let files = directory.files.iter().map(|node| &node.name);
    let directories = directory.directories.iter().map(|node| &node.name);
    let links = directory.symlinks.iter().map(|node| &node.name);
    let (mut seen, mut longest) = (HashSet::new(), 0);
    for name in files.chain(directories).chain(links) {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(invalid(format!("invalid name `{}` of a directory entry", name.escape_debug())));
        }
        if !seen.insert(name) {
            return Err(invalid(format!("`{name}` is in one input directory twice")));
        }
        longest = longest.max(name.len());
    }
    Ok(longest)
}
