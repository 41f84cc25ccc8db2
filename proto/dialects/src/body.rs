//! Bodies as they arrive: bounded, hashed while they are received, and handed on only when they are whole.
//!
//! Invariant: nothing of a body that was cut off, or is larger than allowed, is handed on. What is being received
//! is in memory or in a file without a name, so that nothing is left behind, however this process ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::BodyDataStream;
use bytes::Bytes;
use futures::StreamExt;
use kiln_proto::digest::{Digest, DigestFunction, Hasher};
use tokio::io::{AsyncWriteExt, BufWriter};

use crate::refusal::Refusal;

/// Bodies up to this size stay in memory.
const IN_MEMORY: usize = 128 << 10;
/// Bytes of a larger body that are written at once.
const CHUNK_BYTES: usize = 1 << 20;
/// How long a client may be silent in the middle of a body.
const SILENCE: Duration = Duration::from_secs(60);
/// How many of the largest bodies may arrive at once.
const BODIES: u64 = 4;
/// Bytes that may always arrive at once, however small an entry may be.
const MIN_ROOM: u64 = 1 << 30;

/// Room for bodies that are being received. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Room {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    function: DigestFunction,
    entry_bytes: u64,
    limit: &'static str,
    used: AtomicU64,
    most: u64,
}

/// What one body takes of the room; released on drop.
#[derive(Debug)]
struct Share {
    room: Room,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.inner.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Share {
    fn take(&mut self, bytes: u64) -> Result<(), Refusal> {
        let inner = &self.room.inner;
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= inner.most);
        match inner.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => {
                self.bytes = self.bytes.saturating_add(bytes);
                Ok(())
            }
            Err(_) => Err(Refusal::Full("too many entries are being sent at once; send it again later".to_owned())),
        }
    }
}

/// A body that is whole.
#[derive(Debug)]
pub struct Received {
    /// What it is.
    pub digest: Digest,
    data: Data,
    _share: Share,
}

/// The bytes of a body.
#[derive(Debug)]
pub enum Data {
    /// In memory.
    Memory(Bytes),
    /// In a file without a name, which is at its end.
    File(std::fs::File),
}

impl Received {
    /// Its bytes. They take room until this is dropped.
    pub fn data(&mut self) -> &mut Data {
        &mut self.data
    }
}

enum Sink {
    Memory(Vec<u8>),
    File(BufWriter<tokio::fs::File>),
}

/// The pieces of a request's body.
#[derive(Debug)]
pub struct Pieces {
    stream: BodyDataStream,
    /// The size that was announced.
    pub announced: Option<u64>,
    received: u64,
}

impl Pieces {
    /// Those of a body of which this size was announced.
    pub fn new(stream: BodyDataStream, announced: Option<u64>) -> Self {
        Self { stream, announced, received: 0 }
    }

    /// Bytes that have arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next piece.
    ///
    /// # Errors
    /// If the body is cut off, or nothing arrives for too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let next = tokio::time::timeout(SILENCE, self.stream.next()).await;
        let cut = |words: String| Refusal::Interrupted(format!("the body was cut off ({words}); nothing was stored"));
        match next.map_err(|_| cut(format!("nothing arrived for {} s", SILENCE.as_secs())))? {
            None => Ok(None),
            Some(Ok(piece)) => {
                self.received = self.received.saturating_add(piece.len() as u64);
                Ok(Some(piece))
            }
            Some(Err(error)) => Err(cut(error.to_string())),
        }
    }

    /// The whole body, which has at most `most` bytes.
    ///
    /// # Errors
    /// If it is larger, or cut off.
    pub async fn whole(&mut self, most: usize) -> Result<Vec<u8>, Refusal> {
        let mut data = Vec::new();
        while let Some(piece) = self.next().await? {
            if data.len().saturating_add(piece.len()) > most {
                return Err(Refusal::TooLarge(format!("the body is larger than {most} bytes")));
            }
            data.extend_from_slice(&piece);
        }
        Ok(data)
    }

    /// Reads up to `most` more bytes and drops them, so that a client which only then reads the answer gets it.
    pub async fn drain(&mut self, most: u64) {
        let until = self.received.saturating_add(most);
        while self.received < until && matches!(self.next().await, Ok(Some(_))) {}
    }
}

fn failed(error: std::io::Error) -> Refusal {
    if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
        return Refusal::Full("the disk of this cache is full".to_owned());
    }
    tracing::error!(%error, "cannot keep a body that arrives");
    Refusal::Fault("this cache cannot write to its disk; see the log of its process".to_owned())
}

impl Room {
    /// Room in this directory for entries of at most this size, which are hashed with this function. `limit` is what users call that
    /// size.
    pub fn new(directory: PathBuf, function: DigestFunction, entry_bytes: u64, limit: &'static str) -> Self {
        let most = entry_bytes.saturating_mul(BODIES).max(MIN_ROOM);
        Self { inner: Arc::new(Inner { directory, function, entry_bytes, limit, used: AtomicU64::new(0), most }) }
    }

    /// Refuses a body that is announced to be too large.
    ///
    /// # Errors
    /// If it is.
    pub fn admit(&self, bytes: u64) -> Result<(), Refusal> {
        let most = self.inner.entry_bytes;
        if bytes <= most {
            return Ok(());
        }
        let limit = self.inner.limit;
        let words = format!("an entry may have {most} bytes ({limit}), and this one has {bytes} or more");
        Err(Refusal::TooLarge(words))
    }

    /// Receives a whole body.
    ///
    /// # Errors
    /// If it is too large or cut off, or if there is no room for it.
    pub async fn receive(&self, pieces: &mut Pieces) -> Result<Received, Refusal> {
        self.admit(pieces.announced.unwrap_or(0))?;
        let mut share = Share { room: self.clone(), bytes: 0 };
        let mut hasher: Hasher = self.inner.function.hasher();
        let mut sink = Sink::Memory(Vec::new());
        while let Some(piece) = pieces.next().await? {
            self.admit(pieces.received())?;
            share.take(piece.len() as u64)?;
            hasher.update(&piece);
            sink = self.append(sink, &piece).await?;
        }
        if pieces.announced.is_some_and(|announced| announced != pieces.received()) {
            return Err(Refusal::Interrupted("the body is shorter than announced; nothing was stored".to_owned()));
        }
        let data = match sink {
            Sink::Memory(data) => Data::Memory(data.into()),
            Sink::File(mut file) => {
                file.flush().await.map_err(failed)?;
                Data::File(file.into_inner().into_std().await)
            }
        };
        Ok(Received { digest: hasher.finish(), data, _share: share })
    }

    async fn append(&self, sink: Sink, piece: &[u8]) -> Result<Sink, Refusal> {
        let mut file = match sink {
            Sink::Memory(mut data) if data.len().saturating_add(piece.len()) <= IN_MEMORY => {
                data.extend_from_slice(piece);
                return Ok(Sink::Memory(data));
            }
            Sink::Memory(data) => {
                let file = tempfile::tempfile_in(&self.inner.directory).map_err(failed)?;
                let mut file = BufWriter::with_capacity(CHUNK_BYTES, tokio::fs::File::from_std(file));
                file.write_all(&data).await.map_err(failed)?;
                file
            }
            Sink::File(file) => file,
        };
        file.write_all(piece).await.map_err(failed)?;
        Ok(Sink::File(file))
    }
}
