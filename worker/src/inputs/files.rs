//! The cache of files, by content and mode.
//!
//! Invariant: a file under its final name is whole, has the fixed time and the mode of its kind; it came there by rename.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::transfer::{self, Client};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Error, MTIME, disk, transfer_failed};

/// Bytes of small files fetched in one go.
const GROUP_BYTES: u64 = 32 << 20;
/// From this size on a file is streamed to disk.
const STREAM_FROM: u64 = 1 << 20;
/// Large files fetched at once.
const CONCURRENCY: usize = 4;
/// Paths whose last large file is remembered.
const REMEMBERED_PATHS: usize = 10_000;
/// Files that a large one is compared with, beside the last one at its path.
const LIKELY: usize = 2;
/// Largest output that is taken into the cache.
const ADOPT_BYTES: u64 = 256 << 20;

/// What a cached file is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) digest: Digest,
    mode: u32,
}

impl Key {
    /// A file with the permission bits that its node says. Actions read and replace their inputs as the owner, so the owner may
    /// always do both; and no file of this cache has a set-user-id bit.
    pub(super) fn new(digest: Digest, executable: bool, mode: Option<u32>) -> Self {
        let mode = mode.map_or(if executable { 0o755 } else { 0o644 }, |mode| mode & 0o777 | 0o600);
        Self { digest, mode }
    }

    /// The last part of its name on disk.
    fn kind(&self) -> String {
        match self.mode {
            0o644 => "f".to_owned(),
            0o755 => "x".to_owned(),
            other => format!("m{other:o}"),
        }
    }
}

#[derive(Debug, Default)]
struct Index {
    /// Files that are there, with when they were used last.
    used: HashMap<Key, u64>,
    bytes: u64,
    fetching: HashSet<Key>,
    /// The large file that was wanted last at each path: a new one there is likely to be much like it.
    last_at: HashMap<String, Key>,
}

#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    index: Mutex<Index>,
    clock: AtomicU64,
    /// Bytes that came from the farm.
    fetched: AtomicU64,
    landed: watch::Sender<()>,
}

/// All the blobs that are missing, where one is.
pub(super) async fn name_all(client: &Client, digests: &[Digest], error: transfer::Error) -> Error {
    if let transfer::Error::Missing { .. } = error
        && let Ok(missing) = client.find_missing(digests).await
        && !missing.is_empty()
    {
        return Error::Missing(missing.into_iter().collect());
    }
    transfer_failed(error)
}

fn time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(MTIME as u64)
}

