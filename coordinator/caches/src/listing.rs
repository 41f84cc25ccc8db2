//! Lists and removes caches, for people.

use std::collections::BTreeSet;
use std::time::Duration;

use kiln_proto::digest::DigestFunction;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::{self, StoredMount};

use crate::{Caches, Error, Place};

/// Which caches are removed.
#[derive(Debug, Clone)]
pub struct Prune {
    /// Empty for every project's, and those that all projects share.
    pub project: String,
    /// Last used at least this long ago.
    pub older_than: Duration,
    /// Only report what would be removed.
    pub dry_run: bool,
}

impl Caches {
    /// The caches of an instance, the last used first.
    ///
    /// # Errors
    /// If the journal or the action cache fails.
    pub async fn list(&self, instance: &str, project: &str) -> Result<Vec<v1::Mount>, Error> {
        let mut records = Vec::new();
        for record in self.shared.index.of(instance).await? {
            if self.is_there(&record).await? {
                records.push(record);
            }
        }
        records.retain(|record| is_of(record, project));
        records.sort_by_key(|record| std::cmp::Reverse(record.used_ms));
        Ok(records.iter().map(shown).collect())
    }

    /// Removes caches, and returns them with how many bytes of the disk became free.
    ///
    /// # Errors
    /// If the journal or the store fails.
    pub async fn prune(&self, instance: &str, prune: &Prune) -> Result<(Vec<v1::Mount>, u64), Error> {
        let bound =
            self.shared.index.now_ms().saturating_sub(prune.older_than.as_millis().try_into().unwrap_or(i64::MAX));
        let mut gone = self.shared.index.of(instance).await?;
        gone.retain(|record| is_of(record, &prune.project) && record.used_ms <= bound);
        let mut freed_bytes = 0;
        if !prune.dry_run {
            let mut blobs = BTreeSet::new();
            for record in &gone {
                let Some((place, name)) = function(record).zip(record.name.as_ref()) else { continue };
                let place = Place { instance, function: place, name };
                if let Some(published) = self.take(place).await? {
                    blobs.extend(self.recipes(place).named(&place.recipe()).await?);
                    blobs.insert(published.times);
                }
                self.forget(record).await?;
                self.shared.index.remove(instance, name).await?;
            }
            freed_bytes = self.shared.stores.collector.free(blobs.into_iter().collect()).await?.bytes;
        }
        Ok((gone.iter().map(shown).collect(), freed_bytes))
    }

    /// Removes the caches of all instances that were published since a time, whoever did: each was made from the one before it. Returns how
    /// many they are.
    ///
    /// # Errors
    /// If the journal or the store fails.
    pub async fn forget_since(&self, since_ms: i64, dry_run: bool) -> Result<usize, Error> {
        let mut gone = self.shared.index.of_all().await?;
        gone.retain(|record| record.published_ms >= since_ms);
        for record in gone.iter().filter(|_| !dry_run) {
            self.forget(record).await?;
            if let Some(name) = &record.name {
                self.shared.index.remove(&record.instance, name).await?;
            }
        }
        Ok(gone.len())
    }

    async fn is_there(&self, record: &StoredMount) -> Result<bool, Error> {
        let Some((function, name)) = function(record).zip(record.name.as_ref()) else { return Ok(false) };
        let place = Place { instance: &record.instance, function, name };
        Ok(self.recipes(place).is_kept(&place.recipe()).await?)
    }
}

fn function(record: &StoredMount) -> Option<DigestFunction> {
    DigestFunction::from_wire(record.digest_function).ok()
}

fn is_of(record: &StoredMount, project: &str) -> bool {
    project.is_empty() || record.name.as_ref().is_some_and(|name| name.project == project)
}

fn shown(record: &StoredMount) -> v1::Mount {
    let time = |ms: i64| Some(Timestamp { seconds: ms / 1000, nanos: ((ms % 1000) as i32).saturating_mul(1_000_000) });
    v1::Mount {
        name: record.name.clone(),
        size_bytes: record.size_bytes,
        published: time(record.published_ms),
        last_use: time(record.used_ms),
        writer: record.writer.clone(),
    }
}
