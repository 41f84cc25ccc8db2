//! Classes of blobs by size, and how each goes over the wire.

use std::collections::HashSet;

use kiln_proto::digest::Digest;
use tonic::Status;

use super::endpoint::Endpoint;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Content of one round: held in memory, at times twice.
const ROUND_BYTES: u64 = 256 * MIB;
/// Calls of one round.
const ROUND_CALLS: usize = 4096;

/// Blobs of one size.
#[derive(Debug, Clone, Copy)]
pub struct Class {
    /// Bytes of each.
    pub size: u64,
    /// Whether they go in batches as full as the endpoint takes; else each is a call.
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

    /// Whether one goes by ByteStream.
    pub fn is_streamed(&self) -> bool {
        self.size >= MIB
    }

    /// Blobs of a call.
    pub fn blobs_per_call(&self, endpoint: &Endpoint) -> usize {
        if self.batched { usize::try_from(endpoint.batch_bytes / self.size).unwrap_or(1).max(1) } else { 1 }
    }

    /// Callers at once: of the largest as many as a round's memory holds.
    pub fn lanes(&self, concurrency: usize) -> usize {
        concurrency.min(usize::try_from(ROUND_BYTES / self.size).unwrap_or(1))
    }

    /// Calls of a round.
    pub fn round(&self, blobs_per_call: usize, lanes: usize) -> usize {
        let held = usize::try_from(ROUND_BYTES / (self.size * blobs_per_call as u64)).unwrap_or(1);
        held.clamp(lanes, ROUND_CALLS.max(lanes))
    }
}

/// The bytes of these blobs, or that the endpoint lost one.
pub fn none_missing(sent: &[Digest], missing: &HashSet<Digest>) -> Result<u64, Status> {
    match sent.iter().find(|digest| missing.contains(digest)) {
        Some(lost) => Err(Status::data_loss(format!("blob `{lost}` was taken, and is missing"))),
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
