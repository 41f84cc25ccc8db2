//! Classes of blobs by size, and how they are transferred.

use std::collections::HashSet;

use kiln_proto::digest::Digest;
use tonic::Status;

use super::endpoint::Endpoint;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Content of one round, which is in memory, at times twice.
const ROUND_BYTES: u64 = 256 * MIB;
/// Maximum number of calls in one round.
const ROUND_CALLS: usize = 4096;

/// Blobs of one size.
#[derive(Debug, Clone, Copy)]
pub struct Class {
    /// Bytes of each.
    pub size: u64,
    /// Whether they are sent in full batches; otherwise each is a call.
    pub batched: bool,
}

/// Every class: small blobs alone and in batches, large ones as streams.
pub const CLASSES: [Class; 8] = [
    Class { size: KIB, batched: false },
    Class { size: KIB, batched: true },
    Class { size: 16 * KIB, batched: false },
    Class { size: 16 * KIB, batched: true },
    Class { size: 256 * KIB, batched: false },
    Class { size: 256 * KIB, batched: true },
    Class { size: 4 * MIB, batched: false },
    Class { size: 64 * MIB, batched: false },
];

impl Class {
    /// Such as `upload-16KiB-batch`.
    pub fn name(&self, verb: &str) -> String {
        let size = if self.size < MIB { format!("{}KiB", self.size / KIB) } else { format!("{}MiB", self.size / MIB) };
        if self.batched { format!("{verb}-{size}-batch") } else { format!("{verb}-{size}") }
    }

    /// Whether they are transferred with ByteStream.
    pub fn is_streamed(&self) -> bool {
        self.size >= MIB
    }

    /// Blobs per call.
    pub fn blobs_per_call(&self, endpoint: &Endpoint) -> usize {
        if self.batched { usize::try_from(endpoint.batch_bytes / self.size).unwrap_or(1).max(1) } else { 1 }
    }

    /// Number of callers: for the largest blobs, as many as a round's memory allows.
    pub fn lanes(&self, concurrency: usize) -> usize {
        concurrency.min(usize::try_from(ROUND_BYTES / self.size).unwrap_or(1))
    }

    /// Calls per round.
    pub fn round(&self, blobs_per_call: usize, lanes: usize) -> usize {
        let held = usize::try_from(ROUND_BYTES / (self.size * blobs_per_call as u64)).unwrap_or(1);
        held.clamp(lanes, ROUND_CALLS.max(lanes))
    }
}

/// The total bytes of these blobs, or an error if the endpoint lost one.
pub fn none_missing(sent: &[Digest], missing: &HashSet<Digest>) -> Result<u64, Status> {
    match sent.iter().find(|digest| missing.contains(digest)) {
        Some(lost) => Err(Status::data_loss(format!("blob `{lost}` was accepted but is missing"))),
        None => Ok(sent.iter().map(|digest| digest.size).sum()),
    }
}

#[cfg(test)]
mod tests {
    use super::CLASSES;

    #[test]
    fn no_round_holds_more_than_its_memory_nor_leaves_a_caller_idle() {
        for class in CLASSES {
            let lanes = class.lanes(64);
            let round = class.round(1, lanes);
            assert!(round >= lanes && round as u64 * class.size <= super::ROUND_BYTES, "{}", class.name("x"));
        }
    }
}
