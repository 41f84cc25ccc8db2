//! Pauses between attempts to reach the coordinator: each longer than the one before, and none the same for two workers.

use std::time::Duration;

/// First pause before dialling again.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause before dialling again.
const LONGEST: Duration = Duration::from_secs(5);

/// The pauses of one worker.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// Whether nothing failed yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.next == FIRST
    }

    /// Waits before the next attempt.
    pub(crate) async fn wait(&mut self) {
        let jittered = self.next.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        self.next = (self.next * 2).min(LONGEST);
        tokio::time::sleep(jittered).await;
    }
}
