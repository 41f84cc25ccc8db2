//! Records shared by the coordinators on one Redis: this coordinator's parts are in its journal, everyone's are in
//! Redis.
//!
//! Invariants: a coordinator changes only its own part of a record, so concurrent writes lose nothing. No failure of
//! Redis reaches a caller, who then sees only what this coordinator knows. What was not shared is shared when Redis is
//! back, after a start, or when a list finds it missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::digest::Digest;
use kiln_proto::v1::StepLayers;
use prost::Message;
use tokio::sync::Mutex;

use super::merge::newest_ms;
use super::{Error, Known, LayerStore, OwnLayers, now_ms};
use kiln_store::BlobStore;
use kiln_store::Health;
use kiln_store::redis::Parts;

/// Records of this coordinator combined with those of others.
#[derive(Debug)]
pub struct SharedLayers {
    own: OwnLayers,
    parts: Parts,
    /// This coordinator's name in Redis.
    name: String,
    /// The store of ingredients, which are shared along with the records that name them.
    blobs: Arc<dyn BlobStore>,
    /// Held from reading an own part until it is written to Redis, so that no older one overwrites a newer one.
    sharing: Mutex<()>,
}

/// This coordinator's parts of an instance's records, by key.
type Own = BTreeMap<String, StepLayers>;

impl SharedLayers {
    /// Combines `own` with the parts of others, and starts the task that shares what is not shared yet.
    ///
    /// # Errors
    /// If this coordinator's own records cannot be read.
    pub async fn open(own: OwnLayers, parts: Parts, blobs: Arc<dyn BlobStore>) -> Result<Arc<Self>, Error> {
        let name = own.name().to_owned();
        let store = Arc::new(Self { own, parts, name, blobs, sharing: Mutex::default() });
        tokio::spawn(catch_up(Arc::downgrade(&store), store.parts.link().health()));
        Ok(store)
    }

    /// The parts in Redis under these keys, by coordinator.
    async fn there(&self, instance: &str, keys: &[String]) -> Result<Vec<BTreeMap<String, StepLayers>>, Error> {
        let found = self.parts.get(instance, keys).await?;
        let decode = |(owner, data): (String, Bytes)| Some((owner, StepLayers::decode(data).ok()?));
        Ok(found.into_iter().map(|parts| parts.into_iter().filter_map(decode).collect()).collect())
    }

    /// This coordinator's parts that are older than what Redis keeps.
    async fn here(&self, instance: &str) -> Result<Own, Error> {
        let since = now_ms().saturating_sub(self.parts.life_ms());
        let own = self.own.list(instance).await?.into_iter().map(|(key, known)| (key, known.own));
        Ok(own.filter(|(_, record)| newest_ms(record) > since).collect())
    }

    /// Writes this coordinator's current parts to Redis, with the ingredients that they name.
    async fn share(&self, instance: &str, keys: &[String]) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let _sharing = self.sharing.lock().await;
        let known = self.own.get(instance, keys).await?.into_iter().map(|known| known.own);
        let records: Vec<(String, StepLayers)> = keys.iter().cloned().zip(known).collect();
        for digest in records.iter().flat_map(|(_, record)| ingredients(record)) {
            if let Ok(data) = self.blobs.get(&digest).await {
                self.blobs.put(&digest, data).await?;
            }
        }
        self.put_there(instance, &records).await
    }

    async fn put_there(&self, instance: &str, records: &[(String, StepLayers)]) -> Result<(), Error> {
        let encoded: Vec<_> = records.iter().map(|(key, record)| (key.clone(), record.encode_to_vec())).collect();
        Ok(self.parts.put(instance, &self.name, &encoded, now_ms()).await?)
    }

    /// Shares this coordinator's parts that Redis lacks.
    async fn share_all(&self) -> Result<(), Error> {
        for instance in self.own.instances().await {
            let own = self.here(&instance).await?;
            let keys: Vec<String> = own.keys().cloned().collect();
            let there = self.there(&instance, &keys).await?;
            let lacking = |(parts, key): (&BTreeMap<String, StepLayers>, &String)| {
                (parts.get(&self.name) != own.get(key)).then(|| key.clone())
            };
            let lacking: Vec<String> = there.iter().zip(&keys).filter_map(lacking).collect();
            self.share(&instance, &lacking).await?;
        }
        Ok(())
    }

    /// Everything that Redis has of an instance.
    async fn list_there(&self, instance: &str) -> Result<BTreeMap<String, BTreeMap<String, StepLayers>>, Error> {
        let keys = self.parts.names(instance, now_ms()).await?;
        let found = self.there(instance, &keys).await?;
        Ok(keys.into_iter().zip(found).collect())
    }
}

