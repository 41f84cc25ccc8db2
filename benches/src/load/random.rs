//! Seeded random data: incompressible, and different for each blob.

use bytes::Bytes;
use kiln_proto::digest::Digest;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use crate::actions::FUNCTION;

/// A source of blobs.
#[derive(Debug)]
pub struct Random {
    numbers: SmallRng,
}

impl Random {
    /// A separate source for each case, so that a case has the same data whichever others run.
    pub fn new(seed: u64, case: &str) -> Self {
        let hash = FUNCTION.digest(format!("{seed} {case}").as_bytes()).hash;
        Self { numbers: SmallRng::from_seed(hash) }
    }

    /// New bytes.
    pub fn bytes(&mut self, size: u64) -> Bytes {
        let mut data = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        self.numbers.fill_bytes(&mut data);
        data.into()
    }

    /// A blob and its digest.
    pub fn blob(&mut self, size: u64) -> (Digest, Bytes) {
        let data = self.bytes(size);
        (FUNCTION.digest(&data), data)
    }

    /// The digest of a blob that does not exist.
    pub fn digest(&mut self, size: u64) -> Digest {
        let mut hash = [0; 32];
        self.numbers.fill_bytes(&mut hash);
        Digest { function: FUNCTION, hash, size }
    }

    /// Text that distinguishes an action.
    pub fn word(&mut self) -> String {
        format!("{:016x}", self.numbers.next_u64())
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.numbers.next_u64() % (bound.max(1) as u64)) as usize
    }
}