/// Does what waits for the disk, while other threads of the runtime take over what else this one had; where it has none, those wait too.
fn in_place<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Files {
    pub(super) fn open(directory: PathBuf) -> Result<Self, Error> {
        let mut index = Index::default();
        fs::create_dir_all(&directory).map_err(disk(&directory))?;
        for shard in 0..=255_u8 {
            let shard = directory.join(format!("{shard:02x}"));
            fs::create_dir_all(&shard).map_err(disk(&shard))?;
            for entry in fs::read_dir(&shard).map_err(disk(&shard))?.flatten() {
                let key = entry.file_name().to_str().and_then(parse);
                let data = entry.metadata().ok();
                // What was altered, or is left of a broken fetch, goes.
                let intact =
                    |key: &Key| data.is_some_and(|data| data.len() == key.digest.size && data.mtime() == MTIME);
                match key.filter(intact) {
                    Some(key) => {
                        index.bytes += key.digest.size;
                        index.used.insert(key, 0);
                    }
                    None => fs::remove_file(entry.path()).map_err(disk(&shard))?,
                }
            }
        }
        Ok(Self {
            directory,
            index: Mutex::new(index),
            clock: AtomicU64::new(1),
            fetched: AtomicU64::new(0),
            landed: watch::Sender::new(()),
        })
    }

    pub(super) fn fetched_bytes(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.index.lock().bytes
    }

    pub(super) fn path(&self, key: &Key) -> PathBuf {
        let hex = key.digest.hex();
        let name = format!("{}-{hex}-{}-{}", key.digest.function.name(), key.digest.size, key.kind());
        self.directory.join(&hex[..2]).join(name)
    }

    fn temporary(&self, key: &Key) -> PathBuf {
        let count = self.clock.fetch_add(1, Ordering::Relaxed);
        self.directory.join(&key.digest.hex()[..2]).join(format!("tmp-{}-{count}", std::process::id()))
    }

    /// Fetches what is not here, each with the path where it is wanted; waits for what another caller is fetching.
    pub(super) async fn ensure(&self, client: &Client, wanted: &[(String, Key)]) -> Result<(), Error> {
        let keys: Vec<Key> = wanted.iter().map(|(_, key)| *key).collect();
        let bases = self.bases(wanted);
        loop {
            let mut landed = self.landed.subscribe();
            let (mine, others) = self.claim(&keys);
            if !mine.is_empty() {
                let claimed = Claimed { files: self, keys: &mine };
                let result = self.fetch(client, &mine, &bases).await;
                drop(claimed);
                result?;
                self.fetched.fetch_add(mine.iter().map(|key| key.digest.size).sum(), Ordering::Relaxed);
            } else if !others {
                self.remember(wanted);
                return Ok(());
            } else {
                // The sender lives as long as this.
                let _ = landed.changed().await;
            }
        }
    }

    /// For each large file that is not here, those here that it may be like, the likeliest first.
    fn bases(&self, wanted: &[(String, Key)]) -> HashMap<Key, Vec<PathBuf>> {
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

    fn remember(&self, wanted: &[(String, Key)]) {
        let mut index = self.index.lock();
        for (path, key) in wanted.iter().filter(|(_, key)| key.digest.size >= transfer::CHUNKED_FROM_BYTES) {
            if index.last_at.len() >= REMEMBERED_PATHS {
                index.last_at.clear();
            }
            index.last_at.insert(path.clone(), *key);
        }
    }

    /// What this caller must fetch, and whether others fetch the rest.
    fn claim(&self, wanted: &[Key]) -> (Vec<Key>, bool) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut index = self.index.lock();
        let (mut mine, mut others) = (Vec::new(), false);
        for key in wanted {
            if let Some(used) = index.used.get_mut(key) {
                *used = now;
            } else if index.fetching.insert(*key) {
                mine.push(*key);
            } else if !mine.contains(key) {
                others = true;
            }
        }
        (mine, others)
    }

    async fn fetch(&self, client: &Client, keys: &[Key], bases: &HashMap<Key, Vec<PathBuf>>) -> Result<(), Error> {
        let digests: Vec<Digest> = keys.iter().map(|key| key.digest).collect();
        let (large, small): (Vec<Key>, Vec<Key>) = keys.iter().partition(|key| key.digest.size >= STREAM_FROM);
        let mut groups: Vec<Vec<Key>> = Vec::new();
        let mut bytes = 0;
        for key in small {
            // The first may be empty, and wants a group all the same.
            if groups.is_empty() || bytes + key.digest.size > GROUP_BYTES {
                groups.push(Vec::new());
                bytes = 0;
            }
            bytes += key.digest.size;
            if let Some(group) = groups.last_mut() {
                group.push(key);
            }
        }
        for group in groups {
            let wanted: Vec<Digest> = group.iter().map(|key| key.digest).collect();
            let found = match client.get_many(&wanted).await {
                Ok(found) => found,
                Err(error) => return Err(name_all(client, &digests, error).await),
            };
            in_place(|| {
                group.iter().try_for_each(|key| {
                    let data = found.get(&key.digest).ok_or_else(|| Error::Missing(vec![key.digest]))?;
                    let temporary = self.temporary(key);
                    fs::write(&temporary, data).map_err(disk(&temporary))?;
                    self.put(*key, &temporary)
                })
            })?;
        }
        let fetches = large.into_iter().map(|key| async move {
            let temporary = self.temporary(&key);
            let bases = bases.get(&key).map_or(&[][..], Vec::as_slice);
            client.download_over(&key.digest, &temporary, bases).await?;
            Ok::<_, transfer::Error>((key, temporary))
        });
        let fetched: Result<Vec<(Key, PathBuf)>, transfer::Error> =
            stream::iter(fetches.collect::<Vec<_>>()).buffer_unordered(CONCURRENCY).try_collect().await;
        match fetched {
            Ok(fetched) => fetched.into_iter().try_for_each(|(key, temporary)| self.put(key, &temporary)),
            Err(error) => Err(name_all(client, &digests, error).await),
        }
    }

    /// Gives a whole file its mode, time and final name.
    fn put(&self, key: Key, temporary: &Path) -> Result<(), Error> {
        let path = self.path(&key);
        let placed = fs::set_permissions(temporary, fs::Permissions::from_mode(key.mode))
            .and_then(|()| fs::File::options().append(true).open(temporary)?.set_modified(time()))
            .and_then(|()| fs::rename(temporary, &path));
        if let Err(source) = placed {
            let _ = fs::remove_file(temporary);
            return Err(Error::Disk { path, source });
        }
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut index = self.index.lock();
        if index.used.insert(key, now).is_none() {
            index.bytes += key.digest.size;
        }
        Ok(())
    }

    /// Links a cached file to a place in a unit. A file with as many links as its file system allows is copied first.
    pub(super) fn link(&self, key: &Key, to: &Path) -> Result<(), Error> {
        let path = self.path(key);
        match fs::hard_link(&path, to) {
            Err(error) if error.kind() == std::io::ErrorKind::TooManyLinks => {
                let temporary = self.temporary(key);
                fs::copy(&path, &temporary).map_err(disk(&temporary))?;
                self.put(*key, &temporary)?;
                fs::hard_link(&path, to).map_err(disk(to))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut index = self.index.lock();
                if index.used.remove(key).is_some() {
                    index.bytes -= key.digest.size;
                }
                Err(Error::Disk { path, source: error })
            }
            result => result.map_err(disk(to)),
        }
    }

    pub(super) fn adopt(&self, key: Key, file: &Path) {
        if key.digest.size > ADOPT_BYTES || self.index.lock().used.contains_key(&key) {
            return;
        }
        let temporary = self.temporary(&key);
        let copied = fs::copy(file, &temporary).is_ok_and(|bytes| bytes == key.digest.size);
        if !copied || self.put(key, &temporary).is_err() {
            let _ = fs::remove_file(&temporary);
        }
    }

    /// Removes files that no unit uses, the longest unused first, until there are at most `aim` bytes.
    pub(super) fn evict_unused(&self, aim: u64) {
        let mut candidates: Vec<(u64, Key)> = self.index.lock().used.iter().map(|(key, used)| (*used, *key)).collect();
        candidates.sort_by_key(|(used, key)| (*used, key.digest));
        for (_, key) in candidates {
            if self.bytes() <= aim {
                return;
            }
            let path = self.path(&key);
            let unused = fs::symlink_metadata(&path).map_or(true, |data| data.nlink() == 1);
            if unused {
                let _ = fs::remove_file(&path);
                let mut index = self.index.lock();
                if index.used.remove(&key).is_some() {
                    index.bytes -= key.digest.size;
                }
            }
        }
    }
}

/// Keys that a caller fetches; let go of also where it fails or vanishes.
struct Claimed<'a> {
    files: &'a Files,
    keys: &'a [Key],
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        let mut index = self.files.index.lock();
        self.keys.iter().for_each(|key| {
            index.fetching.remove(key);
        });
        drop(index);
        self.files.landed.send_replace(());
    }
}

fn parse(name: &str) -> Option<Key> {
    let mut parts = name.split('-');
    let function = match parts.next()? {
        "sha256" => DigestFunction::Sha256,
        "blake3" => DigestFunction::Blake3,
        _ => return None,
    };
    let (hash, size, kind) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
    let digest = Digest::new(function, hash, size).ok()?;
    let mode = match kind {
        "f" => None,
        "x" => Some(0o755),
        other => Some(u32::from_str_radix(other.strip_prefix('m')?, 8).ok()?),
    };
    let key = Key::new(digest, false, mode);
    (key.kind() == kind).then_some(key)
}
