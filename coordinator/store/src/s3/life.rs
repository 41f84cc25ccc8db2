//! The lifetime of objects, without any coordinator knowing what another one has.
//!
//! A blob's last use is the later of two times that the bucket itself records: when the blob was written, and when its
//! marker object below `uses/` was written. A coordinator that finds a blob last used more than half a lifetime ago
//! writes the marker, so a use costs at most two requests per lifetime. A blob is removed only if it has not been used
//! for one and a half lifetimes plus [`GRACE`]. Everything that any coordinator used within one lifetime is therefore
//! safe: a hit in the action cache uses every blob that its result names.
//!
//! A blob unused for one and a half lifetimes counts as missing although it still exists. So no coordinator starts to
//! rely on a blob that another is about to remove: [`GRACE`] covers differences between clocks and slow requests.
//!
//! Uses have their own objects because S3 refuses to copy an object onto itself, and cannot copy more than 5 GB at
//! once.

use std::time::Duration;

use kiln_proto::digest::Digest;
use object_store::{Error as Failure, ObjectStoreExt, PutPayload};

use super::bucket::{Bucket, Kind};
use crate::clock::{Clock, Stamp, millis};

/// Time between a blob counting as missing and its removal.
pub(super) const GRACE: Duration = Duration::from_secs(60 * 60);

/// Interprets the ages of objects.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) clock: Clock,
    life: Duration,
}

impl Life {
    /// Blobs live for at least `life` after their last use.
    pub(super) fn new(clock: Clock, life: Duration) -> Self {
        Self { clock, life }
    }

    fn half(&self) -> Duration {
        self.life.checked_div(2).unwrap_or_default()
    }

    /// Whether a use must be recorded.
    pub(super) fn is_due(&self, used: Stamp) -> bool {
        used < self.clock.ago(self.half())
    }

    /// Whether the blob counts as missing.
    pub(super) fn is_over(&self, used: Stamp) -> bool {
        used < self.clock.ago(self.life.saturating_add(self.half()))
    }

    /// Blobs last used before this time may be removed.
    pub(super) fn removal(&self) -> Stamp {
        self.clock.ago(self.life.saturating_add(self.half()).saturating_add(GRACE))
    }
}

/// When an object was written, by the store's clock.
pub(super) fn written(object: &object_store::ObjectMeta) -> Stamp {
    let ms = object.last_modified.timestamp_millis();
    Stamp::try_from(ms).unwrap_or(0)
}

impl Bucket {
    /// The recorded last use of a blob; 0 if there is none.
    pub(super) async fn noted(&self, digest: &Digest) -> Result<Stamp, Failure> {
        match self.client.head(&self.path(Kind::Uses, digest)).await {
            Ok(object) => Ok(written(&object)),
            Err(Failure::NotFound { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Uses a blob that was written at this time; `false` if it counts as missing.
    pub(super) async fn used(&self, life: &Life, digest: &Digest, written: Stamp) -> Result<bool, Failure> {
        if !life.is_due(written) {
            return Ok(true);
        }
        let used = self.noted(digest).await?.max(written);
        if life.is_over(used) {
            return Ok(false);
        }
        if life.is_due(used) {
            self.client.put(&self.path(Kind::Uses, digest), PutPayload::new()).await?;
        }
        Ok(true)
    }
}

/// Markers without a blob are removed if they are older than this.
pub(super) fn note_life(life: &Life) -> Stamp {
    life.clock.now().saturating_sub(millis(life.life.saturating_mul(2).saturating_add(GRACE)))
}
