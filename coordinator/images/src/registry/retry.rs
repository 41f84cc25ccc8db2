//! When to try again, and when a transfer counts as stuck.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use std::sync::Mutex;

/// First pause before another attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause, and the most that a registry may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Counts attempts and waits between them, longer each time.
#[derive(Debug)]
pub struct Attempts {
    left: u32,
    most: u32,
    pause: Duration,
}

impl Attempts {
    /// This many, the first included.
    pub fn new(most: u32) -> Self {
        Self { left: most.saturating_sub(1), most, pause: FIRST_PAUSE }
    }

    /// Something went well: all attempts are open again.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.most);
    }

    /// Waits for the next attempt; false where there is none left. `asked` is how long the registry wants.
    pub async fn again(&mut self, asked: Option<Duration>) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let jitter = rand::rng().random_range(0.5..1.0);
        let pause = asked.unwrap_or_else(|| self.pause.mul_f64(jitter)).min(LONGEST_PAUSE);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        tokio::time::sleep(pause).await;
        true
    }
}

/// When a transfer moved last. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Movement(Arc<Mutex<Instant>>);

impl Movement {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// It moved now.
    pub(super) fn moved(&self) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The future's result; none where nothing moved for `limit` before it came.
    pub(super) async fn watch<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(future);
        self.moved();
        loop {
            let deadline = tokio::time::Instant::from_std(self.last() + limit);
            tokio::select! {
                result = &mut future => return Some(result),
                () = tokio::time::sleep_until(deadline) => {
                    if self.last() + limit <= Instant::now() {
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
