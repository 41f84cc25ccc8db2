//! What earlier runs of steps took, in time and memory. It decides in which order steps run, what is expected of them, and what they reserve; never
//! what they make.
//!
//! Invariant: a record that is missing, old or wrong costs time and nothing else.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_journal::{Batch, Durability, Journal, Range, Space};
use kiln_planner::plan::Step;
use kiln_proto::digest::DigestFunction;
use kiln_proto::v1::{StepHistory, StepKind};
use prost::Message;

/// A project's steps to their histories.
const RECORDS: Space = "step-histories";
/// Most records.
const MAX_RECORDS: usize = 20_000;
/// What a run counts for: the rest is what was known before.
const SHARE: u64 = 4;
/// How long a step runs of which nothing is known.
const UNKNOWN: Duration = Duration::from_secs(10);
/// The least that a step reserves.
const MIN_MEMORY: u64 = 128 << 20;
/// Reservations are multiples of this.
const MEMORY_STEP: u64 = 64 << 20;

/// The histories of a tenant's steps. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Histories {
    journal: Journal,
}

/// What the runs of a step are remembered by.
pub fn kind(step: &Step, platform: &str, files: usize) -> StepKind {
    StepKind {
        step: step.name.clone(),
        platform: platform.to_owned(),
        command: step.run.clone(),
        files: files as u64,
        image: step.image.clone().unwrap_or_default(),
    }
}

/// Sources of twice as many files are another size.
fn size_class(files: u64) -> u32 {
    u64::BITS.saturating_sub(files.leading_zeros())
}

fn key(instance: &str, project: &str, kind: &StepKind) -> String {
    let StepKind { step, platform, command, files, image } = kind;
    let class = size_class(*files).to_string();
    let text = [instance, project, step, platform, command, image, &class].join("\0");
    DigestFunction::Sha256.digest(text.as_bytes()).hex()
}

impl Histories {
    /// The histories in a journal.
    pub fn over(journal: Journal) -> Self {
        Self { journal }
    }

    /// The histories of these, in their order; zeros for what never ran.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn of(
        &self,
        instance: &str,
        project: &str,
        kinds: &[StepKind],
    ) -> Result<Vec<StepHistory>, kiln_journal::Error> {
        let keys = kinds.iter().map(|kind| key(instance, project, kind)).collect();
        let found = self.journal.get_many(RECORDS, keys).await?;
        let read =
            |data: Option<bytes::Bytes>| data.and_then(|data| StepHistory::decode(data).ok()).unwrap_or_default();
        Ok(found.into_iter().map(read).collect())
    }

    /// Records a run.
    pub async fn ran(&self, instance: &str, project: &str, kind: &StepKind, took: Duration, peak_bytes: u64) {
        let key = key(instance, project, kind);
        let known = match self.journal.get(RECORDS, &key).await {
            Ok(data) => data.and_then(|data| StepHistory::decode(data).ok()).unwrap_or_default(),
            Err(error) => return tracing::warn!(%error, "cannot read what a step took before"),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let history = StepHistory { at_ms: now, ..after(&known, took.as_millis() as u64, peak_bytes) };
        let batch = Batch::default().put(RECORDS, key, history.encode_to_vec());
        if let Err(error) = self.journal.commit(batch, Durability::Relaxed).await {
            tracing::warn!(%error, "cannot record what a step took");
        }
    }

    /// Removes the oldest records beyond the limit.
    pub async fn trim(&self) -> Result<(), kiln_journal::Error> {
        if self.journal.count(RECORDS).await? <= MAX_RECORDS as u64 {
            return Ok(());
        }
        let mut all: Vec<(i64, String)> = self
            .journal
            .list(RECORDS, Range::prefix(""))
            .await?
            .into_iter()
            .map(|(key, data)| (StepHistory::decode(data).map_or(0, |history| history.at_ms), key))
            .collect();
        all.sort();
        let surplus = all.len().saturating_sub(MAX_RECORDS / 10 * 9);
        let batch = all.into_iter().take(surplus).fold(Batch::default(), |batch, (_, key)| batch.remove(RECORDS, key));
        self.journal.commit(batch, Durability::Relaxed).await
    }
}

