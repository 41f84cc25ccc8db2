//! Blobs in Redis: one key each, or for large blobs one key per chunk and one for the list of chunks.
//!
//! Invariant: the list is written after all its chunks. A blob with an evicted part counts as missing; damaged values
//! are removed and count as missing.

use std::collections::HashSet;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::chunking::{self, Chunker};
use kiln_proto::digest::{Digest, Hasher};
use redis::{Cmd, Value};

use super::link::{Access, Link};
use super::{Keys, value};
use crate::{BlobStore, BlobStream, BlobWriter, Error, checked};

/// Bytes requested in one command, and held in memory for it.
const READ_BYTES: u64 = 4 << 20;
/// Blobs requested in one command.
const READ_BLOBS: usize = 1_000;
/// Concurrent commands and chunks for one caller.
const CONCURRENCY: usize = 4;

/// Blobs over a connection to Redis. Large ones are cut by content, so that versions of a file share unchanged chunks.
#[derive(Debug, Clone)]
pub struct RedisBlobs {
    link: Link,
    keys: Keys,
}

fn is_chunked(digest: &Digest) -> bool {
    digest.size > chunking::MAX_BYTES
}

fn is_one(answer: Result<Value, super::Error>) -> bool {
    matches!(answer, Ok(Value::Int(1)))
}

fn absent(digest: &Digest) -> Error {
    Error::NotFound { digest: *digest }
}

impl RedisBlobs {
    /// Blobs over this connection.
    pub fn new(link: Link, keys: Keys) -> Self {
        Self { link, keys }
    }

    fn expire(&self, digest: &Digest) -> Cmd {
        let mut command = redis::cmd("EXPIRE");
        command.arg(self.keys.blob(digest)).arg(self.keys.seconds());
        command
    }

    fn set(&self, digest: &Digest, value: Vec<u8>) -> Cmd {
        let mut command = redis::cmd("SET");
        command.arg(self.keys.blob(digest)).arg(value).arg("EX").arg(self.keys.seconds());
        command
    }

    /// Which of these keys exist; extends their lifetime, unless Redis accepts no writes.
    async fn touch(&self, digests: &[Digest]) -> Result<Vec<bool>, Error> {
        if !self.link.refuses_writes() {
            let commands = digests.iter().map(|digest| self.expire(digest)).collect();
            let answers = self.link.calls(Access::Read, commands).await?;
            if !answers.iter().any(|answer| matches!(answer, Err(super::Error::NoWrites { .. }))) {
                return Ok(answers.into_iter().map(is_one).collect());
            }
        }
        let ask = |digest| {
            let mut command = redis::cmd("EXISTS");
            command.arg(self.keys.blob(digest));
            command
        };
        let answers = self.link.calls(Access::Read, digests.iter().map(ask).collect()).await?;
        Ok(answers.into_iter().map(is_one).collect())
    }

    /// The value of a blob's key.
    async fn value(&self, digest: &Digest) -> Result<value::Value, Error> {
        let mut get = redis::cmd("GET");
        get.arg(self.keys.blob(digest));
        match self.link.call(Access::Read, get).await? {
            Value::BulkString(found) => {
                match value::decode_blob(&self.keys.farm, &self.keys.blob(digest), found.into(), digest) {
                    Some(value) => Ok(value),
                    None => Err(self.damaged(digest).await),
                }
            }
            _ => Err(absent(digest)),
        }
    }

    /// Removes a value that does not match its name.
    async fn damaged(&self, digest: &Digest) -> Error {
        tracing::warn!(%digest, "dropped a damaged or unreadable blob in Redis");
        let mut del = redis::cmd("DEL");
        del.arg(self.keys.blob(digest));
        let _ = self.link.call(Access::Write, del).await;
        absent(digest)
    }

    async fn checked(&self, digest: &Digest, data: Bytes) -> Result<Bytes, Error> {
        if digest.function.digest(&data) == *digest { Ok(data) } else { Err(self.damaged(digest).await) }
    }

    /// Reads a blob that is not chunked, or one chunk.
    async fn small(&self, digest: Digest) -> Result<Bytes, Error> {
        match self.value(&digest).await? {
            value::Value::Whole(data) => self.checked(&digest, data).await,
            value::Value::Chunks(_) => Err(self.damaged(&digest).await),
        }
    }

