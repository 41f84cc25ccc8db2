//! The leases that this worker holds: running ones, and results that are not acknowledged yet.
//!
//! Invariant: a lease is listed from its arrival until the coordinator has acknowledged its result.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1;
use kiln_proto::v1::worker_message::Message;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Bytes of a lease's output kept for the next connection; older output is only in the result's blobs.
const BACKLOG_BYTES: usize = 1 << 20;

#[derive(Debug)]
struct Held {
    lease: v1::Lease,
    cancel: CancellationToken,
    started: Option<Timestamp>,
    finished: Option<v1::LeaseFinished>,
    backlog: VecDeque<v1::OutputChunk>,
    backlog_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<u64, Held>,
    /// The current connection, if there is one.
    outbox: Option<mpsc::Sender<v1::WorkerMessage>>,
}

/// A worker's leases, independent of connections.
#[derive(Debug)]
pub struct Leases {
    state: Mutex<State>,
    running: watch::Sender<usize>,
}

impl Default for Leases {
    fn default() -> Self {
        Self { state: Mutex::default(), running: watch::Sender::new(0) }
    }
}

fn wrap(message: Message) -> v1::WorkerMessage {
    v1::WorkerMessage { message: Some(message) }
}

impl Leases {
    /// Adds a lease; `None` if it is held already.
    pub(crate) fn take(&self, mut lease: v1::Lease) -> Option<CancellationToken> {
        // The runner keeps the secrets for as long as the command runs.
        lease.secrets.clear();
        lease.credentials.clear();
        let mut state = self.state.lock();
        if state.held.contains_key(&lease.lease) {
            return None;
        }
        let cancel = CancellationToken::new();
        let id = lease.lease;
        let held = Held {
            lease,
            cancel: cancel.clone(),
            started: None,
            finished: None,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
        };
        state.held.insert(id, held);
        drop(state);
        self.count();
        Some(cancel)
    }

    /// Reports that the command is running.
    pub(crate) async fn started(&self, lease: u64) {
        let at = kiln_proto::clock::now();
        let outbox = {
            let mut state = self.state.lock();
            if let Some(held) = state.held.get_mut(&lease) {
                held.started = Some(at);
            }
            state.outbox.clone()
        };
        if let Some(outbox) = outbox {
            let _ = outbox.send(wrap(Message::Started(v1::LeaseStarted { lease, at: Some(at) }))).await;
        }
    }

    /// Sends output; waits if the connection is slow. The latest output is kept for the next connection, because the
    /// coordinator may have been restarted and have seen nothing. A coordinator that has seen it recognises it by its
    /// offset.
    pub(crate) async fn output(&self, lease: u64, stream: v1::Stream, offset: u64, data: Bytes) {
        let chunk = v1::OutputChunk { lease, stream: stream as i32, offset, data };
        let outbox = {
            let mut state = self.state.lock();
            if let Some(held) = state.held.get_mut(&lease) {
                held.backlog_bytes += chunk.data.len();
                held.backlog.push_back(chunk.clone());
                while held.backlog_bytes > BACKLOG_BYTES && held.backlog.len() > 1 {
                    held.backlog_bytes -= held.backlog.pop_front().map_or(0, |old| old.data.len());
                }
            }
            state.outbox.clone()
        };
        if let Some(outbox) = outbox {
            let _ = outbox.send(wrap(Message::Output(chunk))).await;
        }
    }

    /// Tells what has become of a lease's compiler calls so far.
    pub(crate) async fn calls(&self, lease: u64, calls: v1::SplitCalls) {
        let outbox = self.state.lock().outbox.clone();
        if let Some(outbox) = outbox {
            let _ = outbox.send(wrap(Message::Calls(v1::LeaseCalls { lease, calls: Some(calls) }))).await;
        }
    }

    /// Tells what a lease's command has used so far.
    pub(crate) async fn usage(&self, lease: u64, usage: v1::UsageSoFar) {
        let outbox = self.state.lock().outbox.clone();
        if let Some(outbox) = outbox {
            let _ = outbox.send(wrap(Message::Usage(v1::LeaseUsage { lease, usage: Some(usage) }))).await;
        }
    }

