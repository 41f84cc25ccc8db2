//! What the cache of files knows of them, and what keeps them where they are.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::key::Key;

#[derive(Debug, Default)]
pub(super) struct Index {
    /// Files that are there, with when they were used last.
    pub(super) used: HashMap<Key, u64>,
    pub(super) bytes: u64,
    pub(super) fetching: HashSet<Key>,
    /// How many makers of units use them: these files stay.
    pub(super) held: HashMap<Key, usize>,
    /// Files whose content is to be looked at before they are used.
    pub(super) doubtful: HashSet<Key>,
    /// The large file that was wanted last at each path: a new one there is likely to be much like it.
    pub(super) last_at: HashMap<String, Key>,
}

impl Index {
    /// One more uses the file.
    pub(super) fn hold(&mut self, key: &Key) {
        let count = self.held.entry(*key).or_default();
        *count = count.saturating_add(1);
    }

    /// The file is not there any more.
    pub(super) fn forget(&mut self, key: &Key) {
        self.doubtful.remove(key);
        if self.used.remove(key).is_some() {
            self.bytes = self.bytes.saturating_sub(key.digest.size);
        }
    }
}

/// A file on its way into the cache; removed when this is dropped, if it did not get there.
pub(super) struct Temporary(pub(super) PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Keeps files where they are.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) index: Arc<Mutex<Index>>,
    pub(super) keys: Vec<Key>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut index = self.index.lock();
        for key in &self.keys {
            if let Entry::Occupied(mut held) = index.held.entry(*key) {
                *held.get_mut() = held.get().saturating_sub(1);
                if *held.get() == 0 {
                    held.remove();
                }
            }
        }
    }
}

/// Keys that a caller fetches; let go of also where it fails or vanishes.
pub(super) struct Claimed<'a> {
    pub(super) index: &'a Mutex<Index>,
    pub(super) landed: &'a watch::Sender<()>,
    pub(super) keys: &'a [Key],
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        let mut index = self.index.lock();
        self.keys.iter().for_each(|key| {
            index.fetching.remove(key);
        });
        drop(index);
        self.landed.send_replace(());
    }
}
