//! Lease ids.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::types::LeaseId;

/// A sequence of ids that is determined by its seed, and unpredictable without it.
#[derive(Debug)]
pub(super) enum LeaseIds {
    Counted(u64),
    Derived(Box<ChaCha20Rng>, u64),
}

/// Bits of an id that do not belong to the epoch.
const DERIVED_BITS: u32 = 40;

impl LeaseIds {
    /// In an epoch other than 0, the ids begin with it, so that leases of different terms differ for certain.
    pub(super) fn new(seed: Option<[u8; 32]>, epoch: u64) -> Self {
        match seed {
            None => Self::Counted(0),
            Some(seed) => Self::Derived(Box::new(ChaCha20Rng::from_seed(seed)), epoch),
        }
    }

    pub(super) fn next(&mut self) -> LeaseId {
        match self {
            Self::Counted(last) => {
                *last += 1;
                LeaseId(*last)
            }
            // 64 bits: a collision within a farm's life is practically impossible, and so is one of 40 bits within a term.
            Self::Derived(derived, 0) => LeaseId(derived.next_u64()),
            Self::Derived(derived, epoch) => {
                LeaseId((*epoch << DERIVED_BITS) | (derived.next_u64() >> (u64::BITS - DERIVED_BITS)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_the_seed_and_do_not_follow_each_other() {
        let numbers = |seed| {
            let mut ids = LeaseIds::new(Some([seed; 32]), 0);
            (0..100).map(|_| ids.next().0).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1), numbers(1));
        assert!(numbers(1).iter().all(|number| !numbers(2).contains(number)));
        assert!(numbers(1).windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 1));
    }

    #[test]
    fn an_id_begins_with_its_epoch() {
        let ids = |epoch| {
            let mut ids = LeaseIds::new(Some([7; 32]), epoch);
            (0..100).map(|_| ids.next().0).collect::<Vec<_>>()
        };
        assert!(ids(3).iter().all(|id| id >> DERIVED_BITS == 3));
        assert!(ids(3).iter().all(|id| !ids(4).contains(id)), "expected the same seed to give others in another epoch");
        // An epoch of more bits than there are counts with its last ones.
        assert!(ids((1 << 24) + 5).iter().all(|id| id >> DERIVED_BITS == 5));
    }
}
