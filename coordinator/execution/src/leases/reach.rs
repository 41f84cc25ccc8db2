//! The blobs that a lease's worker may read: its action, command and input tree, its caches, and the chunks of those; and the blobs that it
//! has sent for the lease, or has shown to have.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_proto::digest::Digest;
use parking_lot::Mutex;

/// Maximum number of digests added to one lease.
const MAX_ADDED: usize = 2_000_000;
/// Maximum number of blobs of one lease of which it is remembered that they were sent or shown.
const MAX_SHOWN: usize = 1_000_000;

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
        self.lacks(std::slice::from_ref(digest)).is_empty()
    }

    /// Those of these digests that are not in the set.
    pub fn lacks(&self, digests: &[Digest]) -> Vec<Digest> {
        let added = self.added.lock();
        let has = |digest: &Digest| {
            let short = short(digest);
            self.inputs.binary_search(&short).is_ok() || added.contains(&short)
        };
        digests.iter().filter(|digest| !has(digest)).copied().collect()
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

/// The blobs that a worker has sent for a lease or has shown to have, by the first 16 bytes of each digest: a worker chooses what it sends, so
/// the eight of [`Reach`] would not do.
#[derive(Debug, Default)]
pub struct Shown {
    blobs: Mutex<HashSet<[u8; 16]>>,
    refuted: AtomicBool,
}

fn long(digest: &Digest) -> [u8; 16] {
    digest.hash[..16].try_into().unwrap_or_default()
}

impl Shown {
    /// The worker has this blob, whole. Beyond a limit it is not remembered.
    pub fn add(&self, digest: &Digest) {
        let mut blobs = self.blobs.lock();
        if blobs.len() < MAX_SHOWN {
            blobs.insert(long(digest));
        }
    }

    /// Those of these digests that were neither sent nor shown. Everybody has the empty blob.
    pub fn lacks(&self, digests: &[Digest]) -> Vec<Digest> {
        let blobs = self.blobs.lock();
        digests.iter().filter(|digest| !digest.is_empty() && !blobs.contains(&long(digest))).copied().collect()
    }

    /// The worker wanted to show what it does not have.
    pub fn refute(&self) {
        self.refuted.store(true, Ordering::Release);
    }

    /// Whether it ever did.
    pub fn is_refuted(&self) -> bool {
        self.refuted.load(Ordering::Acquire)
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

    #[test]
    fn what_was_not_sent_is_lacking_even_if_half_of_its_digest_is_that_of_something_sent() {
        let (sent, digest) = (Shown::default(), DigestFunction::Sha256.digest(b"sent"));
        let mut similar = digest;
        similar.hash[15] ^= 1;
        let empty = Digest::empty(DigestFunction::Sha256);
        assert_eq!(sent.lacks(&[digest, empty]), [digest]);
        sent.add(&digest);
        assert_eq!(sent.lacks(&[digest, similar, empty]), [similar]);
    }
}
