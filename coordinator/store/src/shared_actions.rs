//! Decorator: combines this coordinator's own results with those that all coordinators share.
//!
//! A shared result takes precedence, because another coordinator may have replaced it. Invariant: the blobs that a
//! result names are shared before the result, and no failure of the shared store reaches a caller.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::breaker::Health;
use super::clock::Stamp;
use super::trees::Stored;
use super::{ActionStore, Error, Shared, WithEmpty, whole};

/// Maximum number of results waiting for the shared store to recover; the oldest are dropped for newer ones.
const WAITING: usize = 10_000;

/// Reads `shared`, then `own`; writes to both. Results that could not be shared are shared when the shared store recovers.
#[derive(Debug, Clone)]
pub struct SharedActions {
    own: Arc<dyn ActionStore>,
    shared: Arc<dyn ActionStore>,
    blobs: Arc<Shared>,
    waiting: Arc<Mutex<VecDeque<(String, Digest)>>>,
}

impl SharedActions {
    /// Combines results, with the blob stores of the same coordinators.
    pub fn new(
        own: Arc<dyn ActionStore>,
        shared: Arc<dyn ActionStore>,
        blobs: Arc<Shared>,
        health: watch::Receiver<Health>,
    ) -> Arc<Self> {
        let store = Arc::new(Self { own, shared, blobs, waiting: Arc::default() });
        tokio::spawn(catch_up(Arc::downgrade(&store), health));
        store
    }

    async fn share(&self, instance: &str, action: &Digest, result: reapi::ActionResult) -> Result<(), Error> {
        let blobs = WithEmpty::new(self.blobs.clone());
        let Some(named) = whole::named_by(Stored(&blobs), action.function, &result).await? else { return Ok(()) };
        self.blobs.share(&named).await?;
        self.shared.put(instance, action, result).await
    }

    /// Shares a result, or queues it for later.
    async fn share_or_wait(&self, instance: &str, action: &Digest, result: reapi::ActionResult) {
        if let Err(error) = self.share(instance, action, result).await {
            tracing::debug!(%action, %error, "cannot share a result yet");
            let mut waiting = self.waiting.lock();
            if waiting.len() >= WAITING {
                waiting.pop_front();
            }
            waiting.push_back((instance.to_owned(), *action));
        }
    }
}

/// Shares queued results whenever the shared store recovers. Ends when this store is dropped.
async fn catch_up(store: Weak<SharedActions>, mut health: watch::Receiver<Health>) {
    while health.changed().await.is_ok() {
        let up = *health.borrow_and_update() == Health::Up;
        let Some(store) = store.upgrade() else { return };
        if !up {
            continue;
        }
        // Each is tried once: one that fails again waits for the next change of health.
        let due = std::mem::take(&mut *store.waiting.lock());
        for (instance, action) in due {
            if let Ok(Some(result)) = store.own.get(&instance, &action).await {
                store.share_or_wait(&instance, &action, result).await;
            }
        }
    }
}

#[async_trait]
impl ActionStore for SharedActions {
    async fn get(&self, instance: &str, action: &Digest) -> Result<Option<reapi::ActionResult>, Error> {
        let shared = self.shared.get(instance, action).await;
        match shared {
            Ok(Some(found)) => return Ok(Some(found)),
            Err(Error::NotFound { .. }) => return Ok(None),
            Ok(None) | Err(_) => {}
        }
        let own = self.own.get(instance, action).await?;
        if let (Ok(None), Some(found)) = (shared, &own) {
            // The result was evicted there, or the shared store was unavailable when it was put.
            let (store, instance, action, found) = (self.clone(), instance.to_owned(), *action, found.clone());
            tokio::spawn(async move { store.share_or_wait(&instance, &action, found).await });
        }
        Ok(own)
    }

    async fn put(&self, instance: &str, action: &Digest, result: reapi::ActionResult) -> Result<(), Error> {
        self.own.put(instance, action, result.clone()).await?;
        self.share_or_wait(instance, action, result).await;
        Ok(())
    }

    async fn by_hash(
        &self,
        instance: &str,
        function: DigestFunction,
        hash: &[u8; 32],
    ) -> Result<Option<Digest>, Error> {
        self.own.by_hash(instance, function, hash).await
    }

    fn used(&self, instance: &str, action: &Digest, at: Stamp) {
        // For the shared store, the read counts as a use.
        self.own.used(instance, action, at);
    }

    async fn remove(&self, instance: &str, action: &Digest) -> Result<(), Error> {
        if let Err(error) = self.shared.remove(instance, action).await {
            tracing::debug!(%action, %error, "cannot remove a shared result");
        }
        self.own.remove(instance, action).await
    }
}
