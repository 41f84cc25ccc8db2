//! Pauses between attempts to reach the coordinator: exponential backoff with jitter.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Longest pause before jitter.
const MAX_DELAY: Duration = Duration::from_secs(5);
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(MAX_DELAY)
    .with_jitter()
    .without_max_times();

/// The backoff of one worker.
#[derive(Debug)]
pub(crate) struct Backoff {
    pauses: ExponentialBackoff,
    is_fresh: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { pauses: PAUSES.build(), is_fresh: true }
    }
}

impl Backoff {
    /// Whether no attempt has failed yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// Waits before the next attempt.
    pub(crate) async fn wait(&mut self) {
        self.wait_at_most(MAX_DELAY).await;
    }

    /// Waits before the next attempt, but no longer than this.
    pub(crate) async fn wait_at_most(&mut self, longest: Duration) {
        self.is_fresh = false;
        tokio::time::sleep(self.pauses.next().unwrap_or(MAX_DELAY).min(longest)).await;
    }
}