    /// Records the end of a lease; the result is kept until it is acknowledged.
    pub(crate) async fn finished(&self, finished: v1::LeaseFinished) {
        let outbox = {
            let mut state = self.state.lock();
            if let Some(held) = state.held.get_mut(&finished.lease) {
                held.finished = Some(finished.clone());
            }
            state.outbox.clone()
        };
        self.count();
        if let Some(outbox) = outbox {
            let _ = outbox.send(wrap(Message::Finished(finished))).await;
        }
    }

    pub(crate) fn acknowledged(&self, lease: u64) {
        self.state.lock().held.remove(&lease);
        self.count();
    }

    pub(crate) fn cancel(&self, lease: u64) {
        if let Some(held) = self.state.lock().held.get(&lease) {
            held.cancel.cancel();
        }
    }

    pub(crate) fn cancel_all(&self) {
        self.state.lock().held.values().for_each(|held| held.cancel.cancel());
    }

    /// What a new connection must send: the leases for `Register`, and the messages that follow it.
    pub(crate) fn connect(
        &self,
        outbox: mpsc::Sender<v1::WorkerMessage>,
    ) -> (Vec<v1::RunningLease>, Vec<v1::WorkerMessage>) {
        let mut state = self.state.lock();
        state.outbox = Some(outbox);
        let mut running = Vec::new();
        let mut messages = Vec::new();
        let mut held: Vec<&mut Held> = state.held.values_mut().collect();
        held.sort_by_key(|held| held.lease.lease);
        for held in held {
            running.push(v1::RunningLease {
                lease: held.lease.lease,
                instance: held.lease.instance.clone(),
                action_digest: held.lease.action_digest.clone(),
                digest_function: held.lease.digest_function,
                reserved: held.lease.reserved,
                grant: held.lease.grant.clone(),
            });
            if held.started.is_some() {
                let started = v1::LeaseStarted { lease: held.lease.lease, at: held.started };
                messages.push(wrap(Message::Started(started)));
            }
            messages.extend(held.backlog.iter().cloned().map(|chunk| wrap(Message::Output(chunk))));
            messages.extend(held.finished.clone().map(|finished| wrap(Message::Finished(finished))));
        }
        (running, messages)
    }

    pub(crate) fn disconnect(&self) {
        self.state.lock().outbox = None;
    }

    /// Number of running leases.
    pub fn running_count(&self) -> usize {
        self.state.lock().held.values().filter(|held| held.finished.is_none()).count()
    }

    fn count(&self) {
        self.running.send_replace(self.state.lock().held.len());
    }

    /// Waits until nothing runs and everything is acknowledged.
    pub(crate) async fn idle(&self) {
        let _ = self.running.subscribe().wait_for(|held| *held == 0).await;
    }

    /// Waits until nothing runs, even if results are not acknowledged.
    pub(crate) async fn ended(&self) {
        let _ = self.running.subscribe().wait_for(|_| self.running_count() == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(id: u64) -> v1::Lease {
        v1::Lease { lease: id, ..Default::default() }
    }

    #[tokio::test]
    async fn an_unacknowledged_result_is_sent_again_on_the_next_connection() {
        let leases = Leases::default();
        leases.take(lease(7)).expect("expected a new lease");
        assert!(leases.take(lease(7)).is_none(), "expected a lease to be taken once");
        leases.started(7).await;
        leases.output(7, v1::Stream::Stdout, 0, Bytes::from_static(b"hello")).await;
        leases.finished(v1::LeaseFinished { lease: 7, outcome: None }).await;
        for _ in 0..2 {
            let (outbox, _inbox) = mpsc::channel(8);
            let (running, messages) = leases.connect(outbox);
            assert_eq!(running.len(), 1, "expected the lease to be named until it is acknowledged");
            assert!(matches!(messages.last(), Some(v1::WorkerMessage { message: Some(Message::Finished(_)) })));
            leases.disconnect();
        }
        leases.acknowledged(7);
        leases.idle().await;
    }
}
