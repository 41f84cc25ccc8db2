//! Whether a cached result is whole: every blob it names is there.

use std::collections::HashSet;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use prost::Message;

use super::{BlobStore, Error};

/// Trees and directories fetched at once.
const CONCURRENCY: usize = 8;

/// Largest tree or directory that is read, in bytes: some millions of entries. A result with a larger one is not cached.
const MAX_MESSAGE_BYTES: u64 = 256 << 20;

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
    named.extend(&trees);
    let Some(found): Option<Vec<reapi::Tree>> = fetch(blobs, &trees).await? else { return Ok(None) };
    for tree in found {
        for directory in tree.root.iter().chain(&tree.children) {
            match files(function, directory) {
                Ok(files) => named.extend(files),
                Err(Broken) => return Ok(None),
            }
        }
    }
    let mut seen: HashSet<Digest> = HashSet::new();
    let mut level: Vec<Digest> = roots.into_iter().filter(|digest| seen.insert(*digest)).collect();
    while !level.is_empty() {
        let Some(directories): Option<Vec<reapi::Directory>> = fetch(blobs, &level).await? else { return Ok(None) };
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

/// Fetches messages; none where one is absent or is no such message.
async fn fetch<M: Message + Default>(
    blobs: &(impl Source + ?Sized),
    digests: &[Digest],
) -> Result<Option<Vec<M>>, Error> {
    if digests.iter().any(|digest| digest.size > MAX_MESSAGE_BYTES) {
        return Ok(None);
    }
    let fetched: Result<Vec<_>, Error> = stream::iter(digests.to_vec())
        .map(|digest| async move {
            // The empty directory is everywhere.
            if digest.is_empty() { Ok(Bytes::new()) } else { blobs.get(&digest).await }
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await;
    match fetched {
        Ok(encoded) => Ok(encoded.into_iter().map(M::decode).collect::<Result<_, _>>().ok()),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}
