//! The blobs that a cached result names: its files, its trees and directories, and their contents.

use std::collections::HashMap;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use prost::Message;

use kiln_store::{BlobStore, Error};

/// Distinct blobs with their sizes, identified by eight bytes of a hash. That is enough to sum sizes, and a full digest
/// for each file of thousands of step results would take a gigabyte.
pub(super) type Blobs = HashMap<u64, u64>;

/// The blobs of a result; `None` if it is too incomplete to be read.
pub(super) async fn blobs(
    store: &dyn BlobStore,
    function: DigestFunction,
    result: &reapi::ActionResult,
) -> Result<Option<Blobs>, Error> {
    let mut found = Blobs::new();
    result.output_files.iter().for_each(|file| add(&mut found, function, file.digest.as_ref()));
    for output in &result.output_directories {
        let whole = match (&output.tree_digest, &output.root_directory_digest) {
            (Some(tree), root) => {
                add(&mut found, function, Some(tree));
                add(&mut found, function, root.as_ref());
                of_tree(store, function, tree, &mut found).await?
            }
            (None, Some(root)) => of_directory(store, function, root, &mut found).await?,
            (None, None) => false,
        };
        if !whole {
            return Ok(None);
        }
    }
    Ok(Some(found))
}

async fn of_tree(
    store: &dyn BlobStore,
    function: DigestFunction,
    tree: &reapi::Digest,
    found: &mut Blobs,
) -> Result<bool, Error> {
    let Some(tree) = message::<reapi::Tree>(store, function, tree).await? else { return Ok(false) };
    tree.root.iter().chain(&tree.children).for_each(|directory| entries(function, directory, found));
    Ok(true)
}

async fn of_directory(
    store: &dyn BlobStore,
    function: DigestFunction,
    root: &reapi::Digest,
    found: &mut Blobs,
) -> Result<bool, Error> {
    let mut waiting = vec![root.clone()];
    add(found, function, Some(root));
    while let Some(digest) = waiting.pop() {
        let Some(directory) = message::<reapi::Directory>(store, function, &digest).await? else { return Ok(false) };
        let below = directory.directories.iter().filter_map(|below| below.digest.clone());
        // A directory in the map was read, or waits to be.
        waiting.extend(
            below.filter(|digest| !Digest::from_wire(function, digest).is_ok_and(|d| found.contains_key(&id(&d)))),
        );
        entries(function, &directory, found);
    }
    Ok(true)
}

fn entries(function: DigestFunction, directory: &reapi::Directory, found: &mut Blobs) {
    directory.files.iter().for_each(|file| add(found, function, file.digest.as_ref()));
    directory.directories.iter().for_each(|below| add(found, function, below.digest.as_ref()));
}

fn add(found: &mut Blobs, function: DigestFunction, digest: Option<&reapi::Digest>) {
    if let Ok(digest) = Digest::required(function, digest) {
        found.insert(id(&digest), digest.size);
    }
}

fn id(digest: &Digest) -> u64 {
    u64::from_le_bytes(digest.hash[..8].try_into().unwrap_or_default())
}

/// A message from the store; `None` if it is missing or invalid.
async fn message<M: Message + Default>(
    store: &dyn BlobStore,
    function: DigestFunction,
    digest: &reapi::Digest,
) -> Result<Option<M>, Error> {
    let Ok(digest) = Digest::from_wire(function, digest) else { return Ok(None) };
    match store.get(&digest).await {
        Ok(data) => Ok(M::decode(data).ok()),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}
