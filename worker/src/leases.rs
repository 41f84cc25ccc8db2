//! The leases that this worker holds: running ones, and results that are not acknowledged yet.
//!
//! Invariants: a lease is listed from its arrival until the coordinator has acknowledged its result. A connection carries what is kept of a
//! lease before what comes meanwhile: a coordinator takes output that is out of order for lost.

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
    /// The current connection, once it carries what was kept.
    outbox: Option<mpsc::Sender<v1::WorkerMessage>>,
    /// The number of the current connection.
    connection: u64,
}

/// What a connection has carried of a lease.
#[derive(Debug, Default)]
struct Carried {
    started: bool,
    finished: bool,
    /// Where the next output of each stream begins.
    next: HashMap<i32, u64>,
}

impl Held {
    /// What a connection has yet to carry, and notes it as carried.
    fn missing(&self, carried: &mut Carried) -> Vec<v1::WorkerMessage> {
        let mut messages = Vec::new();
        if self.started.is_some() && !std::mem::replace(&mut carried.started, true) {
            let started = v1::LeaseStarted { lease: self.lease.lease, at: self.started };
            messages.push(wrap(Message::Started(started)));
        }
        for chunk in &self.backlog {
            let next = carried.next.entry(chunk.stream).or_default();
            if chunk.offset >= *next {
                *next = chunk.offset + chunk.data.len() as u64;
                messages.push(wrap(Message::Output(chunk.clone())));
            }
        }
        if let Some(finished) = &self.finished
            && !std::mem::replace(&mut carried.finished, true)
        {
            messages.push(wrap(Message::Finished(finished.clone())));
        }
        messages
    }
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

    /// Begins a connection: its number, and the leases for `Register`. It carries nothing else before [`catch_up`](Self::catch_up).
    pub(crate) fn connect(&self) -> (u64, Vec<v1::RunningLease>) {
        let mut state = self.state.lock();
        state.connection += 1;
        let mut held: Vec<&Held> = state.held.values().collect();
        held.sort_by_key(|held| held.lease.lease);
        let running = held.into_iter().map(|held| v1::RunningLease {
            lease: held.lease.lease,
            instance: held.lease.instance.clone(),
            action_digest: held.lease.action_digest.clone(),
            digest_function: held.lease.digest_function,
            reserved: held.lease.reserved,
            grant: held.lease.grant.clone(),
        });
        let running = running.collect();
        (state.connection, running)
    }

    /// Sends what was kept, and whatever comes meanwhile after it; from then on, messages go to this outbox at once.
    pub(crate) async fn catch_up(&self, connection: u64, outbox: mpsc::Sender<v1::WorkerMessage>) {
        let mut carried: HashMap<u64, Carried> = HashMap::new();
        loop {
            let messages: Vec<v1::WorkerMessage> = {
                let mut state = self.state.lock();
                if state.connection != connection {
                    return;
                }
                let mut held: Vec<&Held> = state.held.values().collect();
                held.sort_by_key(|held| held.lease.lease);
                let missing = |held: &Held| held.missing(carried.entry(held.lease.lease).or_default());
                let messages: Vec<_> = held.into_iter().flat_map(missing).collect();
                if messages.is_empty() {
                    state.outbox = Some(outbox);
                    return;
                }
                messages
            };
            for message in messages {
                if outbox.send(message).await.is_err() {
                    return;
                }
            }
        }
    }

    pub(crate) fn disconnect(&self) {
        let mut state = self.state.lock();
        state.outbox = None;
        state.connection += 1;
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
        leases.finished(v1::LeaseFinished { lease: 7, ..Default::default() }).await;
        for _ in 0..2 {
            let (outbox, mut inbox) = mpsc::channel(8);
            let (connection, running) = leases.connect();
            assert_eq!(running.len(), 1, "expected the lease to be named until it is acknowledged");
            leases.catch_up(connection, outbox).await;
            leases.disconnect();
            let mut last = None;
            while let Some(message) = inbox.recv().await {
                last = message.message;
            }
            assert!(matches!(last, Some(Message::Finished(_))), "{last:?}");
        }
        leases.acknowledged(7);
        leases.idle().await;
    }

    #[tokio::test]
    async fn what_was_kept_comes_before_what_comes_while_a_connection_begins() {
        let leases = Leases::default();
        leases.take(lease(7)).expect("expected a new lease");
        let output = async |offset: u64| leases.output(7, v1::Stream::Stdout, offset, Bytes::from_static(b"x")).await;
        output(0).await;
        let (connection, _) = leases.connect();
        output(1).await;
        // It has room for one message, so that more comes while it catches up.
        let (outbox, mut inbox) = mpsc::channel(1);
        let (mut offsets, mut catching) = (Vec::new(), Box::pin(leases.catch_up(connection, outbox)));
        for more in 2..6 {
            assert!(futures::poll!(&mut catching).is_pending());
            output(more).await;
            offsets.extend(inbox.recv().await);
        }
        let (_, ()) = tokio::join!(catching, async {
            while offsets.len() < 6 {
                offsets.extend(inbox.recv().await);
            }
        });
        output(6).await;
        offsets.extend(inbox.recv().await);
        let offsets: Vec<u64> = offsets
            .iter()
            .filter_map(|message| match &message.message {
                Some(Message::Output(chunk)) => Some(chunk.offset),
                _ => None,
            })
            .collect();
        assert_eq!(offsets, (0..7).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_connection_that_is_over_carries_nothing_more() {
        let leases = Leases::default();
        leases.take(lease(7)).expect("expected a new lease");
        let (connection, _) = leases.connect();
        leases.disconnect();
        let (outbox, mut inbox) = mpsc::channel(8);
        leases.catch_up(connection, outbox).await;
        leases.started(7).await;
        assert!(inbox.recv().await.is_none());
    }
}
