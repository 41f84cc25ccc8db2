//! Lease ids.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::types::LeaseId;

/// A sequence of ids that is determined by its seed, and unpredictable without it.
#[derive(Debug)]
pub(super) enum LeaseIds {
    Counted(u64),
    Derived(Box<ChaCha20Rng>),
}

impl LeaseIds {
    pub(super) fn new(seed: Option<[u8; 32]>) -> Self {
        match seed {
            None => Self::Counted(0),
            Some(seed) => Self::Derived(Box::new(ChaCha20Rng::from_seed(seed))),
        }
    }

    pub(super) fn next(&mut self) -> LeaseId {
        match self {
            Self::Counted(last) => {
                *last += 1;
                LeaseId(*last)
            }
            // 64 bits: a collision within a farm's life is practically impossible.
            Self::Derived(derived) => LeaseId(derived.next_u64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_the_seed_and_do_not_follow_each_other() {
        let numbers = |seed| {
            let mut ids = LeaseIds::new(Some([seed; 32]));
            (0..100).map(|_| ids.next().0).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1), numbers(1));
        assert!(numbers(1).iter().all(|number| !numbers(2).contains(number)));
        assert!(numbers(1).windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 1));
    }
}
