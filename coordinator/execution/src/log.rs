//! The live output of a running action: a bounded window with any number of readers.
//!
//! Invariant: memory is bounded by [`WINDOW_BYTES`] for each stream; a reader that is too slow skips ahead and is told
//! by how much. The complete output is in the store once the action has ended.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use kiln_proto::v1::{SplitCalls, Stream, UsageSoFar};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Bytes of each stream kept for readers.
const WINDOW_BYTES: usize = 1 << 20;
/// Maximum number of chunks kept of each stream: each has some memory overhead.
const WINDOW_PIECES: usize = 8192;

#[derive(Debug, Default)]
struct Window {
    chunks: VecDeque<Bytes>,
    /// Stream offset of the first byte of `chunks`.
    start: u64,
    /// Stream offset after the last byte.
    end: u64,
    done: bool,
}

/// One stream of one running action.
#[derive(Debug)]
pub struct Log {
    window: Mutex<Window>,
    changed: watch::Sender<()>,
}

/// What a reader gets at its offset.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Bytes that were dropped already.
    pub skipped: u64,
    /// The bytes after those.
    pub data: Bytes,
}

impl Default for Log {
    fn default() -> Self {
        Self { window: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Log {
    /// Appends a worker's data; bytes that are known already are left out, so a repeated message does no harm.
    pub fn push(&self, offset: u64, mut data: Bytes) {
        // No stream is that long: the worker sent an invalid offset.
        let Some(after) = offset.checked_add(data.len() as u64) else { return };
        {
            let mut window = self.window.lock();
            let known = window.end.saturating_sub(offset);
            if known >= data.len() as u64 {
                return;
            }
            // Data larger than the window is cut to its end and copied, because a slice would keep the whole message in
            // memory.
            let from = (known as usize).max(data.len().saturating_sub(WINDOW_BYTES));
            data = if from > 0 { Bytes::copy_from_slice(&data[from..]) } else { data };
            let at = offset + from as u64;
            if at > window.end {
                window.chunks.clear();
                window.start = at;
            }
            window.end = after;
            window.chunks.push_back(data);
            let too_much = |window: &Window| {
                window.end - window.start > WINDOW_BYTES as u64 || window.chunks.len() > WINDOW_PIECES
            };
            while too_much(&window) && window.chunks.len() > 1 {
                if let Some(old) = window.chunks.pop_front() {
                    window.start += old.len() as u64;
                }
            }
        }
        self.changed.send_replace(());
    }

    /// Ends the stream.
    pub fn close(&self) {
        self.window.lock().done = true;
        self.changed.send_replace(());
    }

    /// Returns the data at `cursor` and advances it; `None` if there is none yet.
    pub fn take(&self, cursor: &mut u64) -> Option<Found> {
        let window = self.window.lock();
        if *cursor >= window.end {
            return None;
        }
        let skipped = window.start.saturating_sub(*cursor);
        let mut at = window.start;
        for chunk in &window.chunks {
            let after = at + chunk.len() as u64;
            if after > *cursor {
                let within = cursor.saturating_sub(at) as usize;
                *cursor = after;
                return Some(Found { skipped, data: chunk.slice(within..) });
            }
            at = after;
        }
        None
    }

    /// A receiver that wakes on each change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn is_done(&self) -> bool {
        self.window.lock().done
    }
}

/// Both streams of one lease, what becomes of its compiler calls, and what it uses.
#[derive(Debug, Default)]
pub struct Logs {
    tenant: OnceLock<String>,
    /// Standard output.
    pub stdout: Log,
    /// Standard error.
    pub stderr: Log,
    /// What has become of its compiler calls so far, if its worker has said so.
    pub calls: watch::Sender<Option<SplitCalls>>,
    /// What it has used so far, if its worker has said so.
    pub usage: watch::Sender<Option<UsageSoFar>>,
}

impl Logs {
    /// Records the tenant; the first call counts.
    pub fn belong_to(&self, tenant: &str) {
        let _ = self.tenant.set(tenant.to_owned());
    }

    /// Adds a chunk to the stream that it names.
    pub fn push(&self, stream: Stream, offset: u64, data: Bytes) {
        match stream {
            Stream::Stdout => self.stdout.push(offset, data),
            Stream::Stderr => self.stderr.push(offset, data),
            Stream::Unspecified => {}
        }
    }

    /// Ends both streams.
    pub fn close(&self) {
        self.stdout.close();
        self.stderr.close();
    }
}

/// The live logs of all running actions, by lease.
#[derive(Debug, Default)]
pub struct LiveLogs {
    leases: Mutex<HashMap<u64, Arc<Logs>>>,
}

impl LiveLogs {
    /// The logs of a lease, created if missing.
    pub fn of(&self, lease: u64) -> Arc<Logs> {
        self.leases.lock().entry(lease).or_default().clone()
    }

    /// Ends a lease's logs; readers get the remaining data and then the end.
    pub fn close(&self, lease: u64) {
        if let Some(logs) = self.leases.lock().remove(&lease) {
            logs.close();
        }
    }

    /// The names under which ByteStream serves a lease's streams.
    pub fn names(instance: &str, lease: u64) -> (String, String) {
        let prefix = if instance.is_empty() { String::new() } else { format!("{instance}/") };
        (format!("{prefix}logs/{lease}/stdout"), format!("{prefix}logs/{lease}/stderr"))
    }
}

/// Live output of running actions, read under `{instance}/logs/{lease}/{stdout|stderr}`.
pub trait ReadLogs: Send + Sync {
    /// The output from its beginning, live; ends with the action. `None` if no such action is running.
    fn open(&self, name: &str) -> Option<BoxStream<'static, Bytes>>;
}

/// A reader for a farm or a test without running actions.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLogs;

impl ReadLogs for NoLogs {
    fn open(&self, _name: &str) -> Option<BoxStream<'static, Bytes>> {
        None
    }
}

/// The live output of one tenant's actions only.
#[derive(Debug)]
pub struct TenantLogs {
    all: Arc<LiveLogs>,
    tenant: String,
}

impl TenantLogs {
    /// The logs of this tenant's leases.
    pub fn new(all: Arc<LiveLogs>, tenant: String) -> Self {
        Self { all, tenant }
    }
}

impl ReadLogs for TenantLogs {
    fn open(&self, name: &str) -> Option<BoxStream<'static, Bytes>> {
        let (rest, stream) = name.rsplit_once('/')?;
        let lease: u64 = rest.rsplit_once('/').map_or(rest, |(_, lease)| lease).parse().ok()?;
        if !matches!(stream, "stdout" | "stderr") {
            return None;
        }
        let logs = self.all.leases.lock().get(&lease)?.clone();
        if logs.tenant.get().is_none_or(|tenant| *tenant != self.tenant) {
            return None;
        }
        let is_stdout = stream == "stdout";
        let changes = if is_stdout { logs.stdout.changes() } else { logs.stderr.changes() };
        let state = (logs, changes, 0_u64);
        let stream = futures::stream::unfold(state, move |(logs, mut changes, mut cursor)| async move {
            loop {
                let log = if is_stdout { &logs.stdout } else { &logs.stderr };
                let done = log.is_done();
                changes.mark_unchanged();
                if let Some(found) = log.take(&mut cursor) {
                    return Some((found.data, (logs, changes, cursor)));
                }
                if done || changes.changed().await.is_err() {
                    return None;
                }
            }
        });
        Some(stream.boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_chunk_is_taken_once() {
        let log = Log::default();
        log.push(0, Bytes::from_static(b"abc"));
        log.push(0, Bytes::from_static(b"abcd"));
        let mut cursor = 0;
        let mut all = Vec::new();
        while let Some(found) = log.take(&mut cursor) {
            all.extend_from_slice(&found.data);
        }
        assert_eq!(all, b"abcd");
    }

    #[test]
    fn a_window_is_bounded_whatever_a_worker_sends() {
        let log = Log::default();
        log.push(u64::MAX - 1, Bytes::from_static(b"past the end of all numbers"));
        log.push(0, Bytes::from(vec![b'x'; 16 << 20]));
        let held = |log: &Log| log.window.lock().chunks.iter().map(Bytes::len).sum::<usize>();
        assert_eq!(held(&log), WINDOW_BYTES);
        for offset in 0..100_000 {
            log.push((16 << 20) + offset, Bytes::from_static(b"y"));
        }
        assert_eq!(log.window.lock().chunks.len(), WINDOW_PIECES);
        let mut cursor = 0;
        let found = log.take(&mut cursor).expect("expected the window's first piece");
        assert_eq!(found.skipped + WINDOW_PIECES as u64, (16 << 20) + 100_000);
    }

    #[test]
    fn a_slow_reader_is_told_what_it_missed() {
        let log = Log::default();
        let chunk = Bytes::from(vec![b'x'; WINDOW_BYTES / 2]);
        for index in 0..4 {
            log.push(index * chunk.len() as u64, chunk.clone());
        }
        let mut cursor = 0;
        let found = log.take(&mut cursor).expect("expected the window's first chunk");
        assert_eq!(found.skipped, WINDOW_BYTES as u64);
        assert_eq!(found.data.len(), chunk.len());
    }
}
