//! Whether a cached result is whole: every blob it names is there.
//!
//! Invariant: a tree is read once, however often results name it while it is remembered; it is decoded only where it is no larger
//! than any that can be laid out, so that what a result costs is bounded by what it may name.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::possession::Named;
use kiln_proto::{elements, reapi};
use kiln_trees::shape::{self, MAX_ELEMENTS, MAX_ENTRIES};
use kiln_trees::walk::{self, Blobs, Decoded, Directory, Found, Malformed, Walk};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use super::trees::Stored;
use super::{BlobStore, Error};

/// Largest tree that is read, in bytes. A result with a larger one, or with more entries than a tree may have, is not cached.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;
/// Blobs that a result names, with those that its trees name.
const MAX_NAMED: usize = 2 * MAX_ENTRIES as usize;
/// Digests of trees that each tenant's stores remember, some 48 bytes each: 12 MB.
const MAX_REMEMBERED: u64 = 250_000;
/// Trees that are remembered, roughly: so few that the cache is not divided, for a part of it could not hold a large tree.
const REMEMBERED_TREES: usize = 32;
/// Trees that are decoded at once, of all results together.
static DECODING: Semaphore = Semaphore::const_new(4);

/// A result that names what is not to be had, or what is no digest or directory at all.
struct Broken;

type Digests = Vec<Digest>;

/// What a directory names: all that a result needs of it.
struct Listed {
    files: Digests,
    below: Digests,
}

