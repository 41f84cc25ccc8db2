//! Stacks of directories on disk, the lowest of which may be an image: what an overlay is made of. Made once, used by any number of actions, removed when nobody uses them
//! and room is needed.
//!
//! Invariants: a directory in its place is whole, for it came there by rename; a directory that an action uses stays.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_proto::digest::DigestFunction;
use parking_lot::Mutex;

use crate::inputs::{Error, disk};

/// Directories of one stack, at most. An overlay looks through all of them.
pub(super) const MAX_LAYERS: usize = 64;
/// What is being made.
const TEMPORARY: &str = "tmp-";

/// One stack: its directories, topmost first.
#[derive(Debug, Clone, Default)]
struct Stack {
    layers: Vec<String>,
    used: u64,
}

#[derive(Debug, Default)]
struct Index {
    stacks: HashMap<String, Stack>,
    /// Bytes of each directory.
    bytes: HashMap<String, u64>,
    /// How many use each directory.
    pins: HashMap<String, usize>,
    flights: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    clock: u64,
}

/// All stacks of a worker.
#[derive(Debug)]
pub(super) struct Stacks {
    layers: PathBuf,
    records: PathBuf,
    index: Arc<Mutex<Index>>,
}

/// A stack that is in use; it stays until this is dropped.
#[derive(Debug)]
pub(super) struct Pinned {
    names: Vec<String>,
    layers: Vec<PathBuf>,
    index: Arc<Mutex<Index>>,
}

impl Pinned {
    /// Its directories, topmost first.
    pub(super) fn layers(&self) -> &[PathBuf] {
        &self.layers
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut index = self.index.lock();
        for name in &self.names {
            if let Some(pins) = index.pins.get_mut(name) {
                *pins -= 1;
                if *pins == 0 {
                    index.pins.remove(name);
                }
            }
        }
    }
}

