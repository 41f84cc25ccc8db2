//! Cache mounts of one tenant: what each name stands for.
//!
//! Invariant: a name stands for a complete tree or for nothing, and publishing changes it at once.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod error;
mod index;
mod listing;
mod locks;
mod merge;
mod status;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_journal::Journal;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1::{CacheName, StoredMount};
use kiln_store::Stores;
use kiln_store::recipes::Recipes;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

pub use error::Error;
pub use listing::Prune;

use index::Index;
use locks::Locks;

/// How long a step waits for one that has the cache to itself. After that it goes on with what was published last.
pub const WAITING: Duration = Duration::from_secs(30);
/// The result's file with the times of the tree's nodes.
const TIMES: &str = "times";

/// How much is kept for a tenant.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of one cache. A larger one is not published.
    pub one_bytes: u64,
    /// Most bytes of all caches together. The least recently used go first.
    pub all_bytes: u64,
}

/// A tenant's caches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caches {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stores: Stores,
    index: Index,
    locks: Locks,
    /// Steps that publish the same cache do so one after another.
    publishing: Locks,
    limits: Limits,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The root directory of its tree.
    pub tree: Digest,
    /// The blob with the times of its nodes.
    pub times: Digest,
}

/// What a step began with that publishes a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Began {
    /// That is not known, or not whole: what it left replaces what is there.
    Unknown,
    /// Nothing was published then.
    Nothing,
    /// This tree.
    With(Digest),
}

/// A cache that nobody else has until this is dropped.
#[derive(Debug)]
pub struct Alone(#[allow(dead_code)] OwnedMutexGuard<()>);

/// What is kept with a tree.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    tree: (String, u64),
    bytes: u64,
    at_ms: i64,
    writer: String,
}

/// A name and its instance.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The REAPI instance.
    pub instance: &'a str,
    /// The function of its digests.
    pub function: DigestFunction,
    /// The cache's name.
    pub name: &'a CacheName,
}

impl Place<'_> {
    /// What its tree is found under in the action cache.
    fn recipe(&self) -> (&'static str, Vec<&str>) {
        let CacheName { project, id, platform, owner, worker, environment, scope } = self.name;
        let mut parts: Vec<&str> = vec![project, id, platform, owner, worker];
        // Names without them have kept the keys that they had before there were any.
        if !environment.is_empty() || !scope.is_empty() {
            parts.extend([environment.as_str(), scope]);
        }
        ("cache mount", parts)
    }
}

impl Caches {
    /// Opens the caches of the tenant that these belong to.
    pub fn new(journal: Journal, stores: Stores, limits: Limits) -> Self {
        let index = Index::new(journal, stores.clock.clone());
        Self {
            shared: Arc::new(Shared { stores, index, locks: Locks::default(), publishing: Locks::default(), limits }),
        }
    }

    /// What a name stands for, if anything was published and all of it is still there.
    ///
    /// # Errors
    /// If the store or the journal fails.
    pub async fn take(&self, place: Place<'_>) -> Result<Option<Published>, Error> {
        match self.found(place).await? {
            Some((published, description)) => {
                self.shared.index.used(record(place, &published, &description)).await?;
                Ok(Some(published))
            }
            None => {
                self.shared.index.remove(place.instance, place.name).await?;
                Ok(None)
            }
        }
    }

    async fn found(&self, place: Place<'_>) -> Result<Option<(Published, Description)>, Error> {
        let found = self.recipes(place).find::<Description>(&place.recipe()).await?;
        Ok(found.and_then(|(description, files)| {
            let (hash, size) = &description.tree;
            let tree = Digest::new(place.function, hash, *size).ok()?;
            let published = Published { tree, times: *files.get(TIMES)? };
            Some((published, description))
        }))
    }