impl Directory for Listed {
    fn decode(digest: &Digest, data: &Bytes) -> Result<Self, Malformed> {
        let message = shape::decode(digest, data)?;
        let malformed = |source: kiln_proto::digest::Error| Malformed::Tree { digest: *digest, source: source.into() };
        let required = |named: Option<&reapi::Digest>| Digest::required(digest.function, named).map_err(malformed);
        let files = message.files.iter().map(|file| required(file.digest.as_ref())).collect::<Result<_, _>>()?;
        let below =
            message.directories.iter().map(|below| required(below.digest.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { files, below })
    }

    fn below(&self) -> Vec<Digest> {
        self.below.clone()
    }

    fn entries(&self) -> u64 {
        self.files.len().saturating_add(self.below.len()) as u64
    }
}

/// What trees name, by their root directories. A digest determines everything below it, so this is never out of date: whether those
/// blobs are present is looked up each time.
#[derive(Debug)]
pub(super) struct Closures(Cache<Digest, Arc<[Digest]>, Length>);

#[derive(Debug, Clone)]
struct Length;

impl Weighter<Digest, Arc<[Digest]>> for Length {
    fn weight(&self, _root: &Digest, named: &Arc<[Digest]>) -> u64 {
        (named.len() as u64).saturating_add(1)
    }
}

impl Default for Closures {
    fn default() -> Self {
        Self(Cache::with_weighter(REMEMBERED_TREES, MAX_REMEMBERED, Length))
    }
}

/// Whether every blob that `result` names is present; extends the life of them all.
pub(super) async fn is_whole(
    blobs: &dyn BlobStore,
    closures: &Closures,
    function: DigestFunction,
    result: &reapi::ActionResult,
) -> Result<bool, Error> {
    let Ok(named) = named(function, result) else { return Ok(false) };
    match named_in(Stored(blobs), &named, Some(closures)).await? {
        Some(digests) => Ok(blobs.find_missing(&digests).await?.is_empty()),
        None => Ok(false),
    }
}

/// Every blob that `result` names, with those that its trees and directories name; none where one of these is not to be had, or
/// is no such message. The leaves may be absent.
pub(super) async fn named_by(
    blobs: impl Blobs<Error = Error> + Copy,
    function: DigestFunction,
    result: &reapi::ActionResult,
) -> Result<Option<Vec<Digest>>, Error> {
    let Ok(named) = named(function, result) else { return Ok(None) };
    named_in(blobs, &named, None).await
}

/// As [`named_by`], of what a result names itself. Directories of trees that `closures` knows are not read, and may be absent like leaves.
pub(super) async fn named_in(
    blobs: impl Blobs<Error = Error> + Copy,
    itself: &Named,
    closures: Option<&Closures>,
) -> Result<Option<Vec<Digest>>, Error> {
    let mut named = itself.files.clone();
    for tree in itself.trees.iter().collect::<HashSet<_>>() {
        named.push(*tree);
        let Some(found) = in_tree(blobs, tree).await? else { return Ok(None) };
        named.extend(found);
        if named.len() > MAX_NAMED {
            return Ok(None);
        }
    }
    let Some(mut left) = MAX_NAMED.checked_sub(named.len()) else { return Ok(None) };
    for root in &itself.directories {
        let below = match closures.and_then(|closures| closures.0.get(root)) {
            Some(known) if known.len() <= left => known,
            _ => {
                let Some(found) = below(blobs, *root, left as u64).await? else { return Ok(None) };
                let found: Arc<[Digest]> = found.into();
                if let Some(closures) = closures {
                    closures.0.insert(*root, found.clone());
                }
                found
            }
        };
        left = left.saturating_sub(below.len());
        named.extend(below.iter());
    }
    let distinct: HashSet<Digest> = named.into_iter().collect();
    Ok(Some(distinct.into_iter().collect()))
}

/// A directory with everything below it; none where a directory is not to be had, or there are more than `most` entries.
async fn below(blobs: impl Blobs<Error = Error> + Copy, root: Digest, most: u64) -> Result<Option<Vec<Digest>>, Error> {
    let mut walk = Walk::new(Decoded::<_, Listed>::new(blobs), [root]).with_max_entries(most);
    let mut named = HashSet::new();
    loop {
        match walk.next().await {
            Ok(Some((digest, Found::Directory(directory)))) => {
                named.insert(digest);
                named.extend(directory.files);
            }
            Ok(Some((_, Found::Absent | Found::Malformed(_)))) | Err(walk::Error::Entries) => return Ok(None),
            Ok(None) => return Ok(Some(named.into_iter().collect())),
            Err(walk::Error::Source(error)) => return Err(error),
        }
    }
}

/// The files of a tree; none where it is not to be had, or is none.
async fn in_tree(blobs: impl Blobs<Error = Error>, digest: &Digest) -> Result<Option<Digests>, Error> {
    if digest.size > MAX_MESSAGE_BYTES {
        return Ok(None);
    }
    let Ok(_turn) = DECODING.acquire().await else { return Ok(None) };
    let Some(data) = blobs.get(digest).await? else { return Ok(None) };
    let Ok(tree) = elements::decode::<reapi::Tree>(&elements::TREE, &data, MAX_ELEMENTS) else {
        return Ok(None);
    };
    drop(data);
    let mut named = Vec::new();
    for directory in tree.root.iter().chain(&tree.children) {
        match files(digest.function, directory) {
            Ok(files) => named.extend(files),
            Err(Broken) => return Ok(None),
        }
    }
    Ok(Some(named))
}

/// What a result needs to be whole. The list of its calls' keys explains it, and may be gone.
fn named(function: DigestFunction, result: &reapi::ActionResult) -> Result<Named, Broken> {
    let is_nowhere = |directory: &reapi::OutputDirectory| {
        directory.tree_digest.is_none() && directory.root_directory_digest.is_none()
    };
    if result.output_directories.iter().any(is_nowhere) {
        return Err(Broken);
    }
    Named::of_outputs(function, result).map_err(|_| Broken)
}

fn files(function: DigestFunction, directory: &reapi::Directory) -> Result<Digests, Broken> {
    let digests = directory.files.iter().map(|file| Digest::required(function, file.digest.as_ref()));
    digests.collect::<Result<_, _>>().map_err(|_| Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_tree_is_remembered_on_a_machine_of_any_size() {
        let closures = Closures::default();
        let root = DigestFunction::Sha256.digest(b"root");
        closures.0.insert(root, vec![root; 200_000].into());
        assert!(closures.0.get(&root).is_some());
        assert_eq!(closures.0.num_shards(), 1);
    }
}
