//! Contents of files in an order that is known beforehand: small ones are read ahead, many at a time, while others are used.

use std::io::{self, Cursor, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use kiln_proto::digest::Digest;
use kiln_store::{BlobStore, Error};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// Largest file that is read ahead, in bytes.
const SMALL_BYTES: u64 = 64 << 10;
/// Files that are read at a time, and their bytes.
const BATCH: usize = 256;
const BATCH_BYTES: u64 = 4 << 20;
/// Batches that wait to be used.
const QUEUE: usize = 2;

type Batch = Vec<(Digest, Result<Bytes, Error>)>;

/// Opens files for a thread that may block.
pub(crate) struct Contents {
    blobs: Arc<dyn BlobStore>,
    runtime: Handle,
    batches: mpsc::Receiver<Batch>,
    ready: std::vec::IntoIter<(Digest, Result<Bytes, Error>)>,
}

impl Contents {
    /// Begins to read those of these files that are small. They must be opened in this order.
    pub(crate) fn read_ahead(blobs: Arc<dyn BlobStore>, order: Vec<Digest>) -> Self {
        let (sender, batches) = mpsc::channel(QUEUE);
        let store = blobs.clone();
        tokio::spawn(async move {
            let mut small = order.into_iter().filter(|digest| digest.size <= SMALL_BYTES).peekable();
            while small.peek().is_some() {
                let (mut batch, mut bytes) = (Vec::new(), 0_u64);
                while batch.len() < BATCH
                    && let Some(digest) =
                        small.next_if(|next| batch.is_empty() || bytes.saturating_add(next.size) <= BATCH_BYTES)
                {
                    bytes = bytes.saturating_add(digest.size);
                    batch.push(digest);
                }
                let read = store.get_many(&batch).await;
                // Whoever opened the files has stopped.
                if sender.send(batch.into_iter().zip(read).collect()).await.is_err() {
                    break;
                }
            }
        });
        Self { blobs, runtime: Handle::current(), batches, ready: Vec::new().into_iter() }
    }

    /// The content of a file. Blocks.
    pub(crate) fn open(&mut self, digest: &Digest) -> io::Result<Box<dyn Read>> {
        if digest.size > SMALL_BYTES {
            let pieces = self.runtime.block_on(self.blobs.read(digest, 0, None)).map_err(io::Error::other)?;
            let reader = StreamReader::new(pieces.map_err(io::Error::other));
            return Ok(Box::new(SyncIoBridge::new_with_handle(reader, self.runtime.clone())));
        }
        loop {
            match self.ready.next() {
                Some((next, read)) if next == *digest => {
                    return Ok(Box::new(Cursor::new(read.map_err(io::Error::other)?)));
                }
                Some(_) => return Err(io::Error::other("files are opened in another order than they were read")),
                None => match self.batches.blocking_recv() {
                    Some(batch) => self.ready = batch.into_iter(),
                    None => return Err(io::Error::other("more files are opened than were read")),
                },
            }
        }
    }
}
