//! Reacts when the bucket becomes unavailable, and when it has recovered.

use backon::BackoffBuilder;

use super::bucket::Bucket;
use crate::breaker::PAUSES;

impl Bucket {
    /// Records that a call failed because of the bucket.
    pub(super) fn is_away(&self, why: &str) {
        if !self.breaker.open(why.to_owned()) {
            return;
        }
        tracing::warn!(
            bucket = self.shown,
            why,
            "the bucket is unreachable; the farm continues without it until it is back"
        );
        let weak = std::sync::Arc::downgrade(&self.inner());
        tokio::spawn(async move {
            for pause in PAUSES.build() {
                tokio::time::sleep(pause).await;
                let Some(bucket) = weak.upgrade().map(Bucket::of) else { return };
                match bucket.probe().await {
                    Ok(()) => return bucket.is_back(),
                    Err(error) => tracing::debug!(%error, "the bucket is not back yet"),
                }
            }
        });
    }

    fn is_back(&self) {
        self.breaker.close();
        tracing::info!(bucket = self.shown, "the bucket is back and used again");
    }
}
