//! The blobs that a lease's worker may read: its action, command and input tree, and the chunks of those.

use std::collections::HashSet;

use kiln_proto::digest::Digest;
use parking_lot::Mutex;

/// Maximum number of chunk digests kept for one lease.
const MAX_CHUNKS: usize = 1_000_000;

/// A set of digests that keeps the first eight bytes of each. To hit another tenant's blob, a worker would have to find
/// a SHA-256 with 64 given leading bits and be given a lease that names it.
#[derive(Debug, Default)]
pub struct Reach {
    inputs: Vec<u64>,
    chunks: Mutex<HashSet<u64>>,
}

fn short(digest: &Digest) -> u64 {
    u64::from_le_bytes(digest.hash[..8].try_into().unwrap_or_default())
}

impl Reach {
    pub fn of<'a>(digests: impl Iterator<Item = &'a Digest>) -> Self {
        let mut inputs: Vec<u64> = digests.map(short).collect();
        inputs.sort_unstable();
        inputs.dedup();
        Self { inputs, chunks: Mutex::default() }
    }

    pub fn has(&self, digest: &Digest) -> bool {
        let short = short(digest);
        self.inputs.binary_search(&short).is_ok() || self.chunks.lock().contains(&short)
    }

    /// Adds the chunks of a blob in the set.
    pub fn add_chunks<'a>(&self, digests: impl Iterator<Item = &'a Digest>) {
        let mut chunks = self.chunks.lock();
        for digest in digests {
            if chunks.len() < MAX_CHUNKS {
                chunks.insert(short(digest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_proto::digest::DigestFunction;

    use super::*;

    #[test]
    fn only_what_was_put_in_is_within_reach() {
        let digest = |text: &str| DigestFunction::Sha256.digest(text.as_bytes());
        let reach = Reach::of([digest("root"), digest("file")].iter());
        assert!(reach.has(&digest("file")) && !reach.has(&digest("other")));
        reach.add_chunks([digest("chunk")].iter());
        assert!(reach.has(&digest("chunk")));
    }
}