    /// The chunks of a large blob, all of which exist at this moment.
    async fn chunks(&self, digest: &Digest) -> Result<Vec<Digest>, Error> {
        let value::Value::Chunks(chunks) = self.value(digest).await? else { return Err(self.damaged(digest).await) };
        let there = self.touch(&chunks).await?;
        if there.iter().all(|there| *there) { Ok(chunks) } else { Err(absent(digest)) }
    }

    /// Stores verified bytes.
    async fn put_checked(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        let encoded = if data.len() < 64 * 1024 {
            value::encode(&data)
        } else {
            tokio::task::spawn_blocking(move || value::encode(&data)).await.map_err(|_| Error::Closed)?
        };
        self.link.call(Access::Write, self.set(digest, encoded)).await?;
        Ok(())
    }
}

#[async_trait]
impl BlobStore for RedisBlobs {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let there = self.touch(digests).await?;
        let mut missing: HashSet<Digest> =
            digests.iter().zip(&there).filter(|(_, there)| !**there).map(|(digest, _)| *digest).collect();
        let large: Vec<Digest> =
            digests.iter().filter(|digest| is_chunked(digest) && !missing.contains(digest)).copied().collect();
        let broken: Vec<Digest> = stream::iter(large)
            .map(|digest| async move {
                match self.chunks(&digest).await {
                    Ok(_) => Ok(None),
                    Err(error) if error.is_absent() => Ok(Some(digest)),
                    Err(error) => Err(error),
                }
            })
            .buffer_unordered(CONCURRENCY)
            .try_filter_map(|broken| std::future::ready(Ok::<_, Error>(broken)))
            .try_collect()
            .await?;
        missing.extend(broken);
        Ok(digests.iter().copied().filter(|digest| missing.contains(digest)).collect())
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        if !is_chunked(digest) {
            return self.small(*digest).await;
        }
        let mut data = Vec::with_capacity(usize::try_from(digest.size).unwrap_or(usize::MAX).min(1 << 30));
        let mut pieces = self.read(digest, 0, None).await?;
        while let Some(piece) = pieces.next().await {
            data.extend_from_slice(&piece?);
        }
        Ok(data.into())
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
        let mut groups: Vec<Vec<Digest>> = Vec::new();
        let mut bytes = 0_u64;
        for digest in digests {
            bytes = bytes.saturating_add(digest.size);
            match groups.last_mut() {
                Some(group) if bytes <= READ_BYTES && group.len() < READ_BLOBS => group.push(*digest),
                _ => {
                    bytes = digest.size;
                    groups.push(vec![*digest]);
                }
            }
        }
        let found = stream::iter(groups).map(|group| self.get_group(group)).buffered(CONCURRENCY);
        found.collect::<Vec<_>>().await.into_iter().flatten().collect()
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        let left = digest.size.checked_sub(offset).ok_or(Error::OutOfRange { digest: *digest, offset })?;
        let wanted = limit.map_or(left, |limit| left.min(limit));
        if !is_chunked(digest) {
            let data = self.small(*digest).await?;
            let piece = data.slice(offset as usize..offset.saturating_add(wanted) as usize);
            return Ok(stream::iter((!piece.is_empty()).then_some(Ok(piece))).boxed());
        }
        let (mut at, end) = (0_u64, offset.saturating_add(wanted));
        let mut parts = Vec::new();
        for chunk in self.chunks(digest).await? {
            let next = at.saturating_add(chunk.size);
            let (from, to) = (offset.max(at), end.min(next));
            if from < to {
                parts.push((chunk, from.saturating_sub(at) as usize..to.saturating_sub(at) as usize));
            }
            at = next;
        }
        let store = self.clone();
        let pieces = stream::iter(parts)
            .map(move |(chunk, range)| {
                let store = store.clone();
                async move { store.small(chunk).await.map(|data| data.slice(range)) }
            })
            .buffered(CONCURRENCY);
        let hasher = (wanted == digest.size).then(|| digest.function.hasher());
        Ok(checked::whole(pieces.boxed(), *digest, hasher))
    }

    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        let found = digest.function.digest(&data);
        if found != *digest {
            return Err(Error::Mismatch { expected: *digest, found });
        }
        if !is_chunked(digest) {
            return self.put_checked(digest, data).await;
        }
        let mut writer = self.write(digest).await?;
        writer.write(data).await?;
        writer.commit().await
    }

    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
        let hasher = digest.function.hasher();
        Ok(Box::new(ChunkWriter {
            store: self.clone(),
            digest: *digest,
            hasher,
            cut: Chunker::new(),
            chunks: Vec::new(),
        }))
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn capacity(&self) -> u64 {
        u64::MAX
    }
}

