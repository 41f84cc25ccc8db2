//! Merkle trees in the store: read, laid over one another, and written.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_trees::walk::{Found, Malformed, Source};
use kiln_trees::{Blobs, Decoded, Encoded, closure};

pub use kiln_trees::overlay::flatten;
pub use kiln_trees::tree::Tree;

use crate::BlobStore;

/// A tree that cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] crate::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl From<closure::Error<crate::Error>> for Error {
    fn from(error: closure::Error<crate::Error>) -> Self {
        match error {
            closure::Error::Absent(digest) => Self::Store(crate::Error::NotFound { digest }),
            closure::Error::Malformed(malformed) => Self::Malformed(malformed),
            closure::Error::Source(error) => Self::Store(error),
        }
    }
}

/// A store's blobs, for a walk.
#[derive(Debug, Clone, Copy)]
pub struct Stored<B>(pub B);

#[async_trait]
impl<S: BlobStore + ?Sized> Blobs for Stored<&S> {
    type Error = crate::Error;

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, crate::Error> {
        present(self.0.get(digest).await)
    }
}

#[async_trait]
impl<S: BlobStore + ?Sized> Blobs for Stored<Arc<S>> {
    type Error = crate::Error;

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, crate::Error> {
        present(self.0.get(digest).await)
    }
}

/// What was read; none where it is absent, which is not an error to a walk.
pub(crate) fn present(read: Result<Bytes, crate::Error>) -> Result<Option<Bytes>, crate::Error> {
    match read {
        Ok(data) => Ok(Some(data)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The directories of a store.
pub fn directories(store: &dyn BlobStore) -> Decoded<Stored<&dyn BlobStore>, Arc<Tree>> {
    Decoded::new(Stored(store))
}

/// Reads one directory; those below it are sealed.
pub async fn directory(store: &dyn BlobStore, digest: &Digest) -> Result<Tree, Error> {
    Ok(kiln_trees::overlay::read(&directories(store), *digest).await?)
}

/// Reads a tree with everything below it.
///
/// # Errors
/// [`Error::Malformed`] where it would be larger than the farm allows, before it is laid out.
pub async fn expand(store: &dyn BlobStore, digest: Digest) -> Result<Tree, Error> {
    Ok(kiln_trees::overlay::expand(directories(store), digest).await?)
}

/// As [`expand`]; also returns the digests of all its directories, each once.
///
/// # Errors
/// As those of [`expand`].
pub async fn expand_noting(store: &dyn BlobStore, digest: Digest) -> Result<(Tree, Vec<Digest>), Error> {
    let noting = Noting { directories: directories(store), read: Mutex::default() };
    let tree = kiln_trees::overlay::expand(&noting, digest).await?;
    let read = noting.read.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((tree, read.into_iter().collect()))
}

/// Directories of a store, and which of them were read.
struct Noting<'a> {
    directories: Decoded<Stored<&'a dyn BlobStore>, Arc<Tree>>,
    read: Mutex<HashSet<Digest>>,
}

#[async_trait]
impl Source for &Noting<'_> {
    type Directory = Arc<Tree>;
    type Error = crate::Error;

    async fn read(&self, digests: &[Digest]) -> Result<Vec<Found<Arc<Tree>>>, crate::Error> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).extend(digests);
        self.directories.read(digests).await
    }
}

/// Reads what is sealed in a tree, everything below included.
///
/// # Errors
/// As those of [`expand`].
pub async fn expand_in_place(store: &dyn BlobStore, tree: &mut Tree) -> Result<(), Error> {
    Ok(kiln_trees::overlay::expand_in_place(directories(store), tree).await?)
}

/// Lays `over` onto `base`: files replace, directories merge. What is sealed is read where both have it.
pub async fn overlay(store: &dyn BlobStore, base: &mut Tree, over: Tree) -> Result<(), Error> {
    Ok(kiln_trees::overlay::overlay(&directories(store), base, over).await?)
}

/// Encodes a tree and stores its directories; returns its root.
pub async fn store_tree(store: &dyn BlobStore, function: DigestFunction, tree: &Tree) -> Result<Digest, crate::Error> {
    Ok(store_directories(store, function, tree).await?.0)
}

/// As [`store_tree`]; also returns the directories' messages.
pub async fn store_directories(
    store: &dyn BlobStore,
    function: DigestFunction,
    tree: &Tree,
) -> Result<(Digest, HashMap<Digest, Bytes>), crate::Error> {
    let mut encoded: HashMap<Digest, Bytes> = HashMap::new();
    let root = tree.encode(function, &mut |Encoded { digest, data }| drop(encoded.insert(digest, data.into())));
    let digests: Vec<Digest> = encoded.keys().copied().collect();
    for digest in store.find_missing(&digests).await? {
        if let Some(data) = encoded.get(&digest) {
            store.put(&digest, data.clone()).await?;
        }
    }
    Ok((root, encoded))
}
