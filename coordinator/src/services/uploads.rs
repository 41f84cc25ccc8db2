//! Uploads in progress, by resource name: after a broken stream, an upload waits here for its client to return.
//!
//! Invariant: at most one stream writes to an upload; the newest takes it over from earlier ones, whose client is gone
//! although the farm may not know yet. The committed size of a known upload never decreases.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_proto::digest::Digest;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use tonic::Status;

use kiln_store::{BlobWriter, Error, Stores};

/// Maximum number of uploads without a stream that are kept.
const MAX_WAITING: usize = 128;
/// Maximum number of uploads, including waiting ones: each has an open file.
const MAX_OPEN: usize = 4096;
/// How long a waiting upload is kept.
const KEEP: Duration = Duration::from_secs(600);

/// A blob being uploaded.
struct Upload {
    committed: AtomicU64,
    inner: AsyncMutex<Inner>,
}

struct Inner {
    /// The number of the current stream; only the latest may write.
    stream: u64,
    writer: Option<Box<dyn BlobWriter>>,
}

struct Known {
    upload: Arc<Upload>,
    last_use: Instant,
}

/// All uploads of this process.
pub(super) struct Uploads {
    known: Mutex<HashMap<String, Known>>,
    most: usize,
}

impl Default for Uploads {
    fn default() -> Self {
        Self::at_most(MAX_OPEN)
    }
}

/// One stream's hold on an upload.
pub(super) struct Hold {
    uploads: Arc<Uploads>,
    name: String,
    upload: Arc<Upload>,
    stream: u64,
    digest: Digest,
    /// Committed bytes that the client sends again.
    skip: u64,
    /// Whether this stream is the only one of the upload.
    is_whole: bool,
}

impl Uploads {
    /// At most `most` uploads, including waiting ones.
    pub(super) fn at_most(most: usize) -> Self {
        Self { known: Mutex::default(), most }
    }

    /// Starts an upload, or continues one at `offset`: 0 or the committed size.
    pub(super) async fn begin(
        self: &Arc<Self>,
        stores: &Stores,
        name: &str,
        digest: &Digest,
        offset: u64,
    ) -> Result<Hold, Status> {
        loop {
            let upload = self.find(name)?;
            let mut inner = upload.inner.lock().await;
            let committed = upload.committed.load(Ordering::Acquire);
            if inner.writer.is_none() && committed > 0 {
                // It ended while this stream was waiting for it.
                self.forget(name, &upload);
                continue;
            }
            if offset != 0 && offset != committed {
                drop(inner);
                self.forget_unused(name, &upload);
                return Err(wrong_offset(offset, committed));
            }
            if inner.writer.is_none() {
                inner.writer = Some(stores.blobs.write(digest).await?);
            }
            inner.stream += 1;
            let stream = inner.stream;
            drop(inner);
            let (uploads, name, skip) = (self.clone(), name.to_owned(), committed - offset);
            let is_whole = committed == 0;
            return Ok(Hold { uploads, name, upload, stream, digest: *digest, skip, is_whole });
        }
    }

    /// Bytes of this upload that need not be sent again; `None` if it is unknown.
    pub(super) fn committed(&self, name: &str) -> Option<u64> {
        self.known.lock().get(name).map(|known| known.upload.committed.load(Ordering::Acquire))
    }

    fn find(&self, name: &str) -> Result<Arc<Upload>, Status> {
        let now = Instant::now();
        let mut known = self.known.lock();
        let mut gone = Vec::new();
        let waiting = |known: &Known| Arc::strong_count(&known.upload) == 1;
        gone.extend(known.extract_if(|key, it| key != name && waiting(it) && now - it.last_use > KEEP));
        if known.len() >= MAX_WAITING {
            let mut idle: Vec<(Instant, String)> = known
                .iter()
                .filter(|(key, it)| *key != name && waiting(it))
                .map(|(key, it)| (it.last_use, key.clone()))
                .collect();
            idle.sort_unstable();
            let excess = (idle.len() + 1).saturating_sub(MAX_WAITING);
            gone.extend(idle.into_iter().take(excess).filter_map(|(_, key)| known.remove_entry(&key)));
        }
        if known.len() >= self.most && !known.contains_key(name) {
            return Err(Status::resource_exhausted(format!(
                "{} uploads are in progress, the most that the farm allows at once; try again when some have ended",
                self.most
            )));
        }
        let entry = known.entry(name.to_owned()).or_insert_with(|| {
            let inner = AsyncMutex::new(Inner { stream: 0, writer: None });
            Known { upload: Arc::new(Upload { committed: AtomicU64::new(0), inner }), last_use: now }
        });
        entry.last_use = now;
        let upload = entry.upload.clone();
        drop(known);
        // Their temporary files are removed without holding the lock.
        drop(gone);
        Ok(upload)
    }

    fn forget(&self, name: &str, upload: &Arc<Upload>) {
        let mut known = self.known.lock();
        if known.get(name).is_some_and(|it| Arc::ptr_eq(&it.upload, upload)) {
            known.remove(name);
        }
    }

    fn forget_unused(&self, name: &str, upload: &Arc<Upload>) {
        if upload.committed.load(Ordering::Acquire) == 0 && Arc::strong_count(upload) == 2 {
            self.forget(name, upload);
        }
    }
}

fn wrong_offset(offset: u64, committed: u64) -> Status {
    Status::invalid_argument(format!(
        "write offset {offset} is not where this upload is; expected {committed}, ask `QueryWriteStatus` and continue from there"
    ))
}

fn taken_over() -> Status {
    Status::aborted("another stream continues this upload; this one may end")
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(known) = self.uploads.known.lock().get_mut(&self.name) {
            known.last_use = Instant::now();
        }
    }
}

impl Hold {
    /// Appends bytes. If the store refuses them, the upload ends.
    pub(super) async fn write(&mut self, mut data: Bytes) -> Result<(), Status> {
        let skipped = self.skip.min(data.len() as u64);
        let _ = data.split_to(skipped as usize);
        self.skip -= skipped;
        if data.is_empty() {
            return Ok(());
        }
        let mut inner = self.upload.inner.lock().await;
        if inner.stream != self.stream {
            return Err(taken_over());
        }
        let bytes = data.len() as u64;
        let written = match &mut inner.writer {
            Some(writer) => writer.write(data).await,
            None => Err(Error::Abandoned { digest: self.digest }),
        };
        match written {
            Ok(()) => {
                self.upload.committed.fetch_add(bytes, Ordering::AcqRel);
                Ok(())
            }
            Err(error) => {
                inner.writer = None;
                self.uploads.forget(&self.name, &self.upload);
                Err(error.into())
            }
        }
    }

    /// Whether all bytes of the blob come from this stream, and not some from an earlier one.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Bytes of the blob that this stream has covered.
    pub(super) fn committed(&self) -> u64 {
        self.upload.committed.load(Ordering::Acquire) - self.skip
    }

    /// Commits the blob. The upload is over in any case, so this continues even if the client leaves.
    pub(super) async fn commit(self) -> Result<(), Status> {
        let commit = async move {
            let mut inner = self.upload.inner.lock().await;
            if inner.stream != self.stream {
                return Err(taken_over());
            }
            let done = match inner.writer.take() {
                Some(writer) => writer.commit().await,
                None => Err(Error::Abandoned { digest: self.digest }),
            };
            self.uploads.forget(&self.name, &self.upload);
            Ok(done?)
        };
        tokio::spawn(commit).await.map_err(|error| Status::internal(error.to_string()))?
    }
}
