//! Cache mounts: directories that outlive the commands that use them.
//!
//! A command works on a copy-on-write snapshot: what was published last, below a directory of its own. When it has succeeded, both together
//! are published; the last one wins. Publishing to the rest of the farm belongs at [`Taken::publish`], and beginning with what another
//! worker published at [`Roots::cache`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_proto::root::Sharing;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::stacks::Pinned;
use super::{Roots, merge};
use crate::inputs::Error;

/// How long a command waits for one that has the cache to itself. After that it goes on with what was published last.
const WAITING: Duration = Duration::from_secs(30);
/// Directories of a cache; more are merged.
const MAX_LAYERS: usize = 8;
/// What the keys of caches begin with.
const CACHE: &str = "cache:";

/// Who has which cache to himself.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Locks {
    async fn lock(&self, key: &str) -> Option<OwnedMutexGuard<()>> {
        let lock = {
            let mut locks = self.0.lock();
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(key.to_owned()).or_default().clone()
        };
        tokio::time::timeout(WAITING, lock.lock_owned()).await.ok()
    }
}

/// A cache that a command uses.
#[derive(Debug)]
pub(super) struct Taken {
    key: String,
    /// What it began with.
    base: Option<Pinned>,
    is_published: bool,
    _alone: Option<OwnedMutexGuard<()>>,
}

impl Taken {
    /// The directories that it began with, topmost first.
    pub(super) fn layers(&self) -> &[PathBuf] {
        self.base.as_ref().map_or(&[], Pinned::layers)
    }

    /// Publishes what it was and what a command wrote to it. `below`: the directories that it began with. Blocks.
    pub(super) fn publish(&self, roots: &Roots, written: &Path, below: &[PathBuf]) -> Result<(), Error> {
        let shared = &roots.shared;
        let is_unchanged = std::fs::read_dir(written).is_ok_and(|mut entries| entries.next().is_none());
        if !self.is_published || (is_unchanged && !below.is_empty()) {
            return Ok(());
        }
        let bytes = kiln_executor::scratch::written_below(written).bytes;
        let made = shared.take_over(written)?;
        if below.len() < MAX_LAYERS {
            shared.stacks.put(&self.key, &made, bytes, below)?;
        } else {
            let layers: Vec<PathBuf> = std::iter::once(made.path().to_owned()).chain(below.iter().cloned()).collect();
            let merged = shared.stacks.temporary();
            merge::merge(&layers, merged.path(), shared.on_disk.marks)?;
            let bytes = kiln_executor::scratch::written_below(merged.path()).bytes;
            shared.stacks.put(&self.key, &merged, bytes, &[])?;
        }
        shared.make_room();
        Ok(())
    }
}

impl Roots {
    /// Takes a cache of a tenant for a command.
    pub(super) async fn cache(&self, tenant: &str, id: &str, sharing: Sharing) -> Taken {
        let key = format!("{CACHE}{tenant}:{id}");
        let alone = if sharing == Sharing::Locked { self.shared.locks.lock(&key).await } else { None };
        let is_private = sharing == Sharing::Private;
        let base = if is_private { None } else { self.shared.stacks.get(&key) };
        Taken { key, base, is_published: !is_private, _alone: alone }
    }

    /// The caches of all tenants on this worker, as `TENANT:ID`, and how many bytes each takes.
    pub fn caches(&self) -> std::collections::BTreeMap<String, u64> {
        let all = self.shared.stacks.list(CACHE);
        all.into_iter().map(|(key, bytes)| (key[CACHE.len()..].to_owned(), bytes)).collect()
    }
}
