//! Decorator: results of this coordinator's own over those that all coordinators share.
//!
//! A shared result comes first: another coordinator may have replaced it. Invariant: the blobs that a result names are shared before
//! the result is, and no failure of the shared store reaches a caller.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::breaker::Health;
use super::clock::Stamp;
use super::trees::Stored;
use super::{ActionStore, Error, Shared, WithEmpty, whole};

/// Results that wait for the shared store to be back; the oldest are given up for newer ones.
const WAITING: usize = 10_000;

/// Reads `shared`, then `own`; writes to both. What could not be shared is shared when the shared store is back.
#[derive(Debug, Clone)]
pub struct SharedActions {
    own: Arc<dyn ActionStore>,
    shared: Arc<dyn ActionStore>,
    blobs: Arc<Shared>,
    waiting: Arc<Mutex<VecDeque<(String, Digest)>>>,
}

impl SharedActions {
    /// Results over the blobs of the same coordinators.
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

    /// Shares a result, or remembers that it is to be.
    async fn share_or_wait(&self, instance: &str, action: &Digest, result: reapi::ActionResult) {
        if let Err(error) = self.share(instance, action, result).await {
            tracing::debug!(%action, %error, "a result is not shared yet");
            let mut waiting = self.waiting.lock();
            if waiting.len() >= WAITING {
                waiting.pop_front();
            }
            waiting.push_back((instance.to_owned(), *action));
        }
    }
}

/// Shares what waits whenever the shared store has come back. Ends when the store is gone.
async fn catch_up(store: Weak<SharedActions>, mut health: watch::Receiver<Health>) {
    while health.changed().await.is_ok() {
        let up = *health.borrow_and_update() == Health::Up;
        let Some(store) = store.upgrade() else { return };
        if !up {
            continue;
        }
        // Once each: what fails again waits for the next change of health, and is not tried in a circle.
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
            // It was evicted there, or that store was away when it was put.
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

    fn used(&self, instance: &str, action: &Digest, at: Stamp) {
        // The shared store knows by the read.
        self.own.used(instance, action, at);
    }

    async fn remove(&self, instance: &str, action: &Digest) -> Result<(), Error> {
        if let Err(error) = self.shared.remove(instance, action).await {
            tracing::debug!(%action, %error, "a shared result is not removed");
        }
        self.own.remove(instance, action).await
    }
}
