//! Decorator: results of this coordinator's own over those that all coordinators share.
//!
//! A shared result comes first: another coordinator may have replaced it. Invariant: the blobs that a result names are shared before
//! the result is, and no failure of the shared store reaches a caller.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_proto::digest::Digest;
use kiln_proto::reapi;

use super::{ActionStore, Error, Shared, whole};

/// Reads `shared`, then `own`; writes to both.
#[derive(Debug, Clone)]
pub struct SharedActions {
    own: Arc<dyn ActionStore>,
    shared: Arc<dyn ActionStore>,
    blobs: Arc<Shared>,
}

impl SharedActions {
    /// Results over the blobs of the same coordinators.
    pub fn new(own: Arc<dyn ActionStore>, shared: Arc<dyn ActionStore>, blobs: Arc<Shared>) -> Self {
        Self { own, shared, blobs }
    }

    async fn share(&self, instance: &str, action: &Digest, result: reapi::ActionResult) {
        match whole::named_by(&*self.blobs, action.function, &result).await {
            Ok(Some(digests)) => self.blobs.share(&digests).await,
            Ok(None) | Err(_) => return,
        }
        if let Err(error) = self.shared.put(instance, action, result).await {
            tracing::debug!(%action, %error, "a result is not shared");
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
            tokio::spawn(async move { store.share(&instance, &action, found).await });
        }
        Ok(own)
    }

    async fn put(&self, instance: &str, action: &Digest, result: reapi::ActionResult) -> Result<(), Error> {
        self.own.put(instance, action, result.clone()).await?;
        self.share(instance, action, result).await;
        Ok(())
    }

    async fn remove(&self, instance: &str, action: &Digest) -> Result<(), Error> {
        if let Err(error) = self.shared.remove(instance, action).await {
            tracing::debug!(%action, %error, "a shared result is not removed");
        }
        self.own.remove(instance, action).await
    }
}
