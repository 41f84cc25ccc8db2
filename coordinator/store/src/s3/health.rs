//! How the bucket is. After a call that failed as the bucket itself does, all others fail at once until a task of its own has found
//! the bucket answering, so that no build waits for it twice; each change is said once.

use std::time::Duration;

use parking_lot::Mutex;

use super::bucket::Bucket;

/// First pause before the bucket is tried again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Why the bucket is away, in words; none while it is up.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<String>>);

impl Health {
    /// Why no call is to be made now.
    pub(super) fn away(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

impl Bucket {
    /// Draws the conclusion from a call that failed as the bucket does.
    pub(super) fn is_away(&self, why: &str) {
        if self.health.0.lock().replace(why.to_owned()).is_some() {
            return;
        }
        tracing::warn!(
            bucket = self.shown,
            why,
            "the bucket is unreachable; the farm continues without it until it is back"
        );
        let weak = std::sync::Arc::downgrade(&self.inner());
        tokio::spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                let Some(bucket) = weak.upgrade().map(Bucket::of) else { return };
                match bucket.probe().await {
                    Ok(()) => break bucket.is_back(),
                    Err(error) => tracing::debug!(%error, "the bucket is not back yet"),
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    fn is_back(&self) {
        *self.health.0.lock() = None;
        tracing::info!(bucket = self.shown, "the bucket is back and used again");
    }
}
