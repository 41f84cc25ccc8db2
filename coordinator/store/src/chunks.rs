//! Decorator: serves blobs in chunks, so that a client transfers only the chunks it lacks.
//!
//! A chunk is a blob like any other. If it is part of a stored blob that was split before, it is served from there and
//! takes no space of its own. The positions of chunks are cached in memory, within a bound, and can be recomputed by
//! splitting again.
//!
//! Invariant: every chunk that is served has been checked against its own digest.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use kiln_proto::chunking::{self, Chunker};
use kiln_proto::digest::Digest;
use parking_lot::Mutex;

use super::{BlobStore, BlobStream, BlobWriter, Error};

/// Maximum number of chunks with a cached position: about 100 GiB of blobs.
const REMEMBERED: usize = 200_000;

/// Maximum number of blobs split at once: each takes a core.
const SPLITS: usize = 2;

/// A blob's chunks in order.
#[derive(Debug)]
struct List {
    chunks: Arc<Vec<Digest>>,
    /// Whether they were cut here, so that [`Chunks::split`] may return them.
    ours: bool,
}

/// Positions of chunks.
#[derive(Debug, Default)]
struct Places {
    lists: HashMap<Digest, List>,
    chunks: HashMap<Digest, (Digest, u64)>,
    order: VecDeque<Digest>,
}

impl Places {
    fn add(&mut self, blob: Digest, list: List) {
        let mut offset = 0_u64;
        for chunk in list.chunks.iter() {
            self.chunks.insert(*chunk, (blob, offset));
            offset = offset.saturating_add(chunk.size);
        }
        if self.lists.insert(blob, list).is_none() {
            self.order.push_back(blob);
        }
        while self.chunks.len() > REMEMBERED {
            let Some(oldest) = self.order.pop_front() else { break };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, blob: &Digest) {
        for chunk in self.lists.remove(blob).iter().flat_map(|list| list.chunks.iter()) {
            if self.chunks.get(chunk).is_some_and(|(parent, _)| parent == blob) {
                self.chunks.remove(chunk);
            }
        }
    }
}

/// Serves the chunks of the blobs in a store.
#[derive(Debug)]
pub struct Chunks {
    inner: Arc<dyn BlobStore>,
    places: Mutex<Places>,
    splits: tokio::sync::Semaphore,
}

impl Chunks {
    /// Serves the chunks of the blobs in this store.
    pub fn new(inner: Arc<dyn BlobStore>) -> Self {
        Self { inner, places: Mutex::default(), splits: tokio::sync::Semaphore::new(SPLITS) }
    }

    /// A blob's chunks in order, cut as specified by [`chunking`]. Reads the whole blob unless it was split recently.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the blob does not exist.
    pub async fn split(self: &Arc<Self>, blob: &Digest) -> Result<Arc<Vec<Digest>>, Error> {
        let (chunks, blob) = (self.clone(), *blob);
        // If the caller leaves, the result is kept for the next one.
        tokio::spawn(async move { chunks.split_now(&blob).await }).await.map_err(|_| Error::Closed)?
    }

    async fn split_now(&self, blob: &Digest) -> Result<Arc<Vec<Digest>>, Error> {
        if !self.inner.find_missing(std::slice::from_ref(blob)).await?.is_empty() {
            return Err(Error::NotFound { digest: *blob });
        }
        if blob.size <= chunking::MAX_BYTES {
            return Ok(Arc::new(vec![*blob]));
        }
        let _turn = self.splits.acquire().await.map_err(|_| Error::Closed)?;
        if let Some(known) = self.places.lock().lists.get(blob).filter(|list| list.ours) {
            return Ok(known.chunks.clone());
        }
        let mut pieces = self.inner.read(blob, 0, None).await?;
        let (mut cut, mut chunks) = (Chunker::new(), Vec::new());
        let mut next = pieces.next().await.transpose()?;
        while let Some(piece) = next {
            next = pieces.next().await.transpose()?;
            let (function, last) = (blob.function, next.is_none());
            let work = move || {
                cut.push(&piece);
                while let Some(chunk) = if last { cut.next_last() } else { cut.next_whole() } {
                    chunks.push(function.digest(&chunk));
                }
                (cut, chunks)
            };
            (cut, chunks) = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Closed)?;
        }
        let chunks = Arc::new(chunks);
        self.places.lock().add(*blob, List { chunks: chunks.clone(), ours: true });
        Ok(chunks)
    }

