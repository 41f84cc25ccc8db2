//! The walk over the directories of Merkle trees, breadth first.
//!
//! Invariants: each distinct directory is read once, in an order that depends on the trees alone; a directory's size is checked
//! before it is read, and the walk ends as soon as what it has found exceeds its bound, so a hostile tree costs no more than a
//! large one.

use std::collections::{HashSet, VecDeque};
use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::digest::Digest;
use kiln_proto::reapi;

use crate::shape::{self, MAX_ENTRIES};
use crate::tree::{self, Entry, Tree};

/// Directories read in one go.
const BATCH: usize = 1024;
/// Bytes of directories read in one go, where they are more than one.
const BATCH_BYTES: u64 = 16 << 20;
/// Blobs that [`Decoded`] reads at once.
const CONCURRENCY: usize = 16;

/// A directory that cannot be used.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Malformed {
    #[error(transparent)]
    Shape(#[from] shape::Error),
    #[error("directory `{digest}` is malformed: {source}")]
    Tree { digest: Digest, source: tree::Error },
    #[error("directory `{digest}` cannot be part of a root file system: {reason}")]
    Root { digest: Digest, reason: String },
}

/// One directory of a tree, without those below it.
pub trait Directory: Send + Sized {
    /// Reads a directory from its blob.
    ///
    /// # Errors
    /// Where the blob is not an acceptable directory.
    fn decode(digest: &Digest, data: &Bytes) -> Result<Self, Malformed>;

    /// The directories in it.
    fn below(&self) -> Vec<Digest>;

    /// What it adds to the bound of a walk.
    fn entries(&self) -> u64;
}

impl Directory for Tree {
    fn decode(digest: &Digest, data: &Bytes) -> Result<Self, Malformed> {
        let message: reapi::Directory = shape::decode(digest, data)?;
        Self::from_directory(digest.function, &message).map_err(|source| Malformed::Tree { digest: *digest, source })
    }

    fn below(&self) -> Vec<Digest> {
        let sealed = |entry: &Entry| if let Entry::Sealed { digest } = entry { Some(*digest) } else { None };
        self.entries.values().filter_map(sealed).collect()
    }

    fn entries(&self) -> u64 {
        self.entries.len() as u64
    }
}

impl<D: Directory + Sync> Directory for Arc<D> {
    fn decode(digest: &Digest, data: &Bytes) -> Result<Self, Malformed> {
        D::decode(digest, data).map(Arc::new)
    }

    fn below(&self) -> Vec<Digest> {
        (**self).below()
    }

    fn entries(&self) -> u64 {
        (**self).entries()
    }
}

/// What is found under a directory's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<D> {
    /// The directory.
    Directory(D),
    /// The blob is not stored.
    Absent,
    /// The blob is not an acceptable directory.
    Malformed(Malformed),
}

/// Where a walk reads directories.
#[async_trait]
pub trait Source: Send + Sync {
    /// A directory as it is read.
    type Directory: Directory;
    /// Why nothing can be read at all.
    type Error: Send;

    /// Reads directories: one answer for each digest, in the same order.
    async fn read(&self, digests: &[Digest]) -> Result<Vec<Found<Self::Directory>>, Self::Error>;
}

/// Where blobs are read.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Why a blob cannot be read.
    type Error: Send;

    /// The whole blob, checked against its digest; none where it is absent.
    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, Self::Error>;
}

/// Directories that are read blob by blob, some at once.
#[derive(Debug)]
pub struct Decoded<B, D> {
    blobs: B,
    directory: PhantomData<fn() -> D>,
}

impl<B: Blobs, D: Directory> Decoded<B, D> {
    /// The directories among these blobs.
    pub fn new(blobs: B) -> Self {
        Self { blobs, directory: PhantomData }
    }
}

#[async_trait]
impl<B: Blobs, D: Directory> Source for Decoded<B, D> {
    type Directory = D;
    type Error = B::Error;

    async fn read(&self, digests: &[Digest]) -> Result<Vec<Found<D>>, B::Error> {
        let one = |digest: Digest| async move {
            // The empty directory is stored everywhere.
            let data = if digest.is_empty() { Some(Bytes::new()) } else { self.blobs.get(&digest).await? };
            Ok(match data.map(|data| D::decode(&digest, &data)) {
                Some(Ok(directory)) => Found::Directory(directory),
                Some(Err(malformed)) => Found::Malformed(malformed),
                None => Found::Absent,
            })
        };
        stream::iter(digests.to_vec()).map(one).buffered(CONCURRENCY).try_collect().await
    }
}

/// A walk that cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error<E> {
    /// The trees have more entries than the walk may find.
    Entries,
    /// The source failed.
    Source(E),
}

/// A walk over trees, each directory once, level by level.
#[derive(Debug)]
pub struct Walk<S: Source> {
    source: S,
    /// Found in the directories so far, to be read.
    queue: VecDeque<Digest>,
    /// Read, to be returned.
    ready: VecDeque<(Digest, Found<S::Directory>)>,
    seen: HashSet<Digest>,
    entries: u64,
    max_entries: u64,
}

impl<S: Source> Walk<S> {
    /// A walk from these roots, over at most [`MAX_ENTRIES`] entries.
    pub fn new(source: S, roots: impl IntoIterator<Item = Digest>) -> Self {
        let mut seen = HashSet::new();
        let queue = roots.into_iter().filter(|digest| seen.insert(*digest)).collect();
        Self { source, queue, ready: VecDeque::new(), seen, entries: 0, max_entries: MAX_ENTRIES }
    }

    /// Sets how many entries the directories may have together.
    #[must_use]
    pub fn with_max_entries(mut self, max_entries: u64) -> Self {
        self.max_entries = max_entries;
        self
    }

    /// Whether every directory that is known so far has been returned.
    pub fn is_done(&self) -> bool {
        self.ready.is_empty() && self.queue.is_empty()
    }

    /// The next directory; none at the end. After an error the walk must not be used further.
    ///
    /// # Errors
    /// [`Error::Entries`] and [`Error::Source`]. A directory that is absent or malformed is not an error of the walk.
    pub async fn next(&mut self) -> Result<Option<(Digest, Found<S::Directory>)>, Error<S::Error>> {
        while self.ready.is_empty() && !self.queue.is_empty() {
            self.read_some().await?;
        }
        Ok(self.ready.pop_front())
    }

    async fn read_some(&mut self) -> Result<(), Error<S::Error>> {
        let (mut batch, mut bytes) = (Vec::new(), 0_u64);
        while let Some(digest) = self.queue.front() {
            if let Err(error) = shape::check_size(digest) {
                if !batch.is_empty() {
                    break;
                }
                self.ready.push_back((*digest, Found::Malformed(error.into())));
                self.queue.pop_front();
                continue;
            }
            bytes = bytes.saturating_add(digest.size);
            if batch.len() == BATCH || (bytes > BATCH_BYTES && !batch.is_empty()) {
                break;
            }
            batch.push(*digest);
            self.queue.pop_front();
        }
        let found = self.source.read(&batch).await.map_err(Error::Source)?;
        for (digest, found) in batch.into_iter().zip(found) {
            if let Found::Directory(directory) = &found {
                self.entries = self.entries.saturating_add(directory.entries());
                if self.entries > self.max_entries {
                    return Err(Error::Entries);
                }
                self.queue.extend(directory.below().into_iter().filter(|digest| self.seen.insert(*digest)));
            }
            self.ready.push_back((digest, found));
        }
        Ok(())
    }
}