/// A directory that is being made; removed on drop unless it became a part of a stack.
#[derive(Debug)]
pub(super) struct Temporary(PathBuf);

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(path: &Path) {
    let removed = match path.symlink_metadata() {
        Ok(data) if data.is_dir() => kiln_executor::scratch::remove(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return,
    };
    if let Err(error) = removed {
        tracing::warn!(%error, path = %path.display(), "cannot remove a directory of a root");
    }
}

/// What a record on disk says.
type Record = (String, Vec<(String, u64)>);

impl Stacks {
    /// `trusted`: what lies there is as this program left it. Else it goes, and is made again.
    pub(super) fn open(directory: &Path, trusted: bool) -> Result<Self, Error> {
        let (layers, records) = (directory.join("layers"), directory.join("stacks"));
        for path in [&layers, &records] {
            fs::create_dir_all(path).map_err(disk(path))?;
        }
        let mut index = Index::default();
        for entry in fs::read_dir(&records).map_err(disk(&records))?.flatten() {
            let read = fs::read(entry.path()).ok().and_then(|data| serde_json::from_slice::<Record>(&data).ok());
            let whole = read.filter(|(_, parts)| trusted && parts.iter().all(|(name, _)| layers.join(name).exists()));
            let Some((key, parts)) = whole else {
                fs::remove_file(entry.path()).map_err(disk(&records))?;
                continue;
            };
            let stack = Stack { layers: parts.iter().map(|(name, _)| name.clone()).collect(), used: 0 };
            index.bytes.extend(parts);
            index.stacks.insert(key, stack);
        }
        for entry in fs::read_dir(&layers).map_err(disk(&layers))?.flatten() {
            if !index.bytes.contains_key(entry.file_name().to_string_lossy().as_ref()) {
                remove(&entry.path());
            }
        }
        Ok(Self { layers, records, index: Arc::new(Mutex::new(index)) })
    }

    /// Only one caller makes a stack at a time.
    pub(super) fn flight(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut index = self.index.lock();
        if index.flights.len() > 4096 {
            index.flights.retain(|_, flight| Arc::strong_count(flight) > 1);
        }
        index.flights.entry(key.to_owned()).or_default().clone()
    }

    /// The stack under this key.
    pub(super) fn get(&self, key: &str) -> Option<Pinned> {
        let mut index = self.index.lock();
        index.clock += 1;
        let now = index.clock;
        let stack = index.stacks.get_mut(key)?;
        stack.used = now;
        let names = stack.layers.clone();
        Some(self.pin(&mut index, names))
    }

    fn pin(&self, index: &mut Index, names: Vec<String>) -> Pinned {
        for name in &names {
            *index.pins.entry(name.clone()).or_default() += 1;
        }
        let layers = names.iter().map(|name| self.layers.join(name)).collect();
        Pinned { names, layers, index: self.index.clone() }
    }

    /// The keys with this beginning, the last used first.
    pub(super) fn recent(&self, beginning: &str, most: usize) -> Vec<String> {
        let index = self.index.lock();
        let mut keys: Vec<(u64, &String)> = index
            .stacks
            .iter()
            .filter(|(key, stack)| key.starts_with(beginning) && stack.layers.len() < MAX_LAYERS)
            .map(|(key, stack)| (stack.used, key))
            .collect();
        keys.sort_by(|one, other| other.cmp(one));
        keys.into_iter().take(most).map(|(_, key)| key.clone()).collect()
    }

    /// A place for a directory that is being made.
    pub(super) fn temporary(&self) -> Temporary {
        Temporary(self.aside())
    }

    fn aside(&self) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.layers.join(format!("{TEMPORARY}{}-{count}", std::process::id()))
    }

    /// Makes a whole directory, over the directories of another stack, the stack under this key; what was there is replaced.
    pub(super) fn put(&self, key: &str, made: &Temporary, bytes: u64, below: &[PathBuf]) -> Result<Pinned, Error> {
        let name = format!("{:016x}", rand::random::<u64>());
        fs::rename(&made.0, self.layers.join(&name)).map_err(disk(&made.0))?;
        let lower = below.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
        let names: Vec<String> = std::iter::once(name.clone()).chain(lower).collect();
        let mut index = self.index.lock();
        index.bytes.insert(name, bytes);
        let parts = names.iter().map(|name| (name.clone(), index.bytes.get(name).copied().unwrap_or(0))).collect();
        let record: Record = (key.to_owned(), parts);
        self.write(key, &record)?;
        index.clock += 1;
        let now = index.clock;
        index.stacks.insert(key.to_owned(), Stack { layers: names.clone(), used: now });
        Ok(self.pin(&mut index, names))
    }

    fn record(&self, key: &str) -> PathBuf {
        self.records.join(&DigestFunction::Sha256.digest(key.as_bytes()).hex()[..32])
    }

    fn write(&self, key: &str, record: &Record) -> Result<(), Error> {
        let path = self.record(key);
        let temporary = path.with_extension("tmp");
        let data = serde_json::to_vec(record).map_err(|error| Error::Farm(error.to_string()))?;
        fs::write(&temporary, data).map_err(disk(&temporary))?;
        fs::rename(&temporary, &path).map_err(disk(&path))
    }

    /// Bytes of all directories.
    pub(super) fn bytes(&self) -> u64 {
        self.index.lock().bytes.values().sum()
    }

    /// Removes what no stack has any more, and the longest unused stacks until at most so many bytes are left, unless they are in use.
    pub(super) fn evict(&self, most_bytes: u64) {
        let gone: Vec<PathBuf> = {
            let mut index = self.index.lock();
            let mut oldest: Vec<(u64, String)> =
                index.stacks.iter().map(|(key, stack)| (stack.used, key.clone())).collect();
            oldest.sort_unstable();
            let mut gone = self.orphans(&mut index);
            for (_, key) in oldest {
                if index.bytes.values().sum::<u64>() <= most_bytes {
                    break;
                }
                let is_used = index
                    .stacks
                    .get(&key)
                    .is_some_and(|stack| stack.layers.iter().any(|name| index.pins.contains_key(name)));
                if !is_used {
                    index.stacks.remove(&key);
                    let _ = fs::remove_file(self.record(&key));
                    gone.extend(self.orphans(&mut index));
                }
            }
            gone
        };
        gone.iter().for_each(|path| remove(path));
    }

    /// Takes directories that neither a stack nor an action has out of their place.
    fn orphans(&self, index: &mut Index) -> Vec<PathBuf> {
        let kept: HashSet<&String> = index.stacks.values().flat_map(|stack| &stack.layers).collect();
        let is_orphan = |name: &&String| !kept.contains(*name) && !index.pins.contains_key(*name);
        let orphans: Vec<String> = index.bytes.keys().filter(is_orphan).cloned().collect();
        let mut gone = Vec::new();
        for name in orphans {
            index.bytes.remove(&name);
            let aside = self.aside();
            if fs::rename(self.layers.join(&name), &aside).is_ok() {
                gone.push(aside);
            }
        }
        gone
    }
}
