//! Whether a cached result is whole: every blob it names is there.
//!
//! Invariant: a tree is read once, however often a result names it, and one after the other; it is decoded only where it is no larger
//! than any that can be laid out, so that what a result costs is bounded by what it may name.

use std::collections::HashSet;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::shape::{self, MAX_ELEMENTS, MAX_ENTRIES};
use kiln_proto::{elements, reapi};
use tokio::sync::Semaphore;

use super::{BlobStore, Error};

/// Directories fetched at once.
const CONCURRENCY: usize = 8;

/// Largest tree or directory that is read, in bytes. A result with a larger one, or with more entries than a tree may have, is not cached.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;
/// Blobs that a result names, with those that its trees name.
const MAX_NAMED: usize = 2 * MAX_ENTRIES as usize;
/// Trees that are decoded at once, of all results together.
static DECODING: Semaphore = Semaphore::const_new(4);

/// A result that names what is not to be had, or what is no digest or directory at all.
struct Broken;

type Digests = Vec<Digest>;

/// Where the trees and directories that a result names are read.
#[async_trait]
pub(super) trait Source: Send + Sync {
    /// The whole blob, checked against its digest.
    async fn get(&self, digest: &Digest) -> Result<Bytes, Error>;
}

#[async_trait]
impl<T: BlobStore + ?Sized> Source for T {
    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        BlobStore::get(self, digest).await
    }
}

/// Whether every blob that `result` names is present; extends the life of them all.
pub(super) async fn is_whole(
    blobs: &dyn BlobStore,
    function: DigestFunction,
    result: &reapi::ActionResult,
) -> Result<bool, Error> {
    match named_by(blobs, function, result).await? {
        Some(digests) => Ok(blobs.find_missing(&digests).await?.is_empty()),
        None => Ok(false),
    }
}

/// Every blob that `result` names, with those that its trees and directories name; none where one of these is not to be had, or
/// is no such message. The leaves may be absent.
pub(super) async fn named_by<S: Source + ?Sized>(
    blobs: &S,
    function: DigestFunction,
    result: &reapi::ActionResult,
) -> Result<Option<Vec<Digest>>, Error> {
    let Ok((mut named, trees, roots)) = named(function, result) else { return Ok(None) };
    let trees: HashSet<Digest> = trees.into_iter().collect();
    for tree in trees {
        named.push(tree);
        let Some(found) = in_tree(blobs, function, &tree).await? else { return Ok(None) };
        named.extend(found);
        if named.len() > MAX_NAMED {
            return Ok(None);
        }
    }
    let mut seen: HashSet<Digest> = HashSet::new();
    let mut level: Vec<Digest> = roots.into_iter().filter(|digest| seen.insert(*digest)).collect();
    while !level.is_empty() {
        if seen.len() + named.len() > MAX_NAMED {
            return Ok(None);
        }
        let Some(directories) = fetch(blobs, &level).await? else { return Ok(None) };
        level.clear();
        for directory in directories {
            let (Ok(files), Ok(below)) = (files(function, &directory), directories_in(function, &directory)) else {
                return Ok(None);
            };
            named.extend(files);
            level.extend(below.into_iter().filter(|digest| seen.insert(*digest)));
        }
    }
    seen.extend(named);
    Ok(Some(seen.into_iter().collect()))
}

/// The files of a tree; none where it is not to be had, or is none.
async fn in_tree<S: Source + ?Sized>(
    blobs: &S,
    function: DigestFunction,
    digest: &Digest,
) -> Result<Option<Digests>, Error> {
    if digest.size > MAX_MESSAGE_BYTES {
        return Ok(None);
    }
    let Ok(_turn) = DECODING.acquire().await else { return Ok(None) };
    let data = match blobs.get(digest).await {
        Ok(data) => data,
        Err(error) if error.is_absent() => return Ok(None),
        Err(error) => return Err(error),
    };
    let Ok(tree) = elements::decode::<reapi::Tree>(&elements::TREE, &data, MAX_ELEMENTS) else {
        return Ok(None);
    };
    drop(data);
    let mut named = Vec::new();
    for directory in tree.root.iter().chain(&tree.children) {
        match files(function, directory) {
            Ok(files) => named.extend(files),
            Err(Broken) => return Ok(None),
        }
    }
    Ok(Some(named))
}

/// Files, trees and root directories that a result names itself.
fn named(function: DigestFunction, result: &reapi::ActionResult) -> Result<(Digests, Digests, Digests), Broken> {
    let one = |digest: Option<&reapi::Digest>| Digest::required(function, digest).map_err(|_| Broken);
    let (mut leaves, mut trees, mut roots) = (Vec::new(), Vec::new(), Vec::new());
    for file in &result.output_files {
        leaves.push(one(file.digest.as_ref())?);
    }
    for digest in [&result.stdout_digest, &result.stderr_digest].into_iter().flatten() {
        leaves.push(one(Some(digest))?);
    }
    for directory in &result.output_directories {
        if directory.tree_digest.is_none() && directory.root_directory_digest.is_none() {
            return Err(Broken);
        }
        if directory.tree_digest.is_some() {
            trees.push(one(directory.tree_digest.as_ref())?);
        }
        if directory.root_directory_digest.is_some() {
            roots.push(one(directory.root_directory_digest.as_ref())?);
        }
    }
    Ok((leaves, trees, roots))
}

fn files(function: DigestFunction, directory: &reapi::Directory) -> Result<Digests, Broken> {
    let digests = directory.files.iter().map(|file| Digest::required(function, file.digest.as_ref()));
    digests.collect::<Result<_, _>>().map_err(|_| Broken)
}

fn directories_in(function: DigestFunction, directory: &reapi::Directory) -> Result<Digests, Broken> {
    let digests = directory.directories.iter().map(|below| Digest::required(function, below.digest.as_ref()));
    digests.collect::<Result<_, _>>().map_err(|_| Broken)
}

/// Fetches directories; none where one is absent or is none.
async fn fetch(blobs: &(impl Source + ?Sized), digests: &[Digest]) -> Result<Option<Vec<reapi::Directory>>, Error> {
    if digests.iter().any(|digest| digest.size > MAX_MESSAGE_BYTES) {
        return Ok(None);
    }
    let fetched: Result<Vec<_>, Error> = stream::iter(digests.to_vec())
        .map(|digest| async move {
            // The empty directory is everywhere.
            let data = if digest.is_empty() { Bytes::new() } else { blobs.get(&digest).await? };
            Ok(shape::decode(&digest, &data))
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await;
    match fetched {
        Ok(decoded) => Ok(decoded.into_iter().collect::<Result<_, _>>().ok()),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}
