//! Fetches files from the farm into the cache.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::digest::Digest;
use kiln_proto::transfer::{self, Client};
use tokio_util::task::AbortOnDropHandle;

use super::files::Files;
use super::index::Temporary;
use super::key::Key;
use super::{Error, transfer_failed};

/// Bytes of small files fetched in one go.
const GROUP_BYTES: u64 = 16 << 20;
/// Groups that are fetched while another one is written.
const AHEAD: usize = 2;
/// Files written at once.
const WRITERS: usize = 4;
/// From this size on a file is streamed to disk.
const STREAM_FROM: u64 = 1 << 20;
/// Large files fetched at once.
const CONCURRENCY: usize = 4;
/// Paths whose last large file is remembered.
const REMEMBERED_PATHS: usize = 10_000;
/// Files that a large one is compared with, beside the last one at its path.
const LIKELY: usize = 2;

/// All the blobs that are missing, where one is.
pub async fn name_all(client: &Client, digests: &[Digest], error: transfer::Error) -> Error {
    if let transfer::Error::Missing { .. } = error
        && let Ok(missing) = client.find_missing(digests).await
        && !missing.is_empty()
    {
        return Error::Missing(missing.into_iter().collect());
    }
    transfer_failed(error)
}

/// Does what waits for the disk, while other threads of the runtime take over what else this one had; where it has none, those wait too.
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Files {
    /// For each large file that is not here, those here that it may be like, the likeliest first.
    pub(super) fn bases(&self, wanted: &[(String, Key)]) -> HashMap<Key, Vec<PathBuf>> {
        let index = self.index.lock();
        let is_large = |key: &Key| key.digest.size >= transfer::CHUNKED_FROM_BYTES;
        let absent: Vec<&(String, Key)> =
            wanted.iter().filter(|(_, key)| is_large(key) && !index.used.contains_key(key)).collect();
        if absent.is_empty() {
            return HashMap::new();
        }
        let large: Vec<(u64, &Key)> =
            index.used.iter().filter(|(key, _)| is_large(key)).map(|(key, used)| (*used, key)).collect();
        absent
            .into_iter()
            .map(|(path, key)| {
                let last = index.last_at.get(path).filter(|last| index.used.contains_key(last));
                let size = key.digest.size;
                let is_near = |other: &Key| other.digest.size.abs_diff(size) <= size / 10;
                let mut near: Vec<(u64, &Key)> = large.iter().filter(|(_, other)| is_near(other)).copied().collect();
                near.sort_by_key(|(used, other)| (std::cmp::Reverse(*used), other.digest));
                let near = near.into_iter().take(LIKELY).map(|(_, other)| other).filter(|other| Some(*other) != last);
                (*key, last.into_iter().chain(near).map(|other| self.path(other)).collect())
            })
            .collect()
    }

    pub(super) fn remember(&self, wanted: &[(String, Key)]) {
        let mut index = self.index.lock();
        for (path, key) in wanted.iter().filter(|(_, key)| key.digest.size >= transfer::CHUNKED_FROM_BYTES) {
            if index.last_at.len() >= REMEMBERED_PATHS {
                index.last_at.clear();
            }
            index.last_at.insert(path.clone(), *key);
        }
    }

    /// Writes small files, on several processors.
    fn write_all(&self, group: &[Key], found: &HashMap<Digest, Bytes>) -> Result<(), Error> {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(key) = group.get(next.fetch_add(1, Ordering::Relaxed)) {
                let data = found.get(&key.digest).ok_or_else(|| Error::Missing(vec![key.digest]))?;
                self.write(*key, data)?;
            }
            Ok(())
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(WRITERS).min(group.len());
        if threads <= 1 {
            return work();
        }
        std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let panicked = |_| Err(Error::Farm("writing inputs was interrupted".to_owned()));
            handles.into_iter().try_for_each(|handle| handle.join().unwrap_or_else(panicked))
        })
    }

    pub(super) async fn fetch(
        &self,
        client: &Client,
        keys: &[Key],
        bases: &HashMap<Key, Vec<PathBuf>>,
    ) -> Result<(), Error> {
        let digests: Vec<Digest> = keys.iter().map(|key| key.digest).collect();
        let (large, small): (Vec<Key>, Vec<Key>) = keys.iter().partition(|key| key.digest.size >= STREAM_FROM);
        let mut groups: Vec<Vec<Key>> = Vec::new();
        let mut bytes = 0_u64;
        for key in small {
            // The first may be empty, and wants a group all the same.
            if groups.is_empty() || bytes.saturating_add(key.digest.size) > GROUP_BYTES {
                groups.push(Vec::new());
                bytes = 0;
            }
            bytes = bytes.saturating_add(key.digest.size);
            if let Some(group) = groups.last_mut() {
                group.push(key);
            }
        }
        // Tasks of their own, so that they go on while files are written.
        let fetches = groups.into_iter().map(|group| {
            let client = client.clone();
            let wanted: Vec<Digest> = group.iter().map(|key| key.digest).collect();
            AbortOnDropHandle::new(tokio::spawn(
                async move { client.get_many(&wanted).await.map(|found| (group, found)) },
            ))
        });
        let mut fetched = stream::iter(fetches).buffered(AHEAD);
        while let Some(result) = fetched.next().await {
            match result.map_err(|error| Error::Farm(error.to_string()))? {
                Ok((group, found)) => in_place(|| self.write_all(&group, &found))?,
                Err(error) => return Err(name_all(client, &digests, error).await),
            }
        }
        let fetches = large.into_iter().map(|key| async move {
            let temporary = self.temporary(&key);
            let bases = bases.get(&key).map_or(&[][..], Vec::as_slice);
            client.download_over(&key.digest, &temporary.0, bases).await?;
            Ok::<_, transfer::Error>((key, temporary))
        });
        let fetched: Result<Vec<(Key, Temporary)>, transfer::Error> =
            stream::iter(fetches.collect::<Vec<_>>()).buffer_unordered(CONCURRENCY).try_collect().await;
        match fetched {
            Ok(fetched) => fetched.into_iter().try_for_each(|(key, temporary)| self.put(key, &temporary)),
            Err(error) => Err(name_all(client, &digests, error).await),
        }
    }
}
