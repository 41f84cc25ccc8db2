//! Units on disk: made once, used by any number of actions, removed when nobody uses them and room is needed.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::cut::Content;
use super::files::Files;
use super::{Error, MTIME, Owner, disk};

#[derive(Debug, Default)]
struct Unit {
    pins: usize,
    used: u64,
}

#[derive(Debug, Default)]
struct Index {
    units: HashMap<String, Unit>,
    flights: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    clock: u64,
}

#[derive(Debug)]
pub(super) struct Units {
    directory: PathBuf,
    index: Arc<Mutex<Index>>,
    owner: Owner,
}

/// Keeps a unit where it is.
#[derive(Debug)]
pub(super) struct Pin {
    name: String,
    path: PathBuf,
    index: Arc<Mutex<Index>>,
}

impl Pin {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(unit) = self.index.lock().units.get_mut(&self.name) {
            unit.pins = unit.pins.saturating_sub(1);
        }
    }
}

impl Units {
    /// `trusted`: what lies there is as this program left it. Else it goes, and is made again from the files.
    pub(super) fn open(directory: PathBuf, trusted: bool, owner: Owner) -> Result<Self, Error> {
        fs::create_dir_all(&directory).map_err(disk(&directory))?;
        let mut index = Index::default();
        for entry in fs::read_dir(&directory).map_err(disk(&directory))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_theirs = entry.metadata().is_ok_and(|data| owner.has(&data));
            if name.starts_with("tmp-") || !trusted || !is_theirs {
                fs::remove_dir_all(entry.path()).map_err(disk(&directory))?;
            } else {
                index.units.insert(name, Unit::default());
            }
        }
        Ok(Self { directory, index: Arc::new(Mutex::new(index)), owner })
    }

    /// Only one caller makes a unit at a time.
    pub(super) fn flight(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut index = self.index.lock();
        if index.flights.len() > 4096 {
            index.flights.retain(|_, flight| Arc::strong_count(flight) > 1);
        }
        index.flights.entry(name.to_owned()).or_default().clone()
    }

    /// Whether the unit is there, for now.
    pub(super) fn is_there(&self, name: &str) -> bool {
        self.index.lock().units.contains_key(name)
    }

    /// The unit, where it is there.
    pub(super) fn pin(&self, name: &str) -> Option<Pin> {
        let mut index = self.index.lock();
        index.clock = index.clock.saturating_add(1);
        let now = index.clock;
        let unit = index.units.get_mut(name)?;
        unit.pins = unit.pins.saturating_add(1);
        unit.used = now;
        Some(Pin { name: name.to_owned(), path: self.directory.join(name), index: self.index.clone() })
    }

    /// Makes a unit: aside first, in a place that no other maker has, then by rename in its own.
    pub(super) fn make(&self, name: &str, path: &str, content: &Content, files: &Files) -> Result<Pin, Error> {
        let temporary = self.temporary(name);
        let filled = fill(&temporary, path, content, files, self.owner);
        let pinned = filled.and_then(|()| self.publish(name, &temporary));
        // Where another maker was faster, too, there is something to remove.
        let _ = fs::remove_dir_all(&temporary);
        pinned
    }

    fn temporary(&self, name: &str) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        self.directory.join(format!("tmp-{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Puts a whole unit in its place and keeps it there. Under the lock: what the index names is on disk.
    fn publish(&self, name: &str, temporary: &Path) -> Result<Pin, Error> {
        let path = self.directory.join(name);
        let mut index = self.index.lock();
        if !index.units.contains_key(name) {
            fs::rename(temporary, &path).map_err(disk(temporary))?;
        }
        index.clock = index.clock.saturating_add(1);
        let now = index.clock;
        let unit = index.units.entry(name.to_owned()).or_default();
        unit.pins = unit.pins.saturating_add(1);
        unit.used = now;
        Ok(Pin { name: name.to_owned(), path, index: self.index.clone() })
    }

    /// Removes the longest unused quarter of what nobody uses; whether there was any.
    pub(super) fn evict_some(&self) -> bool {
        let gone: Vec<PathBuf> = {
            let mut index = self.index.lock();
            let mut idle: Vec<(u64, String)> = index
                .units
                .iter()
                .filter(|(_, unit)| unit.pins == 0)
                .map(|(name, unit)| (unit.used, name.clone()))
                .collect();
            idle.sort();
            let some = idle.len().div_ceil(4);
            let move_aside = |(_, name): (u64, String)| {
                let aside = self.temporary(&name);
                let _ = fs::rename(self.directory.join(&name), &aside);
                index.units.remove(&name);
                aside
            };
            idle.into_iter().take(some).map(move_aside).collect()
        };
        for aside in &gone {
            let _ = fs::remove_dir_all(aside);
        }
        !gone.is_empty()
    }
}

fn fill(root: &Path, path: &str, content: &Content, files: &Files, owner: Owner) -> Result<(), Error> {
    let base = if path.is_empty() { root.to_owned() } else { root.join(path) };
    fs::create_dir_all(&base).map_err(disk(&base))?;
    for directory in &content.directories {
        let to = root.join(directory);
        fs::create_dir(&to).map_err(disk(&to))?;
    }
    for (at, key) in &content.files {
        files.link(key, &root.join(at))?;
    }
    for (at, target) in &content.links {
        let to = root.join(at);
        std::os::unix::fs::symlink(target, &to).map_err(disk(&to))?;
        owner.take(&to)?;
        age(&to)?;
    }
    // Children before parents, for filling a directory gives it a new time.
    for directory in content.directories.iter().rev() {
        owner.take(&root.join(directory))?;
        age(&root.join(directory))?;
    }
    let mut above = Some(base.as_path());
    while let Some(directory) = above.filter(|directory| directory.starts_with(root)) {
        owner.take(directory)?;
        age(directory)?;
        above = directory.parent();
    }
    Ok(())
}

/// Gives an entry the fixed time.
fn age(path: &Path) -> Result<(), Error> {
    let time = Timespec { tv_sec: MTIME, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| Error::Disk { path: path.to_owned(), why: error.into() })
}
