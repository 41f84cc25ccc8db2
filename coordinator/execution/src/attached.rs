//! A caller's view of an execution: its state and its live output, in order.

use std::sync::Arc;

use bytes::Bytes;
use kiln_proto::reapi;
use kiln_proto::v1::{SplitCalls, Stream, UsageSoFar};
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
        /// Where it runs.
        running: Running,
        /// Whether its inputs are in place and the command is running.
        started: bool,
    },
    /// It ended.
    Done {
        /// How.
        done: Arc<Done>,
        /// Where it ran last. A reader may see nothing of an execution before its end, since only the latest state is
        /// kept, and must get its output all the same.
        ran: Option<Running>,
    },
}

/// An execution on a worker.
#[derive(Debug, Clone)]
pub struct Running {
    /// The worker's name.
    pub worker: String,
    /// The lease that identifies its live logs.
    pub lease: u64,
    /// Its live output.
    pub logs: Arc<Logs>,
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
    /// What it has used so far.
    Usage(UsageSoFar),
    /// It ended; no further update follows.
    Done(Arc<Done>),
}

/// A caller's attachment to an execution. Dropping it detaches; an action without callers is cancelled.
#[derive(Debug)]
pub struct Attached {
    pub(super) waiter: WaiterId,
    pub(super) handle: ExecutionHandle,
    following: Following,
    /// Whether it joined an existing execution.
    pub merged: bool,
    place: Option<Place>,
    /// Notes on how its properties were interpreted.
    pub notes: Vec<String>,
    /// Its slot in the tenant's quota.
    room: Option<OwnedSemaphorePermit>,
}

/// The updates of an execution, as its state and its output give them.
#[derive(Debug)]
struct Following {
    state: watch::Receiver<State>,
    reading: Option<Reading>,
    told: Option<u64>,
    ended: bool,
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
    usage: watch::Receiver<Option<UsageSoFar>>,
    /// What of it was told last.
    used: Option<UsageSoFar>,
}

impl Attached {
    pub(super) fn new(waiter: WaiterId, handle: ExecutionHandle, state: watch::Receiver<State>, merged: bool) -> Self {
        Self { waiter, handle, following: Following::new(state), merged, place: None, notes: Vec::new(), room: None }
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
        let update = self.following.next().await;
        if matches!(update, Update::Done(_)) {
            self.place = None;
            self.room = None;
        }
        update
    }

    /// This caller, for [`ExecutionHandle::wait_of`].
    pub fn waiter(&self) -> WaiterId {
        self.waiter
    }

    /// The lease whose output is being read.
    pub fn lease(&self) -> Option<u64> {
        self.following.reading.as_ref().map(|reading| reading.lease)
    }
}

impl Following {
    fn new(state: watch::Receiver<State>) -> Self {
        Self { state, reading: None, told: None, ended: false }
    }

    async fn next(&mut self) -> Update {
        loop {
            if let Some(reading) = &mut self.reading {
                reading.changes.0.mark_unchanged();
                reading.changes.1.mark_unchanged();
                if let Some(update) = reading.output().or_else(|| reading.calls()).or_else(|| reading.usage()) {
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
                State::Executing { running, .. } => {
                    if let Some(update) = self.executing(running) {
                        return update;
                    }
                }
                State::Done { done, ran } => {
                    if let Some(update) = ran.and_then(|ran| self.executing(ran)) {
                        return update;
                    }
                    if let Some(update) = self.reading.as_mut().and_then(Reading::output) {
                        return update;
                    }
                    self.ended = true;
                    return Update::Done(done);
                }
            }
            let changed = match &mut self.reading {
                Some(Reading { changes: (stdout, stderr), calls, usage, .. }) => tokio::select! {
                    _ = calls.changed() => Ok(()),
                    _ = usage.changed() => Ok(()),
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

    /// Begins to read an execution's output, unless it is being read.
    fn executing(&mut self, Running { worker, lease, logs }: Running) -> Option<Update> {
        if self.told == Some(lease) {
            return None;
        }
        self.told = Some(lease);
        let changes = (logs.stdout.changes(), logs.stderr.changes());
        let calls = logs.calls.subscribe();
        let usage = logs.usage.subscribe();
        self.reading =
            Some(Reading { lease, logs, stdout: 0, stderr: 0, changes, calls, counted: None, usage, used: None });
        Some(Update::Executing { worker, lease })
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

    fn usage(&mut self) -> Option<Update> {
        let now = *self.usage.borrow_and_update();
        if now == self.used {
            return None;
        }
        self.used = now;
        now.map(Update::Usage)
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
        if !self.following.ended {
            self.handle.leave(self.waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_execution_that_ends_unseen_has_told_where_it_ran_and_all_its_output() {
        let logs = Arc::new(Logs::default());
        logs.push(Stream::Stdout, 0, Bytes::from_static(b"went on"));
        logs.close();
        let (state, seen) = watch::channel(State::Queued);
        let mut following = Following::new(seen);
        assert!(matches!(following.next().await, Update::Queued));
        // As when a worker that is back tells all at once what it did while the coordinator was away.
        let running = Running { worker: "one".to_owned(), lease: 7, logs };
        state.send_replace(State::Executing { running: running.clone(), started: true });
        state.send_replace(State::Done { done: Arc::default(), ran: Some(running) });
        let update = following.next().await;
        assert!(matches!(&update, Update::Executing { worker, lease: 7 } if worker == "one"), "{update:?}");
        let update = following.next().await;
        assert!(matches!(&update, Update::Output { data, .. } if data == "went on"), "{update:?}");
        assert!(matches!(following.next().await, Update::Done(_)));
    }

    #[tokio::test]
    async fn what_a_command_uses_is_told_when_it_is_known_and_not_again() {
        let logs = Arc::new(Logs::default());
        let running = Running { worker: "one".to_owned(), lease: 7, logs: logs.clone() };
        let (state, seen) = watch::channel(State::Executing { running, started: true });
        let mut following = Following::new(seen);
        assert!(matches!(following.next().await, Update::Executing { .. }));
        for run_ms in [1_000, 2_000] {
            let used = UsageSoFar { run_ms, ..UsageSoFar::default() };
            let (update, ()) = tokio::join!(following.next(), async {
                logs.usage.send_replace(Some(used));
            });
            assert!(matches!(update, Update::Usage(told) if told == used), "{update:?}");
        }
        state.send_replace(State::Done { done: Arc::default(), ran: None });
        assert!(matches!(following.next().await, Update::Done(_)));
    }
}
