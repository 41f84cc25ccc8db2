//! The task that commits: all batches that wait go into one transaction, so that many share one sync of the disk.
//!
//! Invariant: batches are committed in the order in which they were queued. Relaxed ones that were not synced yet are remembered, and
//! written again after the engine failed, so that a disk that was full for a while costs nothing that readers have seen. What is not
//! committed when the journal's term has ended never is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::Fsync;
use crate::batch::Durability;
use crate::engine::{Engine, Error, Write};
use crate::queue::{Queued, Waiting};
use crate::tail::Tail;

/// Batches in one transaction.
const MOST_BATCHES: usize = 4_096;
/// When a policy without an interval tries again what failed.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes that are remembered because they are not synced. Then they are synced; if the engine fails, what comes beyond is lost.
const REMEMBERED_BYTES: usize = 32 << 20;

/// A relaxed batch that is not synced.
struct Unsynced {
    writes: Arc<Vec<Write>>,
    tail: Option<(Arc<Tail>, u64)>,
    bytes: usize,
}

struct Writer {
    engine: Arc<dyn Engine>,
    always: bool,
    interval: Duration,
    unsynced: Vec<Unsynced>,
    unsynced_bytes: usize,
    /// When the next sync is due, if something is not synced.
    due: Option<Instant>,
    /// The engine failed: what is not synced may be lost in it.
    failing: bool,
}

/// Commits what is queued, until the last handle on the journal is gone. `_ends` is dropped behind the engine.
pub(crate) async fn run(
    engine: Arc<dyn Engine>,
    fsync: Fsync,
    (mut queue, _ends): (mpsc::UnboundedReceiver<Queued>, watch::Sender<()>),
    waiting: Arc<Waiting>,
) {
    let interval = match fsync {
        Fsync::Interval(interval) => interval,
        Fsync::Always | Fsync::Never => RETRY,
    };
    let always = fsync == Fsync::Always;
    let (unsynced, unsynced_bytes, due, failing) = (Vec::new(), 0, None, false);
    let mut writer = Writer { engine, always, interval, unsynced, unsynced_bytes, due, failing };
    let mut batches = Vec::new();
    loop {
        let received = match writer.due {
            Some(due) => tokio::time::timeout_at(due, queue.recv_many(&mut batches, MOST_BATCHES)).await,
            None => Ok(queue.recv_many(&mut batches, MOST_BATCHES).await),
        };
        if received == Ok(0) && writer.due.is_none() {
            return;
        }
        let bytes: usize = batches.iter().map(|batch: &Queued| batch.bytes).sum();
        writer.commit(std::mem::take(&mut batches)).await;
        waiting.took(bytes);
        if received == Ok(0) {
            return;
        }
    }
}

impl Writer {
    /// Commits these batches; without any, it syncs what is committed.
    async fn commit(&mut self, queued: Vec<Queued>) {
        let is_ahead = |tail: &Option<(Arc<Tail>, u64)>| tail.as_ref().is_some_and(|(tail, end)| tail.is_ahead(*end));
        let sync = self.always
            || queued.is_empty()
            || self.unsynced_bytes > REMEMBERED_BYTES / 2
            || self.due.is_some_and(|due| due <= Instant::now())
            || queued.iter().any(|batch| batch.durability == Durability::Durable || is_ahead(&batch.tail));
        let again = self.unsynced.iter().filter(|_| self.failing).map(|batch| batch.writes.clone());
        let writes = again.chain(queued.iter().map(|batch| batch.writes.clone())).collect();
        match self.engine.commit(writes, sync).await {
            Ok(()) => self.committed(queued, sync),
            Err(error) => self.failed(queued, &error),
        }
    }

    fn committed(&mut self, queued: Vec<Queued>, sync: bool) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("the journal can be written again");
            self.unsynced.iter().filter_map(|batch| batch.tail.as_ref()).for_each(|(tail, end)| tail.commit(*end));
        }
        for batch in queued {
            if let Some((tail, end)) = &batch.tail {
                tail.commit(*end);
            }
            // Whoever does not wait does not want to know.
            let _ = batch.done.send(Ok(()));
            self.remember(Unsynced { writes: batch.writes, tail: batch.tail, bytes: batch.bytes });
        }
        if sync {
            for (tail, end) in self.unsynced.drain(..).filter_map(|batch| batch.tail) {
                tail.sync(end);
            }
            (self.unsynced_bytes, self.due) = (0, None);
        } else {
            self.due = self.due.or_else(|| Instant::now().checked_add(self.interval));
        }
    }

    fn failed(&mut self, queued: Vec<Queued>, error: &Error) {
        if matches!(error, Error::Fenced { .. }) {
            return self.fenced(queued, error);
        }
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, "the journal cannot be written; events are kept in memory until it can");
        }
        let mut lost = 0_usize;
        for batch in queued {
            let fits = self.unsynced_bytes.saturating_add(batch.bytes) <= REMEMBERED_BYTES;
            // The caller of a durable one is told, and decides.
            match batch.durability {
                Durability::Relaxed if fits => {
                    self.remember(Unsynced { writes: batch.writes, tail: batch.tail, bytes: batch.bytes });
                }
                Durability::Relaxed => lost = lost.saturating_add(1),
                Durability::Durable => {}
            }
            let _ = batch.done.send(Err(error.clone()));
        }
        if lost > 0 {
            tracing::error!(batches = lost, "the journal still cannot be written; events are lost");
        }
        self.due = Instant::now().checked_add(self.interval);
    }

    /// Another process writes the journal now, and reads what is in it: nothing of this one may be added.
    fn fenced(&mut self, queued: Vec<Queued>, error: &Error) {
        let lost = self.unsynced.len().saturating_add(queued.len());
        tracing::warn!(%error, batches = lost, "nothing more is written to the journal");
        (self.unsynced, self.unsynced_bytes, self.due) = (Vec::new(), 0, None);
        for batch in queued {
            let _ = batch.done.send(Err(error.clone()));
        }
    }

    fn remember(&mut self, batch: Unsynced) {
        if !batch.writes.is_empty() {
            self.unsynced_bytes = self.unsynced_bytes.saturating_add(batch.bytes);
            self.unsynced.push(batch);
        }
    }
}