impl RedisBlobs {
    async fn get_group(&self, group: Vec<Digest>) -> Vec<Result<Bytes, Error>> {
        if group.iter().any(is_chunked) {
            let found = stream::iter(&group).then(|digest| self.get(digest));
            return found.collect().await;
        }
        let mut mget = redis::cmd("MGET");
        for digest in &group {
            mget.arg(self.keys.blob(digest));
        }
        let values = match self.link.call(Access::Read, mget).await {
            Ok(Value::Array(values)) if values.len() == group.len() => values,
            Ok(_) => return group.iter().map(|digest| Err(absent(digest))).collect(),
            Err(error) => return group.iter().map(|_| Err(error.clone().into())).collect(),
        };
        let keys = self.keys.clone();
        let decoded = tokio::task::spawn_blocking(move || {
            let decode = |(digest, found): (Digest, Value)| {
                let Value::BulkString(found) = found else { return (digest, Ok(None)) };
                match value::decode_blob(&keys.farm, &keys.blob(&digest), found.into(), &digest) {
                    Some(value::Value::Whole(data)) if digest.function.digest(&data) == digest => {
                        (digest, Ok(Some(data)))
                    }
                    _ => (digest, Err(())),
                }
            };
            group.into_iter().zip(values).map(decode).collect::<Vec<_>>()
        })
        .await
        .unwrap_or_default();
        let mut results = Vec::with_capacity(decoded.len());
        for (digest, found) in decoded {
            results.push(match found {
                Ok(Some(data)) => Ok(data),
                Ok(None) => Err(absent(&digest)),
                Err(()) => Err(self.damaged(&digest).await),
            });
        }
        results
    }
}

/// A blob being written: chunk by chunk, then the list.
struct ChunkWriter {
    store: RedisBlobs,
    digest: Digest,
    hasher: Hasher,
    cut: Chunker,
    chunks: Vec<Digest>,
}

impl ChunkWriter {
    async fn store_chunk(&mut self, digest: Digest, chunk: Bytes) -> Result<(), Error> {
        if self.store.touch(&[digest]).await? != [true] {
            self.store.put_checked(&digest, chunk).await?;
        }
        self.chunks.push(digest);
        Ok(())
    }
}

#[async_trait]
impl BlobWriter for ChunkWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        if self.hasher.size() + data.len() as u64 > self.digest.size {
            return Err(Error::TooLong { digest: self.digest });
        }
        let (mut hasher, mut cut) = (self.hasher.clone(), std::mem::take(&mut self.cut));
        let (function, chunked) = (self.digest.function, is_chunked(&self.digest));
        // Hashing and cutting megabytes would block other work on this thread.
        let work = move || {
            hasher.update(&data);
            cut.push(&data);
            let mut chunks = Vec::new();
            while let Some(chunk) = if chunked { cut.next_whole() } else { None } {
                chunks.push((function.digest(&chunk), chunk));
            }
            (hasher, cut, chunks)
        };
        let chunks;
        (self.hasher, self.cut, chunks) = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Closed)?;
        for (digest, chunk) in chunks {
            self.store_chunk(digest, chunk).await?;
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<(), Error> {
        let found = self.hasher.clone().finish();
        if found != self.digest {
            return Err(Error::Mismatch { expected: self.digest, found });
        }
        if !is_chunked(&self.digest) {
            let data = self.cut.rest();
            return self.store.put_checked(&self.digest, data).await;
        }
        while let Some(chunk) = self.cut.next_last() {
            let digest = self.digest.function.digest(&chunk);
            self.store_chunk(digest, chunk).await?;
        }
        let keys = &self.store.keys;
        let list = value::encode_chunks(&keys.farm, &keys.blob(&self.digest), &self.chunks);
        self.store.link.call(Access::Write, self.store.set(&self.digest, list)).await?;
        Ok(())
    }
}
