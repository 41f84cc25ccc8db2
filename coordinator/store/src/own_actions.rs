//! This coordinator's own results; its disk is told which blobs they name.
//!
//! Invariant: a blob that a result names was used when the result was, or later. The disk relies on this when it
//! evicts, and the collector when it removes old data.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;

use super::clock::{Clock, Stamp};
use super::disk::Disk;
use super::trees::Stored;
use super::{ActionStore, BlobStore, Error, RedbActions, Usage, whole};

/// Results in a file, and the disk that stores their blobs.
#[derive(Debug)]
pub(super) struct OwnActions {
    results: Arc<RedbActions>,
    disk: Disk,
    /// Where the trees of results are read: the disk, and the stores behind it.
    blobs: Arc<dyn BlobStore>,
    clock: Clock,
    usage: Option<Usage>,
}

impl OwnActions {
    pub(super) fn new(
        results: Arc<RedbActions>,
        disk: Disk,
        blobs: Arc<dyn BlobStore>,
        clock: Clock,
        usage: Option<Usage>,
    ) -> Self {
        Self { results, disk, blobs, clock, usage }
    }
}

#[async_trait]
impl ActionStore for OwnActions {
    async fn get(&self, instance: &str, action: &Digest) -> Result<Option<reapi::ActionResult>, Error> {
        self.results.get(instance, action).await
    }

    async fn put(&self, instance: &str, action: &Digest, result: reapi::ActionResult) -> Result<(), Error> {
        let at = self.clock.now();
        let named = whole::named_by(Stored(&*self.blobs), action.function, &result).await.unwrap_or_else(|error| {
            tracing::warn!(%action, %error, "cannot read which blobs a result names; they count as unnamed");
            None
        });
        // Blobs first: a collection in between must find them used.
        self.disk.name(&named.unwrap_or_default(), at);
        self.results.put(instance, action, &result, at).await?;
        if let Some(usage) = &self.usage {
            usage.settle();
        }
        Ok(())
    }

    async fn remove(&self, instance: &str, action: &Digest) -> Result<(), Error> {
        self.results.remove(instance, action).await
    }

    async fn by_hash(
        &self,
        instance: &str,
        function: DigestFunction,
        hash: &[u8; 32],
    ) -> Result<Option<Digest>, Error> {
        self.results.by_hash(instance, function, hash).await
    }

    fn used(&self, instance: &str, action: &Digest, at: Stamp) {
        self.results.used(instance, action, at);
    }
}