/// A history with one more run. Time is an average; memory falls slowly and rises at once, because too little of it ends a step.
fn after(known: &StepHistory, duration_ms: u64, peak_bytes: u64) -> StepHistory {
    if known.at_ms == 0 {
        return StepHistory { duration_ms, peak_memory_bytes: peak_bytes, ..StepHistory::default() };
    }
    let average = |old: u64, new: u64| (old.saturating_mul(SHARE - 1).saturating_add(new)) / SHARE;
    StepHistory {
        duration_ms: average(known.duration_ms, duration_ms),
        peak_memory_bytes: peak_bytes.max(average(known.peak_memory_bytes, peak_bytes)),
        ..StepHistory::default()
    }
}

/// What a step weighs on a path of steps that wait for each other, in milliseconds.
pub fn weight(history: &StepHistory) -> u64 {
    if history.at_ms == 0 { UNKNOWN.as_millis() as u64 } else { history.duration_ms.max(1) }
}

/// What a step reserves of which this is known: a quarter more than it used.
pub fn reservation(history: &StepHistory) -> Option<u64> {
    let peak = Some(history.peak_memory_bytes).filter(|peak| *peak > 0)?;
    Some(rounded(peak.saturating_add(peak / 4)))
}

/// What a step reserves that was stopped with this much: twice as much, but at most what the largest worker has. `None` if that is no more.
pub fn after_too_little(reserved: u64, largest: u64) -> Option<u64> {
    let more = rounded(reserved.saturating_mul(2)).min(largest);
    (more > reserved).then_some(more)
}

fn rounded(bytes: u64) -> u64 {
    bytes.max(MIN_MEMORY).div_ceil(MEMORY_STEP).saturating_mul(MEMORY_STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(duration_ms: u64, peak_memory_bytes: u64) -> StepHistory {
        StepHistory { duration_ms, peak_memory_bytes, at_ms: 1, shards: 0 }
    }

    #[test]
    fn time_is_an_average_and_memory_rises_at_once() {
        let mut known = history(1000, 100);
        for (took, peak, expected) in [(1000, 100, (1000, 100)), (2000, 300, (1250, 300)), (1250, 100, (1250, 250))] {
            known = StepHistory { at_ms: 1, ..after(&known, took, peak) };
            assert_eq!((known.duration_ms, known.peak_memory_bytes), expected);
        }
        assert_eq!(after(&StepHistory::default(), 7, 9), StepHistory { at_ms: 0, ..history(7, 9) });
    }

    #[test]
    fn a_reservation_has_a_margin_and_grows_up_to_the_largest_worker() {
        assert_eq!(reservation(&history(1, 0)), None);
        assert_eq!(reservation(&history(1, 1 << 20)), Some(MIN_MEMORY));
        assert_eq!(reservation(&history(1, 1 << 30)), Some(1280 << 20));
        assert_eq!(after_too_little(1 << 30, 8 << 30), Some(2 << 30));
        assert_eq!(after_too_little(6 << 30, 8 << 30), Some(8 << 30));
        assert_eq!(after_too_little(8 << 30, 8 << 30), None);
    }

    #[test]
    fn steps_are_told_apart_by_what_changes_how_long_they_take() {
        let own = StepKind {
            step: "a".into(),
            platform: "linux/amd64".into(),
            command: "x".into(),
            files: 100,
            image: String::new(),
        };
        let of = |kind: &StepKind| key("", "p", kind);
        assert_eq!(of(&own), of(&StepKind { files: 120, ..own.clone() }), "about as many files");
        for other in [
            StepKind { files: 1000, ..own.clone() },
            StepKind { command: "y".into(), ..own.clone() },
            StepKind { platform: "linux/arm64".into(), ..own.clone() },
            StepKind { step: "b".into(), ..own.clone() },
            StepKind { image: "i".into(), ..own.clone() },
        ] {
            assert_ne!(of(&own), of(&other), "{other:?}");
        }
        assert_ne!(of(&own), key("", "q", &own));
    }
}
