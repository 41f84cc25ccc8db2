//! The blobs that a lease's worker may read: its action, command and input tree, its caches, and the chunks of those.

use std::collections::HashSet;

use kiln_proto::digest::Digest;
use parking_lot::Mutex;

/// Maximum number of digests added to one lease.
const MAX_ADDED: usize = 2_000_000;

/// A set of digests that keeps the first eight bytes of each. To hit another tenant's blob, a worker would have to find
/// a SHA-256 with 64 given leading bits and be given a lease that names it.
#[derive(Debug, Default)]
pub struct Reach {
    inputs: Vec<u64>,
    added: Mutex<HashSet<u64>>,
    /// Trees whose blobs belong to the set too, but were not added yet: most workers have them already.
    trees: tokio::sync::Mutex<Vec<Digest>>,
}

fn short(digest: &Digest) -> u64 {
    u64::from_le_bytes(digest.hash[..8].try_into().unwrap_or_default())
}

impl Reach {
    pub fn of<'a>(digests: impl Iterator<Item = &'a Digest>) -> Self {
        let mut inputs: Vec<u64> = digests.map(short).collect();
        inputs.sort_unstable();
        inputs.dedup();
        Self { inputs, added: Mutex::default(), trees: tokio::sync::Mutex::default() }
    }

    pub fn has(&self, digest: &Digest) -> bool {
        let short = short(digest);
        self.inputs.binary_search(&short).is_ok() || self.added.lock().contains(&short)
    }

    /// Adds everything that a tree consists of, when something of it is read.
    pub async fn add_tree(&self, tree: Digest) {
        self.trees.lock().await.push(tree);
    }

    /// The trees that were not added yet. Others wait until this caller has added them.
    pub async fn trees(&self) -> tokio::sync::MutexGuard<'_, Vec<Digest>> {
        self.trees.lock().await
    }

    /// Adds the chunks of a blob in the set, or the blobs of a cache.
    pub fn add<'a>(&self, digests: impl Iterator<Item = &'a Digest>) {
        let mut added = self.added.lock();
        for digest in digests {
            if added.len() < MAX_ADDED {
                added.insert(short(digest));
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
        reach.add([digest("chunk")].iter());
        assert!(reach.has(&digest("chunk")));
    }
}
