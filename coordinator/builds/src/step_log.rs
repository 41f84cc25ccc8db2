//! What a build's event log keeps of a step's output: the beginning as it appears, and the end when the step has ended.
//!
//! Invariant: a step's part of the log is bounded by [`FIRST_BYTES`] and [`LAST_BYTES`]; where output is left out, the
//! log says how much. The whole output is in the store.

use std::collections::VecDeque;

use bytes::Bytes;
use kiln_proto::v1::{self, StepRef, event};

use super::Work;

/// Bytes that are logged as they appear.
const FIRST_BYTES: u64 = 4 << 20;
/// The least that a piece counts for: each is an event, however small.
const LEAST_BYTES: u64 = 256;
/// Bytes of the end that are logged when the step has ended: that is where failures are explained.
const LAST_BYTES: usize = 64 << 10;

/// Appends a step's output to its build's events.
pub(super) struct StepLog<'a> {
    work: &'a Work,
    step: StepRef,
    told: u64,
    skipped: u64,
    last: VecDeque<(v1::Stream, Bytes)>,
    last_bytes: usize,
}

impl<'a> StepLog<'a> {
    pub(super) fn new(work: &'a Work, step: StepRef) -> Self {
        Self { work, step, told: 0, skipped: 0, last: VecDeque::new(), last_bytes: 0 }
    }

    /// Adds output; `lost` bytes before it were lost on the way.
    pub(super) fn push(&mut self, stream: v1::Stream, mut data: Bytes, lost: u64) {
        self.skipped += lost;
        if self.told < FIRST_BYTES {
            self.told += (data.len() as u64).max(LEAST_BYTES);
            return self.tell(stream, data);
        }
        if data.len() > LAST_BYTES {
            self.skipped += (data.len() - LAST_BYTES) as u64;
            data = data.slice(data.len() - LAST_BYTES..);
        }
        self.last_bytes += data.len();
        self.last.push_back((stream, data));
        while self.last_bytes > LAST_BYTES {
            let Some((_, old)) = self.last.pop_front() else { break };
            self.last_bytes -= old.len();
            self.skipped += old.len() as u64;
        }
    }

    /// The step has ended: logs what was kept of its end.
    pub(super) fn end(mut self) {
        for (stream, data) in std::mem::take(&mut self.last) {
            self.tell(stream, data);
        }
        if self.skipped > 0 {
            self.tell(v1::Stream::Stdout, Bytes::new());
        }
    }

    fn tell(&mut self, stream: v1::Stream, data: Bytes) {
        let stream = if stream == v1::Stream::Stderr { "stderr" } else { "stdout" }.to_owned();
        let skipped_bytes = std::mem::take(&mut self.skipped);
        let log = v1::Log { step: Some(self.step.clone()), stream, data, skipped_bytes };
        self.work.tell(event::Event::Log(log));
    }
}
