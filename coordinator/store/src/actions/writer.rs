//! The writer thread: commits all queued changes in one transaction.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{QUEUE, Results, table};
use crate::clock::Stamp;

/// Notified when a change is on disk, with the number of results that it removed.
pub(super) type Done = oneshot::Sender<Result<u64, Arc<redb::Error>>>;

/// A change to write.
#[derive(Debug)]
pub(super) enum Change {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        at: Stamp,
        done: Done,
    },
    Remove {
        key: Vec<u8>,
        done: Done,
    },
    /// There are uses to save.
    Uses,
    Expire {
        before: Stamp,
        done: Done,
    },
}

/// Ends when the store is dropped; by then all uses are on disk.
pub(super) fn write_all(results: &Results, mut changes: mpsc::Receiver<Change>) {
    let mut batch = Vec::new();
    while changes.blocking_recv_many(&mut batch, QUEUE) > 0 {
        let written = write(results, &batch);
        for change in batch.drain(..) {
            let (removed, done) = match change {
                Change::Uses => continue,
                Change::Put { done, .. } | Change::Remove { done, .. } => (0, done),
                Change::Expire { done, .. } => (*written.as_ref().unwrap_or(&0), done),
            };
            // The caller may have left.
            let _ = done.send(written.clone().map(|_| removed));
        }
    }
    if let Err(error) = write(results, &[]) {
        tracing::debug!(%error, "cannot save the last uses of results");
    }
}

/// Returns the number of results that were removed because of age or limits.
fn write(results: &Results, batch: &[Change]) -> Result<u64, Arc<redb::Error>> {
    let uses = std::mem::take(&mut results.uses.lock().waiting);
    let nothing = uses.is_empty() && batch.iter().all(|change| matches!(change, Change::Uses));
    if nothing && !batch.is_empty() {
        return Ok(0);
    }
    // Results that may have lost blobs are removed along with the next change.
    let mut before = results.floor.get();
    let written = results.with(|database| {
        table::change(database, |tables| {
            for (key, at) in &uses {
                tables.used(key, *at)?;
            }
            for change in batch {
                match change {
                    Change::Put { key, value, at, .. } => tables.put(key, value, *at)?,
                    Change::Remove { key, .. } => tables.remove(key)?,
                    Change::Uses => {}
                    Change::Expire { before: asked, .. } => before = before.max(*asked),
                }
            }
            tables.expire(before, results.most)
        })
    });
    if written.is_err() {
        results.uses.lock().waiting.extend(uses);
    }
    written
}
