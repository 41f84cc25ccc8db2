//! Retries, and detection of stalled transfers.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::sync::Mutex;

/// Longest pause, also for one that a registry asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const PAUSES: ExponentialBuilder =
    ExponentialBuilder::new().with_min_delay(Duration::from_millis(200)).with_max_delay(LONGEST_PAUSE).with_jitter();

/// Counts attempts, with an increasing pause between them.
#[derive(Debug)]
pub struct Attempts {
    most: u32,
    pauses: ExponentialBackoff,
}

impl Attempts {
    /// At most this many attempts, including the first.
    pub fn new(most: u32) -> Self {
        Self { most, pauses: PAUSES.with_max_times(most.saturating_sub(1) as usize).build() }
    }

    /// Resets the count after a success.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.most);
    }

    /// Waits for the next attempt; `false` if none is left. `asked`: the pause that the registry asks for.
    pub async fn again(&mut self, asked: Option<Duration>) -> bool {
        let Some(pause) = self.pauses.next() else { return false };
        tokio::time::sleep(asked.unwrap_or(pause).min(LONGEST_PAUSE)).await;
        true
    }
}

/// The time of a transfer's last progress. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Movement(Arc<Mutex<Instant>>);

impl Movement {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Records progress.
    pub(super) fn moved(&self) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The future's result; `None` if there was no progress for `limit` before it completed.
    pub(super) async fn watch<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(future);
        self.moved();
        loop {
            // No limit that is too long for a clock ever ends.
            let Some(deadline) = self.last().checked_add(limit) else { return Some(future.await) };
            tokio::select! {
                result = &mut future => return Some(result),
                () = tokio::time::sleep_until(deadline.into()) => {
                    if self.last().elapsed() >= limit {
                        return None;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_moves_is_not_stuck_and_what_does_not_is() {
        let movement = Movement::new();
        let moving = async {
            for _ in 0..6 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                movement.moved();
            }
        };
        assert!(movement.watch(Duration::from_millis(80), moving).await.is_some(), "it moved all the time");
        let stuck = std::future::pending::<()>();
        assert!(movement.watch(Duration::from_millis(20), stuck).await.is_none());
    }

    #[tokio::test]
    async fn attempts_end() {
        let mut attempts = Attempts::new(3);
        let none = Some(Duration::ZERO);
        assert!(attempts.again(none).await && attempts.again(none).await);
        assert!(!attempts.again(none).await);
        attempts.reset();
        assert!(attempts.again(none).await);
    }
}
