//! The handle on a journal: batches are queued here, and read past the queue.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::batch::{Batch, Durability, STARTS};
use crate::engine::{Engine, Entry, Error, Range, Space};
use crate::queue::{Commit, Queue};
use crate::stream::Stream;
use crate::tail::{Tail, WINDOW};
use crate::{Fsync, RedbEngine, writer};

/// A journal. Cheap to clone; it is closed when the last clone is dropped and what is queued is committed.
#[derive(Debug, Clone)]
pub struct Journal {
    engine: Arc<dyn Engine>,
    queue: Queue,
    /// Changes no more when the writer has ended.
    ended: watch::Receiver<()>,
}

impl Journal {
    /// Opens the journal in a file, which is made if it does not exist. Blocks.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn open(path: &Path, fsync: Fsync) -> Result<Self, Error> {
        Ok(Self::over(Arc::new(RedbEngine::open(path, fsync != Fsync::Never)?), fsync))
    }

    /// A journal that is kept by this engine. Its writer runs on the current runtime.
    pub fn over(engine: Arc<dyn Engine>, fsync: Fsync) -> Self {
        let (queue, queued, waiting) = Queue::new();
        let (ends, ended) = watch::channel(());
        let writing = tokio::spawn(writer::run(engine.clone(), fsync, (queued, ends), waiting));
        tokio::spawn(async move {
            if writing.await.is_err_and(|error| error.is_panic()) {
                tracing::error!(
                    "the journal's writer panicked; the coordinator exits, and the next one resumes its builds"
                );
                std::process::abort();
            }
        });
        Self { engine, queue, ended }
    }

    /// Resolves when the last clone was dropped and the file is closed.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ended = self.ended.clone();
        async move { while ended.changed().await.is_ok() {} }
    }

    /// Queues a batch at once. The answer resolves when it is committed.
    pub fn commit(&self, batch: Batch, durability: Durability) -> Commit {
        self.queue.push(batch, None, durability)
    }

    /// Waits until all that was queued so far is committed and synced.
    ///
    /// # Errors
    /// If that fails.
    pub async fn settle(&self) -> Result<(), Error> {
        self.commit(Batch::default(), Durability::Durable).await
    }

    /// A stream that did not exist before.
    pub fn new_stream(&self, name: &str) -> Stream {
        Stream::new(self.queue.clone(), Tail::new(name, 0))
    }

    /// A stream that an earlier process appended to; it continues beyond every position that anyone may have seen.
    ///
    /// # Errors
    /// If it cannot be read, or where it continues cannot be recorded.
    pub async fn resume_stream(&self, name: &str) -> Result<Stream, Error> {
        let recorded = self.get(STARTS, name).await?;
        let recorded = recorded.and_then(|start| std::str::from_utf8(&start).ok()?.parse::<u64>().ok()).unwrap_or(0);
        let start = self.engine.end(name).await?.max(recorded).saturating_add(WINDOW);
        // Before anybody is shown anything there: the next process may find no entry of this one.
        self.commit(Batch::default().put(STARTS, name, start.to_string()), Durability::Durable).await?;
        Ok(Stream::new(self.queue.clone(), Tail::new(name, start)))
    }

    /// The committed entries of a stream from a position on: as many as fit into `bytes`, and at least one if there is any.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn read(&self, stream: &str, from: u64, bytes: usize) -> Result<Vec<Entry>, Error> {
        self.engine.read(stream, from, bytes).await
    }

    /// A committed record.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn get(&self, space: Space, key: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.engine.get(space, vec![key.to_owned()]).await?.pop().flatten())
    }

    /// Committed records by their keys, in the same order.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn get_many(&self, space: Space, keys: Vec<String>) -> Result<Vec<Option<Bytes>>, Error> {
        self.engine.get(space, keys).await
    }

    /// Committed records in the order of their keys.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn list(&self, space: Space, range: Range) -> Result<Vec<(String, Bytes)>, Error> {
        self.engine.list(space, range).await
    }

    /// How many records of a space are committed.
    ///
    /// # Errors
    /// If they cannot be counted.
    pub async fn count(&self, space: Space) -> Result<u64, Error> {
        self.engine.count(space).await
    }
}