/// The ingredients that an explanation of the step needs.
fn ingredients(record: &StepLayers) -> impl Iterator<Item = Digest> {
    let last =
        record.last.iter().flat_map(|last| last.base.iter().map(|base| &base.ingredients).chain([&last.ingredients]));
    let named: BTreeSet<&String> = last.chain(record.good.iter().map(|good| &good.ingredients)).collect();
    named.into_iter().filter_map(|text| text.parse().ok())
}

/// Shares what is not shared yet, at the start and whenever Redis has come back. Ends when the store is dropped.
async fn catch_up(store: Weak<SharedLayers>, mut health: tokio::sync::watch::Receiver<Health>) {
    loop {
        let up = *health.borrow_and_update() == Health::Up;
        let Some(store) = store.upgrade() else { return };
        if up && let Err(error) = store.share_all().await {
            tracing::debug!(%error, "step results are not shared yet");
        }
        drop(store);
        if health.changed().await.is_err() {
            return;
        }
    }
}

impl Known {
    /// Restores an own part that the journal has dropped and Redis has not.
    fn remember(&mut self, own: Option<StepLayers>) {
        if self.own == StepLayers::default() {
            self.own = own.unwrap_or_default();
        }
    }
}

/// Without Redis, a coordinator has only its own records.
fn alone<T: Default>(found: Result<T, Error>) -> T {
    found.unwrap_or_else(|error| {
        tracing::debug!(%error, "step results of other coordinators are unavailable");
        T::default()
    })
}

#[async_trait]
impl LayerStore for SharedLayers {
    async fn settle(&self) -> Result<(), Error> {
        self.own.settle().await
    }

    async fn get(&self, instance: &str, keys: &[String]) -> Result<Vec<Known>, Error> {
        let mut known = self.own.get(instance, keys).await?;
        for (known, mut parts) in known.iter_mut().zip(alone(self.there(instance, keys).await)) {
            known.remember(parts.remove(&self.name));
            known.others = parts.into_values().collect();
        }
        Ok(known)
    }

    async fn put(&self, instance: &str, records: Vec<(String, StepLayers)>) -> Result<(), Error> {
        let _sharing = self.sharing.lock().await;
        self.own.put(instance, records.clone()).await?;
        let shared = self.put_there(instance, &records).await;
        alone(shared);
        Ok(())
    }

    async fn list(&self, instance: &str) -> Result<Vec<(String, Known)>, Error> {
        let own = self.here(instance).await?;
        let there = self.list_there(instance).await;
        let answered = there.is_ok();
        let mut known: BTreeMap<String, Known> =
            own.into_iter().map(|(key, own)| (key, Known { own, others: Vec::new() })).collect();
        let mut shared = 0_usize;
        for (key, mut parts) in alone(there) {
            let own = parts.remove(&self.name);
            let known = known.entry(key).or_default();
            known.remember(own.clone());
            shared = shared.saturating_add(usize::from(own.is_some_and(|own| own == known.own)));
            known.others = parts.into_values().collect();
        }
        let written = known.values().filter(|known| known.own != StepLayers::default()).count();
        if answered && shared < written {
            // Redis lost some, or was unavailable when they were written.
            alone(self.share_all().await);
        }
        Ok(known.into_iter().collect())
    }

    async fn remove(&self, instance: &str, keys: &[String]) -> Result<(), Error> {
        let _sharing = self.sharing.lock().await;
        self.own.remove(instance, keys).await?;
        alone(self.parts.remove(instance, keys).await.map_err(Error::from));
        Ok(())
    }

    fn hindrance(&self) -> Option<String> {
        match &*self.parts.link().health().borrow() {
            Health::Up => None,
            Health::NoWrites(why) => Some(format!("Redis accepts no writes ({why})")),
            Health::Away(why) => Some(format!("Redis is unreachable ({why})")),
        }
    }
}
