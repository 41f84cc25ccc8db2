//! What became of the tests of an action in its runs: a test that both passed and failed with the same inputs is flaky.

use std::collections::HashSet;

use kiln_journal::{Batch, Durability, Range, Space};
use kiln_proto::clock;
use kiln_proto::digest::Digest;
use prost::Message;

use super::{Error, Records};

/// Action to [`Outcomes`].
const OUTCOMES: Space = "test-outcomes";
/// Most actions.
const MAX_ACTIONS: usize = 2_000;

/// What the runs of an action had. Tests are numbers that stand for their names.
#[derive(Clone, PartialEq, Message)]
struct Outcomes {
    #[prost(int64, tag = "1")]
    at: i64,
    #[prost(fixed64, repeated, tag = "2")]
    passed: Vec<u64>,
    #[prost(fixed64, repeated, tag = "3")]
    failed: Vec<u64>,
}

/// The tests of a run.
#[derive(Debug, Default)]
pub struct Run {
    /// Those that passed.
    pub passed: HashSet<u64>,
    /// Those that failed.
    pub failed: HashSet<u64>,
}

impl Records {
    /// Adds a run of an action to the earlier ones; returns all of them together.
    pub async fn add_outcomes(&self, action: &Digest, run: Run) -> Result<Run, Error> {
        let key = action.to_string();
        let found = self.journal.get(OUTCOMES, &key).await?;
        let known = found.map(Outcomes::decode).transpose()?.unwrap_or_default();
        let mut all = run;
        let before = (all.passed.len(), all.failed.len());
        all.passed.extend(&known.passed);
        all.failed.extend(&known.failed);
        if before != (0, 0) && (all.passed.len() > known.passed.len() || all.failed.len() > known.failed.len()) {
            let at = clock::now().seconds;
            let numbers = |set: &HashSet<u64>| set.iter().copied().collect();
            let outcomes = Outcomes { at, passed: numbers(&all.passed), failed: numbers(&all.failed) };
            let batch = Batch::default().put(OUTCOMES, key, outcomes.encode_to_vec());
            self.journal.commit(batch, Durability::Relaxed).await?;
        }
        Ok(all)
    }

    /// Removes the oldest beyond the limit.
    pub async fn trim_outcomes(&self) -> Result<(), Error> {
        if self.journal.count(OUTCOMES).await? <= MAX_ACTIONS as u64 {
            return Ok(());
        }
        let all = self.journal.list(OUTCOMES, Range::default()).await?.into_iter();
        let mut all: Vec<(i64, String)> =
            all.map(|(key, data)| (Outcomes::decode(data).map_or(0, |outcomes| outcomes.at), key)).collect();
        all.sort();
        let surplus = all.len().saturating_sub(MAX_ACTIONS / 10 * 9);
        let batch = all.into_iter().take(surplus).fold(Batch::default(), |batch, (_, key)| batch.remove(OUTCOMES, key));
        Ok(self.journal.commit(batch, Durability::Relaxed).await?)
    }
}
