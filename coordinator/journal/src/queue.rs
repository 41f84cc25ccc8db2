//! Batches on their way to the writer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::sync::{Notify, mpsc, oneshot};

use crate::batch::{Batch, Durability};
use crate::engine::{Error, Write};
use crate::tail::Tail;

/// Bytes that may wait to be committed before [`Queue::room`] waits.
const QUEUED_BYTES: usize = 32 << 20;

/// A batch that waits for its commit.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) writes: Arc<Vec<Write>>,
    /// The stream that it appends to, and that stream's end then.
    pub(crate) tail: Option<(Arc<Tail>, u64)>,
    pub(crate) durability: Durability,
    pub(crate) bytes: usize,
    pub(crate) done: oneshot::Sender<Result<(), Error>>,
}

/// Resolves when a batch is committed. The batch is committed whether this is awaited or not.
#[derive(Debug)]
#[must_use = "a commit can fail"]
pub struct Commit(oneshot::Receiver<Result<(), Error>>);

impl Future for Commit {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(context)).unwrap_or(Err(Error::Closed)))
    }
}

/// How much waits to be committed.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    bytes: AtomicUsize,
    less: Notify,
}

impl Waiting {
    pub(crate) fn took(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.less.notify_waiters();
    }
}

/// Where batches are queued. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    sender: mpsc::UnboundedSender<Queued>,
    waiting: Arc<Waiting>,
}

impl Queue {
    /// A queue, and what its writer needs.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Queued>, Arc<Waiting>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::<Waiting>::default();
        (Self { sender, waiting: waiting.clone() }, receiver, waiting)
    }

    /// Queues a batch at once; `tail` is the stream that it appends to, with its end then.
    pub(crate) fn push(&self, batch: Batch, tail: Option<(Arc<Tail>, u64)>, durability: Durability) -> Commit {
        let (done, committed) = oneshot::channel();
        let bytes = batch.bytes();
        self.waiting.bytes.fetch_add(bytes, Ordering::AcqRel);
        let queued = Queued { writes: Arc::new(batch.writes), tail, durability, bytes, done };
        // Where the writer is gone, so is the sender of the answer.
        let _ = self.sender.send(queued);
        Commit(committed)
    }

    /// Waits until less than a bound waits to be committed.
    pub(crate) async fn room(&self) {
        loop {
            let less = self.waiting.less.notified();
            if self.waiting.bytes.load(Ordering::Acquire) < QUEUED_BYTES || self.sender.is_closed() {
                return;
            }
            less.await;
        }
    }
}
