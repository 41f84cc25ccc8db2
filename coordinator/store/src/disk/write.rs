//! Writes a blob: hashes it while writing a temporary file, which is then renamed.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::digest::{Digest, Hasher};
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;

use super::{Error, Inner};
use crate::BlobWriter;
use kiln_index::Version;

/// Bytes buffered before each write to disk: clients send pieces as small as 16 KiB.
const GATHER_BYTES: usize = 256 * 1024;

/// A temporary file with its reserved bytes. Both are released on drop.
struct Sink {
    inner: Arc<Inner>,
    file: Option<NamedTempFile>,
    hasher: Hasher,
    reserved: u64,
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.file.take());
        self.inner.release(self.reserved);
    }
}

impl Sink {
    fn new(inner: Arc<Inner>, digest: &Digest) -> Self {
        Self { inner, file: None, hasher: digest.function.hasher(), reserved: 0 }
    }

    fn append(&mut self, data: &[Bytes]) -> Result<(), Error> {
        let bytes = data.iter().map(|piece| piece.len() as u64).sum();
        self.inner.reserve(bytes)?;
        self.reserved = self.reserved.saturating_add(bytes);
        let tmp = &self.inner.tmp;
        let failed = |source| Error::io("write into", tmp, source);
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::Builder::new().prefix("write-").tempfile_in(tmp).map_err(failed)?),
        };
        for piece in data {
            file.as_file_mut().write_all(piece).map_err(failed)?;
            self.hasher.update(piece);
        }
        Ok(())
    }

    /// Makes the blob visible after checking its digest.
    fn commit(mut self, digest: &Digest) -> Result<(), Error> {
        let found = self.hasher.clone().finish();
        if found != *digest {
            return Err(Error::Mismatch { expected: *digest, found });
        }
        // An empty blob has had no piece that created the file.
        self.append(&[])?;
        let inner = self.inner.clone();
        let Some(file) = self.file.take() else { return Err(Error::Abandoned { digest: *digest }) };
        if let Some(syncs) = &inner.durable {
            syncs.file(file.as_file()).map_err(synced(file.path()))?;
        }
        let path = inner.path(digest);
        let shard = path.parent().unwrap_or(&inner.dir);
        if let Err(source) = std::fs::create_dir(shard)
            && source.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(Error::io("make", shard, source));
        }
        let now = inner.clock.now();
        super::collect::set_written(file.as_file(), now);
        // Looked at after the rename, which counts as a change.
        let rename = |file: NamedTempFile| {
            let file = file.persist(&path).map_err(|failed| Error::io("rename to", &path, failed.error))?;
            Ok::<_, Error>(file.metadata().ok().as_ref().map(Version::of))
        };
        let Some(syncs) = &inner.durable else {
            let mut index = inner.index.lock();
            if index.touch(digest, now).is_none() {
                let version = rename(file)?;
                index.insert_reserved(*digest, None, now);
                index.set_version(digest, None, version);
                self.reserved = 0;
            }
            return Ok(());
        };
        if inner.index.lock().touch(digest, now).is_some() {
            return Ok(());
        }
        // Whoever finds it in the index takes it for stored: it is on the disk before it gets there.
        rename(file)?;
        syncs.directory(shard).map_err(synced(shard))?;
        let above = shard.parent().unwrap_or(&inner.dir);
        syncs.directory(above).map_err(synced(above))?;
        let mut index = inner.index.lock();
        if index.touch(digest, now).is_none() {
            // Another writer's may have been evicted meanwhile, under the same name.
            if !path.exists() {
                return Err(Error::Abandoned { digest: *digest });
            }
            index.insert_reserved(*digest, None, now);
            self.reserved = 0;
        }
        Ok(())
    }
}

fn synced(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    move |source| Error::io("sync", path, source)
}

/// Stores a blob that is in memory.
pub(super) fn put(inner: &Arc<Inner>, digest: &Digest, data: Bytes) -> Result<(), Error> {
    inner.put_many(vec![(*digest, data)]).pop().unwrap_or(Err(Error::Closed))
}

/// Stores a blob as a file. Its digest has been checked, and it was not there.
pub(super) fn put_file(inner: &Arc<Inner>, digest: &Digest, data: Bytes) -> Result<(), Error> {
    let mut sink = Sink::new(inner.clone(), digest);
    sink.append(&[data])?;
    sink.commit(digest)
}

enum State {
    Ready(Sink),
    Busy(JoinHandle<Result<Sink, Error>>),
    Failed,
}

/// A blob being streamed in. Bytes are buffered while earlier ones are written to disk.
pub(super) struct FileWriter {
    digest: Digest,
    received: u64,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    state: State,
}

impl FileWriter {
    pub(super) fn new(inner: Arc<Inner>, digest: Digest) -> Self {
        let sink = Sink::new(inner, &digest);
        Self { digest, received: 0, gathered: Vec::new(), gathered_bytes: 0, state: State::Ready(sink) }
    }

    /// Waits until the pending write has completed. May be dropped and called again.
    async fn settle(&mut self) -> Result<(), Error> {
        if let State::Busy(job) = &mut self.state {
            let done = job.await;
            self.state = State::Failed;
            match done {
                Ok(sink) => self.state = State::Ready(sink?),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => return Err(Error::Closed),
            }
        }
        Ok(())
    }

    fn take_sink(&mut self) -> Result<Sink, Error> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Ready(sink) => Ok(sink),
            State::Busy(_) | State::Failed => Err(Error::Abandoned { digest: self.digest }),
        }
    }
}

#[async_trait]
impl BlobWriter for FileWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        let received = self.received + data.len() as u64;
        if received > self.digest.size {
            return Err(Error::TooLong { digest: self.digest });
        }
        if self.gathered_bytes >= GATHER_BYTES {
            self.settle().await?;
            let mut sink = self.take_sink()?;
            let pieces = std::mem::take(&mut self.gathered);
            self.gathered_bytes = 0;
            self.state = State::Busy(tokio::task::spawn_blocking(move || sink.append(&pieces).map(|()| sink)));
        }
        // Nothing is awaited from here on, so the bytes are taken completely or, if the call was dropped earlier, not
        // at all.
        self.received = received;
        self.gathered_bytes += data.len();
        self.gathered.push(data);
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<(), Error> {
        self.settle().await?;
        let mut sink = self.take_sink()?;
        let (digest, pieces) = (self.digest, std::mem::take(&mut self.gathered));
        super::blocking(move || {
            sink.append(&pieces)?;
            sink.commit(&digest)
        })
        .await
    }
}