    /// Assembles a blob from existing chunks. The result is verified and becomes visible when it is complete.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a missing chunk, [`Error::Mismatch`] if the chunks form a different blob.
    pub async fn splice(&self, blob: &Digest, chunks: &[Digest]) -> Result<(), Error> {
        let mut writer = self.inner.write(blob).await?;
        for chunk in chunks {
            let mut pieces = self.read(chunk, 0, None).await?;
            while let Some(piece) = pieces.next().await {
                writer.write(piece?).await?;
            }
        }
        writer.commit().await?;
        // The chunks were verified as they were read, and the blob as it was written.
        self.places.lock().add(*blob, List { chunks: Arc::new(chunks.to_vec()), ours: false });
        Ok(())
    }

    fn place(&self, chunk: &Digest) -> Option<(Digest, u64)> {
        self.places.lock().chunks.get(chunk).copied()
    }

    /// Reads a chunk's bytes from the blob that contains it.
    async fn within(&self, chunk: &Digest) -> Result<Bytes, Error> {
        let absent = Error::NotFound { digest: *chunk };
        let Some((blob, offset)) = self.place(chunk) else { return Err(absent) };
        let read = async {
            let mut pieces = self.inner.read(&blob, offset, Some(chunk.size)).await?;
            let mut data = BytesMut::with_capacity(chunk.size as usize);
            while let Some(piece) = pieces.next().await {
                data.extend_from_slice(&piece?);
            }
            Ok::<_, Error>(data.freeze())
        };
        match read.await {
            Ok(data) if chunk.function.digest(&data) == *chunk => Ok(data),
            Ok(_) => Err(absent),
            Err(error) if error.is_absent() => {
                self.places.lock().forget(&blob);
                Err(absent)
            }
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl BlobStore for Chunks {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let missing = self.inner.find_missing(digests).await?;
        let within: HashMap<Digest, Digest> =
            missing.iter().filter_map(|chunk| Some((*chunk, self.place(chunk)?.0))).collect();
        if within.is_empty() {
            return Ok(missing);
        }
        let blobs: Vec<Digest> = within.values().copied().collect::<HashSet<_>>().into_iter().collect();
        let gone: HashSet<Digest> = self.inner.find_missing(&blobs).await?.into_iter().collect();
        let is_absent = |chunk: &Digest| within.get(chunk).is_none_or(|blob| gone.contains(blob));
        Ok(missing.into_iter().filter(is_absent).collect())
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        match self.inner.get(digest).await {
            Err(error) if error.is_absent() => self.within(digest).await,
            found => found,
        }
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
        let mut found = self.inner.get_many(digests).await;
        for (digest, result) in digests.iter().zip(&mut found) {
            if result.as_ref().is_err_and(Error::is_absent) {
                *result = self.within(digest).await;
            }
        }
        found
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        match self.inner.read(digest, offset, limit).await {
            Err(error) if error.is_absent() && self.place(digest).is_some() => {
                let data = self.within(digest).await?;
                let left = digest.size.checked_sub(offset).ok_or(Error::OutOfRange { digest: *digest, offset })?;
                let end = offset.saturating_add(limit.map_or(left, |limit| left.min(limit)));
                let piece = data.slice(offset as usize..end as usize);
                Ok(futures::stream::iter((!piece.is_empty()).then_some(Ok(piece))).boxed())
            }
            found => found,
        }
    }

    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        self.inner.put(digest, data).await
    }

    async fn put_many(&self, blobs: Vec<(Digest, Bytes)>) -> Vec<Result<(), Error>> {
        self.inner.put_many(blobs).await
    }

    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
        self.inner.write(digest).await
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    fn capacity(&self) -> u64 {
        self.inner.capacity()
    }
}