    /// Lets a name stand for this tree, all of which must be stored. If another step has published since this one began, what that one
    /// changed is kept, but for what both changed.
    ///
    /// # Errors
    /// If the tree is incomplete, too large, or not one of files; or if the store or the journal fails.
    pub async fn publish(
        &self,
        place: Place<'_>,
        published: Published,
        began: Began,
        writer: &str,
    ) -> Result<(), Error> {
        let _hold = self.shared.stores.in_use.begin();
        let bytes = self.acceptable(place, &published).await?;
        let _turn = self.shared.publishing.wait(index::row(place.instance, place.name), WAITING).await;
        let (published, bytes) = match self.with_others(place, &published, began).await {
            Ok(Some(both)) => both,
            Ok(None) => (published, bytes),
            Err(error) => {
                tracing::info!(%error, cache = place.name.id, "a cache mount has what its last step left, without what others did");
                (published, bytes)
            }
        };
        let description = Description {
            tree: (published.tree.hex(), published.tree.size),
            bytes,
            at_ms: self.shared.index.now_ms(),
            writer: writer.to_owned(),
        };
        let files = BTreeMap::from([(TIMES.to_owned(), published.times)]);
        let trees = [published.tree];
        self.recipes(place).keep_trees(&place.recipe(), &description, &files, &trees).await?;
        let surplus =
            self.shared.index.put(record(place, &published, &description), self.shared.limits.all_bytes).await?;
        for old in surplus {
            tracing::info!(
                cache = old.name.as_ref().map(|name| &name.id),
                bytes = old.size_bytes,
                "a cache mount was evicted"
            );
            self.forget(&old).await?;
        }
        Ok(())
    }

    /// The bytes of a tree that may be published.
    async fn acceptable(&self, place: Place<'_>, published: &Published) -> Result<u64, Error> {
        let bytes = tree::check(&*self.shared.stores.blobs, published).await?;
        let most = self.shared.limits.one_bytes.min(self.shared.limits.all_bytes);
        match bytes > most {
            true => Err(Error::TooLarge { id: place.name.id.clone(), bytes, most }),
            false => Ok(bytes),
        }
    }

    /// What a step left with what was published since it began, and the bytes of that; none if nothing was.
    async fn with_others(
        &self,
        place: Place<'_>,
        own: &Published,
        began: Began,
    ) -> Result<Option<(Published, u64)>, Error> {
        let began = match began {
            Began::Unknown => return Ok(None),
            Began::Nothing => None,
            Began::With(tree) => Some(tree),
        };
        let Some((now, _)) = self.found(place).await? else { return Ok(None) };
        if Some(now.tree) == began || now.tree == own.tree {
            return Ok(None);
        }
        let both = merge::merged(&*self.shared.stores.blobs, place.function, began, own, &now).await?;
        let bytes = self.acceptable(place, &both).await?;
        Ok(Some((both, bytes)))
    }

    /// Waits until nobody else has the cache to himself, up to [`WAITING`]; `None` if somebody still has it then.
    pub async fn alone(&self, place: Place<'_>) -> Option<Alone> {
        let guard = self.shared.locks.wait(index::row(place.instance, place.name), WAITING).await;
        guard.map(Alone)
    }

    /// Has the cache to itself if nobody else has.
    pub fn try_alone(&self, place: Place<'_>) -> Option<Alone> {
        self.shared.locks.at_once(index::row(place.instance, place.name)).map(Alone)
    }

    fn recipes<'a>(&'a self, place: Place<'a>) -> Recipes<'a> {
        Recipes { stores: &self.shared.stores, instance: place.instance, function: place.function }
    }

    /// Takes the tree of a removed record out of the action cache. Its blobs go when room is needed.
    async fn forget(&self, old: &StoredMount) -> Result<(), Error> {
        let Ok(function) = DigestFunction::from_wire(old.digest_function) else { return Ok(()) };
        let Some(name) = &old.name else { return Ok(()) };
        let place = Place { instance: &old.instance, function, name };
        Ok(self.recipes(place).forget(&place.recipe()).await?)
    }
}

fn record(place: Place<'_>, published: &Published, description: &Description) -> StoredMount {
    StoredMount {
        instance: place.instance.to_owned(),
        name: Some(place.name.clone()),
        digest_function: place.function.to_wire(),
        tree: Some(published.tree.to_wire()),
        size_bytes: description.bytes,
        published_ms: description.at_ms,
        used_ms: 0,
        writer: description.writer.clone(),
    }
}
