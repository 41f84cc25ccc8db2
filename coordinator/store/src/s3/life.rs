//! How long an object lives, without any coordinator knowing what another one has.
//!
//! A blob's last use is the later of two times that the bucket itself keeps: when the blob was written, and when the object under
//! `uses/` was written that says it was used. Whoever finds a blob that was last used longer than half the configured life ago
//! writes that object, so a use costs a request at most twice in a life. A blob goes only when it was not used for one and a half
//! lives and [`GRACE`] more; whatever was used within one life is therefore safe, by whichever coordinator: a hit in the action cache
//! uses every blob that its result names.
//!
//! A blob that is as old as one and a half lives counts as absent though it is still there. So nobody begins to rely on what
//! another coordinator is about to remove: [`GRACE`] lies between, which clocks and slow requests may differ by.
//!
//! Notes are objects of their own because S3 refuses to copy an object onto itself, and copies nothing above 5 GB at once.

use std::time::{Duration, SystemTime};

use kiln_proto::digest::Digest;
use object_store::{Error as Failure, ObjectStoreExt, PutPayload};

use super::bucket::{Bucket, Kind};
use crate::clock::{Clock, Stamp, millis, stamp};

/// Time between the moment a blob counts as absent and its removal.
pub(super) const GRACE: Duration = Duration::from_secs(60 * 60);

/// What the ages of objects mean.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) clock: Clock,
    life: Duration,
}

impl Life {
    /// Blobs live at least so long after their last use.
    pub(super) fn new(clock: Clock, life: Duration) -> Self {
        Self { clock, life }
    }

    /// A use is to be noted.
    pub(super) fn is_due(&self, used: Stamp) -> bool {
        used < self.clock.ago(self.life / 2)
    }

    /// The blob counts as absent.
    pub(super) fn is_over(&self, used: Stamp) -> bool {
        used < self.clock.ago(self.life + self.life / 2)
    }

    /// What was used last before this may be removed.
    pub(super) fn removal(&self) -> Stamp {
        self.clock.ago(self.life + self.life / 2 + GRACE)
    }
}

/// When the store says that an object was written.
pub(super) fn written(object: &object_store::ObjectMeta) -> Stamp {
    let ms = object.last_modified.timestamp_millis();
    stamp(SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

impl Bucket {
    /// When a blob was noted as used; 0 where it never was.
    pub(super) async fn noted(&self, digest: &Digest) -> Result<Stamp, Failure> {
        match self.client.head(&self.path(Kind::Uses, digest)).await {
            Ok(object) => Ok(written(&object)),
            Err(Failure::NotFound { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Uses a blob that was written then: false where it counts as absent.
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

/// How long a note is kept at least: notes without a blob are removed after this.
pub(super) fn note_life(life: &Life) -> Stamp {
    life.clock.now().saturating_sub(millis(life.life.saturating_mul(2) + GRACE))
}
