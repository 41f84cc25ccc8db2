//! Decorator: results of workers and clients that are distrusted count as absent, and each result says when it was recorded.
//!
//! Invariant: whatever wrote a result, the time in it is that of a coordinator.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::{made, reapi};
use kiln_state::Distrusted;

use super::clock::Stamp;
use super::{ActionStore, Error};

/// Results that are believed.
#[derive(Debug)]
pub(super) struct Believed {
    store: Arc<dyn ActionStore>,
    distrusted: Distrusted,
}

impl Believed {
    pub(super) fn new(store: Arc<dyn ActionStore>, distrusted: Distrusted) -> Self {
        Self { store, distrusted }
    }

    /// Whether a result, of this action, is owed to nobody who was distrusted when it was recorded.
    fn believes(&self, action: &Digest, metadata: Option<&reapi::ExecutedActionMetadata>) -> bool {
        let Some(metadata) = metadata.filter(|_| !self.distrusted.is_empty()) else { return true };
        let makers = made::makers(metadata);
        let refused = self.distrusted.refuses(&makers);
        if let Some(maker) = refused {
            tracing::info!(%action, maker, "a result is not used: whoever made it is distrusted");
        }
        refused.is_none()
    }
}

#[async_trait]
impl ActionStore for Believed {
    async fn get(&self, instance: &str, action: &Digest) -> Result<Option<reapi::ActionResult>, Error> {
        let found = self.store.get(instance, action).await?;
        Ok(found.filter(|result| self.believes(action, result.execution_metadata.as_ref())))
    }

    async fn put(&self, instance: &str, action: &Digest, mut result: reapi::ActionResult) -> Result<(), Error> {
        made::record(result.execution_metadata.get_or_insert_default(), std::time::SystemTime::now());
        if !self.believes(action, result.execution_metadata.as_ref()) {
            return Ok(());
        }
        self.store.put(instance, action, result).await
    }

    async fn remove(&self, instance: &str, action: &Digest) -> Result<(), Error> {
        self.store.remove(instance, action).await
    }

    async fn by_hash(
        &self,
        instance: &str,
        function: DigestFunction,
        hash: &[u8; 32],
    ) -> Result<Option<Digest>, Error> {
        self.store.by_hash(instance, function, hash).await
    }

    fn used(&self, instance: &str, action: &Digest, at: Stamp) {
        self.store.used(instance, action, at);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::{Duration, SystemTime};

    use kiln_proto::{calls, v1};
    use kiln_state::distrust::Periods;
    use parking_lot::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    struct InMemory(Mutex<HashMap<Digest, reapi::ActionResult>>);

    #[async_trait]
    impl ActionStore for InMemory {
        async fn get(&self, _: &str, action: &Digest) -> Result<Option<reapi::ActionResult>, Error> {
            Ok(self.0.lock().get(action).cloned())
        }

        async fn put(&self, _: &str, action: &Digest, result: reapi::ActionResult) -> Result<(), Error> {
            self.0.lock().insert(*action, result);
            Ok(())
        }

        async fn remove(&self, _: &str, action: &Digest) -> Result<(), Error> {
            self.0.lock().remove(action);
            Ok(())
        }
    }

    fn by(worker: &str, makers: &[&str]) -> reapi::ActionResult {
        let mut metadata = reapi::ExecutedActionMetadata { worker: worker.to_owned(), ..Default::default() };
        let now = SystemTime::now();
        let makers = makers.iter().map(|maker| ((*maker).to_owned(), Some((now, now)))).collect();
        let makers = made::to_wire(&makers);
        calls::add(&mut metadata, &v1::SplitCalls { makers, ..Default::default() });
        // Whatever a worker says of the time does not count.
        made::record(&mut metadata, SystemTime::UNIX_EPOCH);
        reapi::ActionResult { execution_metadata: Some(metadata), ..Default::default() }
    }

    #[tokio::test]
    async fn what_a_distrusted_worker_made_or_helped_to_make_is_absent() {
        let (distrusted, below) = (Distrusted::default(), Arc::new(InMemory::default()));
        let store = Believed::new(below.clone(), distrusted.clone());
        let action = |name: &str| DigestFunction::Sha256.digest(name.as_bytes());
        let began = SystemTime::now();
        for (name, worker, makers) in [("a", "one", &[][..]), ("b", "two", &["one"]), ("c", "two", &[])] {
            store.put("", &action(name), by(worker, makers)).await.unwrap();
        }
        let there = async |name: &str| store.get("", &action(name)).await.unwrap().is_some();
        assert!(there("a").await && there("b").await && there("c").await);
        let hour = Duration::from_secs(3600);
        let since = |at: SystemTime| {
            let mut periods = Periods::default();
            periods.distrust("one", at, "ann");
            distrusted.set(periods);
        };
        since(began + hour);
        assert!(there("a").await, "it was made before");
        since(began - hour);
        assert!(!there("a").await && !there("b").await && there("c").await);
        // Nor does what it makes from now on count.
        store.put("", &action("c"), by("one", &[])).await.unwrap();
        assert!(there("c").await, "the other worker's result stays");
        // An entry without a time may be from any.
        let mut old = by("one", &[]);
        old.execution_metadata.as_mut().unwrap().auxiliary_metadata.clear();
        below.put("", &action("d"), old).await.unwrap();
        assert!(!there("d").await);
        let mut periods = distrusted.now();
        assert!(periods.trust("one", SystemTime::now()));
        distrusted.set(periods);
        store.put("", &action("d"), by("one", &[])).await.unwrap();
        assert!(there("d").await && !there("a").await);
    }
}
