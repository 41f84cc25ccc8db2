//! Keeps a worker from a leader of the past.
//!
//! A coordinator that was cut off from the others may not know yet that another one leads the farm, and still accept
//! workers. Whatever it would give them is no longer the farm's.

/// The newest leader that this worker was greeted by.
#[derive(Debug, Default)]
pub(super) struct Fence {
    newest: u64,
    /// The last one that was refused.
    refused: Option<u64>,
}

/// Why a leader was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the coordinator led the farm in the past (epoch {epoch}), and this worker has been greeted by a later leader (epoch {newest}); \
     trying another address"
)]
pub(super) struct Past {
    epoch: u64,
    newest: u64,
    /// Whether it is the first time that this one is refused.
    pub(super) is_news: bool,
}

impl Fence {
    /// Admits a leader by the epoch of its greeting; 0 is the only coordinator of its farm.
    ///
    /// # Errors
    /// If a later one has been admitted.
    pub(super) fn admit(&mut self, epoch: u64) -> Result<(), Past> {
        if epoch != 0 && epoch < self.newest {
            let is_news = self.refused.replace(epoch) != Some(epoch);
            return Err(Past { epoch, newest: self.newest, is_news });
        }
        self.newest = self.newest.max(epoch);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_of_the_past_is_refused_and_a_farm_of_one_never_is() {
        let mut fence = Fence::default();
        for epoch in [0, 3, 3, 7, 0] {
            assert_eq!(fence.admit(epoch), Ok(()), "{epoch}");
        }
        let past = |is_news| Err(Past { epoch: 6, newest: 7, is_news });
        assert_eq!(fence.admit(6), past(true), "expected epoch 0 to change nothing");
        assert_eq!(fence.admit(6), past(false));
        assert_eq!(fence.admit(7), Ok(()));
    }

    proptest::proptest! {
        #[test]
        fn admitted_epochs_never_go_back(epochs in proptest::collection::vec(0..20_u64, 0..50)) {
            let mut fence = Fence::default();
            let admitted: Vec<u64> =
                epochs.iter().copied().filter(|epoch| fence.admit(*epoch).is_ok() && *epoch != 0).collect();
            proptest::prop_assert!(admitted.is_sorted());
            let newest = epochs.iter().max().copied().unwrap_or(0);
            proptest::prop_assert!(fence.admit(newest).is_ok());
        }
    }
}
