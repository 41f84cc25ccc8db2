//! A caller's view of an execution: its state and its live output, in order.

use std::sync::Arc;

use bytes::Bytes;
use kiln_proto::reapi;
use kiln_proto::v1::{SplitCalls, Stream};
use kiln_scheduler::WaiterId;
use tokio::sync::watch;

use super::ExecutionHandle;
use super::log::{Found, Log, Logs};
use tokio::sync::OwnedSemaphorePermit;

use super::places::Place;

/// The state of an execution.
#[derive(Debug, Clone)]
pub enum State {
    /// Waiting for a worker.
    Queued,
    /// Assigned to a worker.
    Executing {
        /// The worker's name.
        worker: String,
        /// The lease that identifies its live logs.
        lease: u64,
        /// Its live output.
        logs: Arc<Logs>,
        /// Whether its inputs are in place and the command is running.
        started: bool,
    },
    /// It ended.
    Done(Arc<Done>),
}

/// How an execution ended.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// The REAPI response.
    pub response: reapi::ExecuteResponse,
    /// Whether the farm itself could not run it: no worker matches, or all were lost.
    pub farm_fault: bool,
}

/// An event of an execution.
#[derive(Debug)]
pub enum Update {
    /// It is waiting (again).
    Queued,
    /// It runs on a worker.
    Executing {
        /// The worker's name.
        worker: String,
        /// The lease that identifies its live logs.
        lease: u64,
    },
    /// Output appeared.
    Output {
        /// Which stream.
        stream: Stream,
        /// The bytes.
        data: Bytes,
        /// Number of bytes dropped before these because this reader was too slow.
        skipped: u64,
    },
    /// What has become of its compiler calls so far.
    Calls(Box<SplitCalls>),
    /// It ended; no further update follows.
    Done(Arc<Done>),
}

/// A caller's attachment to an execution. Dropping it detaches; an action without callers is cancelled.
#[derive(Debug)]
pub struct Attached {
    pub(super) waiter: WaiterId,
    pub(super) handle: ExecutionHandle,
    pub(super) state: watch::Receiver<State>,
    /// Whether it joined an existing execution.
    pub merged: bool,
    reading: Option<Reading>,
    told: Option<u64>,
    ended: bool,
    place: Option<Place>,
    /// Notes on how its properties were interpreted.
    pub notes: Vec<String>,
    /// Its slot in the tenant's quota.
    room: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
struct Reading {
    lease: u64,
    logs: Arc<Logs>,
    stdout: u64,
    stderr: u64,
    changes: (watch::Receiver<()>, watch::Receiver<()>),
    calls: watch::Receiver<Option<SplitCalls>>,
    /// What was told of them last.
    counted: Option<SplitCalls>,
}

impl Attached {
    pub(super) fn new(waiter: WaiterId, handle: ExecutionHandle, state: watch::Receiver<State>, merged: bool) -> Self {
        let notes = Vec::new();
        Self { waiter, handle, state, merged, reading: None, told: None, ended: false, place: None, notes, room: None }
    }

    /// Holds its place in the queue for as long as it waits.
    pub(super) fn with(mut self, place: Place, room: Option<OwnedSemaphorePermit>, notes: Vec<String>) -> Self {
        self.place = Some(place);
        self.notes = notes;
        self.room = room;
        self
    }

    /// Waits for the next update; never completes after `Done`.
    pub async fn next(&mut self) -> Update {
        loop {
            if let Some(reading) = &mut self.reading {
                reading.changes.0.mark_unchanged();
                reading.changes.1.mark_unchanged();
                if let Some(update) = reading.output().or_else(|| reading.calls()) {
                    return update;
                }
            }
            if self.ended {
                std::future::pending::<()>().await;
            }
            let state = self.state.borrow_and_update().clone();
            match state {
                State::Queued => {
                    if self.told != Some(0) {
                        self.told = Some(0);
                        self.reading = None;
                        return Update::Queued;
                    }
                }
                State::Executing { worker, lease, logs, .. } => {
                    if self.told != Some(lease) {
                        self.told = Some(lease);
                        let changes = (logs.stdout.changes(), logs.stderr.changes());
                        let calls = logs.calls.subscribe();
                        self.reading =
                            Some(Reading { lease, logs, stdout: 0, stderr: 0, changes, calls, counted: None });
                        return Update::Executing { worker, lease };
                    }
                }
                State::Done(done) => {
                    if let Some(update) = self.reading.as_mut().and_then(Reading::output) {
                        return update;
                    }
                    self.ended = true;
                    self.place = None;
                    self.room = None;
                    return Update::Done(done);
                }
            }
            let changed = match &mut self.reading {
                Some(Reading { changes: (stdout, stderr), calls, .. }) => tokio::select! {
                    _ = calls.changed() => Ok(()),
                    changed = self.state.changed() => changed,
                    _ = stdout.changed() => Ok(()),
                    _ = stderr.changed() => Ok(()),
                },
                None => self.state.changed().await,
            };
            if changed.is_err() {
                self.ended = true;
                return Update::Done(Arc::new(Done {
                    response: super::failed(
                        tonic::Code::Unavailable,
                        "the coordinator is shutting down; execute again",
                    ),
                    farm_fault: true,
                }));
            }
        }
    }

    /// This caller, for [`ExecutionHandle::wait_of`].
    pub fn waiter(&self) -> WaiterId {
        self.waiter
    }

    /// The lease whose output is being read.
    pub fn lease(&self) -> Option<u64> {
        self.reading.as_ref().map(|reading| reading.lease)
    }
}

impl Reading {
    fn calls(&mut self) -> Option<Update> {
        let now = self.calls.borrow_and_update().clone();
        if now == self.counted {
            return None;
        }
        self.counted.clone_from(&now);
        now.map(|now| Update::Calls(Box::new(now)))
    }

    fn output(&mut self) -> Option<Update> {
        let take = |log: &Log, cursor: &mut u64, stream| {
            log.take(cursor).map(|Found { skipped, data }| Update::Output { stream, data, skipped })
        };
        take(&self.logs.stdout, &mut self.stdout, Stream::Stdout)
            .or_else(|| take(&self.logs.stderr, &mut self.stderr, Stream::Stderr))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if !self.ended {
            self.handle.leave(self.waiter);
        }
    }
}
