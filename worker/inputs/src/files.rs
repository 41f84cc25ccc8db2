//! The cache of files, by content and mode.
//!
//! Invariant: a file under its final name that the index has, or that has the fixed time, is whole and has the mode of its kind. The
//! time is given last, so what a killed process left half written is recognised.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::transfer::Client;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::fetching::in_place;
use super::index::{Claimed, Held, Index, Temporary};
use super::key::{Key, parse};
use super::{Error, MTIME, Owner, disk};

/// Largest output that is taken into the cache.
const ADOPT_BYTES: u64 = 256 << 20;

#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    pub(super) index: Arc<Mutex<Index>>,
    clock: AtomicU64,
    /// Bytes that came from the farm.
    fetched: AtomicU64,
    landed: watch::Sender<()>,
    owner: Owner,
    /// The permission bits that new files get if they ask for all.
    modes: u32,
}

/// A file's path in the directory, as an absolute path there.
pub(super) fn name(key: &Key) -> String {
    let hex = key.digest.hex();
    format!(
        "/{}/{}-{hex}-{}-{}",
        hex.get(..2).unwrap_or_default(),
        key.digest.function.name(),
        key.digest.size,
        key.kind()
    )
}

fn time() -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(MTIME as u64)).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Files {
    /// `trusted`: what lies there is as this program left it. Else each file is hashed before it is used.
    pub(super) fn open(directory: PathBuf, trusted: bool, owner: Owner) -> Result<Self, Error> {
        let mut index = Index::default();
        fs::create_dir_all(&directory).map_err(disk(&directory))?;
        let modes = modes_of_new_files(&directory).map_err(disk(&directory))?;
        for shard in 0..=255_u8 {
            let shard = directory.join(format!("{shard:02x}"));
            fs::create_dir_all(&shard).map_err(disk(&shard))?;
            for entry in fs::read_dir(&shard).map_err(disk(&shard))?.flatten() {
                let key = entry.file_name().to_str().and_then(parse);
                let data = entry.metadata().ok();
                // What was altered, is left of a broken fetch, or belongs to whom actions no longer are, goes.
                let intact = |key: &Key| {
                    data.is_some_and(|data| data.len() == key.digest.size && data.mtime() == MTIME && owner.has(&data))
                };
                match key.filter(intact) {
                    Some(key) => {
                        index.bytes = index.bytes.saturating_add(key.digest.size);
                        index.used.insert(key, 0);
                        if !trusted {
                            index.doubtful.insert(key);
                        }
                    }
                    None => fs::remove_file(entry.path()).map_err(disk(&shard))?,
                }
            }
        }
        Ok(Self {
            directory,
            index: Arc::new(Mutex::new(index)),
            clock: AtomicU64::new(1),
            fetched: AtomicU64::new(0),
            landed: watch::Sender::new(()),
            owner,
            modes,
        })
    }

    pub(super) fn fetched_bytes(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.index.lock().bytes
    }

    pub(super) fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(name(key).trim_start_matches('/'))
    }

    pub(super) fn temporary(&self, key: &Key) -> Temporary {
        let count = self.clock.fetch_add(1, Ordering::Relaxed);
        Temporary(
            self.directory
                .join(key.digest.hex().get(..2).unwrap_or_default())
                .join(format!("tmp-{}-{count}", std::process::id())),
        )
    }

    /// Fetches what is not here, each with the path where it is wanted; waits for what another caller is fetching. The files stay for as
    /// long as the answer is kept.
    pub(super) async fn ensure(&self, client: &Client, wanted: &[(String, Key)]) -> Result<Held, Error> {
        let keys: Vec<Key> = wanted.iter().map(|(_, key)| *key).collect();
        let held = self.hold(&keys);
        in_place(|| keys.iter().try_for_each(|key| self.look_at(key)))?;
        let bases = self.bases(wanted);
        loop {
            let mut landed = self.landed.subscribe();
            let (mine, others) = self.claim(&keys);
            if !mine.is_empty() {
                let claimed = Claimed { index: &self.index, landed: &self.landed, keys: &mine };
                let result = self.fetch(client, &mine, &bases).await;
                drop(claimed);
                result?;
                self.fetched.fetch_add(mine.iter().map(|key| key.digest.size).sum(), Ordering::Relaxed);
            } else if !others {
                self.remember(wanted);
                return Ok(held);
            } else {
                // The sender lives as long as this.
                let _ = landed.changed().await;
            }
        }
    }

    pub(super) fn hold(&self, keys: &[Key]) -> Held {
        let mut index = self.index.lock();
        keys.iter().for_each(|key| index.hold(key));
        Held { index: self.index.clone(), keys: keys.to_vec() }
    }

    /// Keeps these where they are, if all of them are here and known to be whole.
    pub(super) fn hold_present(&self, keys: Vec<Key>) -> Option<Held> {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut index = self.index.lock();
        if keys.iter().any(|key| !index.used.contains_key(key) || index.doubtful.contains(key)) {
            return None;
        }
        for key in &keys {
            index.used.insert(*key, now);
            index.hold(key);
        }
        Some(Held { index: self.index.clone(), keys })
    }

    /// Hashes a file that may not be what its name says; one that is not goes.
    fn look_at(&self, key: &Key) -> Result<(), Error> {
        if !self.index.lock().doubtful.contains(key) {
            return Ok(());
        }
        let path = self.path(key);
        let is_whole = fs::File::open(&path)
            .and_then(|file| hash(key.digest.function, file))
            .is_ok_and(|digest| digest == key.digest);
        let mut index = self.index.lock();
        if index.doubtful.remove(key) && !is_whole {
            fs::remove_file(&path).map_err(disk(&path))?;
            index.forget(key);
        }
        Ok(())
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

    /// Puts a file with this content into the cache: under its final name at once, for a rename costs as much as the file.
    pub(super) fn write(&self, key: Key, data: &[u8]) -> Result<(), Error> {
        let path = self.path(&key);
        let write = || {
            let mut file = fs::File::options().write(true).create_new(true).mode(key.mode).open(&path)?;
            file.write_all(data)?;
            if key.mode & !self.modes != 0 {
                file.set_permissions(fs::Permissions::from_mode(key.mode))?;
            }
            self.owner.take_file(&file)?;
            file.set_modified(time())
        };
        match write() {
            Ok(()) => {
                self.add(key);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => self.replace(key, data),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(disk(&path)(error))
            }
        }
    }

    /// The same where there is a file of this name, which somebody may be reading.
    fn replace(&self, key: Key, data: &[u8]) -> Result<(), Error> {
        let temporary = self.temporary(&key);
        fs::write(&temporary.0, data).map_err(disk(&temporary.0))?;
        self.put(key, &temporary)
    }

    /// Gives a whole file its mode, time and final name.
    pub(super) fn put(&self, key: Key, temporary: &Temporary) -> Result<(), Error> {
        let file = fs::File::options().append(true).open(&temporary.0);
        file.and_then(|file| finish(&file, &key)).map_err(disk(&temporary.0))?;
        self.name(key, temporary)
    }

    fn name(&self, key: Key, Temporary(temporary): &Temporary) -> Result<(), Error> {
        let path = self.path(&key);
        self.owner.take(temporary)?;
        fs::rename(temporary, &path).map_err(disk(&path))?;
        self.add(key);
        Ok(())
    }

    /// Lists a file that is whole.
    fn add(&self, key: Key) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut index = self.index.lock();
        index.doubtful.remove(&key);
        if index.used.insert(key, now).is_none() {
            index.bytes = index.bytes.saturating_add(key.digest.size);
        }
    }

    /// Links a cached file to a place in a unit. A file with as many links as its file system allows is copied first.
    pub(super) fn link(&self, key: &Key, to: &Path) -> Result<(), Error> {
        let path = self.path(key);
        match fs::hard_link(&path, to) {
            Err(error) if error.kind() == std::io::ErrorKind::TooManyLinks => {
                let temporary = self.temporary(key);
                fs::copy(&path, &temporary.0).map_err(disk(&temporary.0))?;
                self.put(*key, &temporary)?;
                fs::hard_link(&path, to).map_err(disk(to))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.index.lock().forget(key);
                Err(Error::Disk { path, why: error })
            }
            result => result.map_err(disk(to)),
        }
    }

    /// Puts an open file into the cache unless it is there; `false` if its content is not the key's.
    pub(super) fn take_open(&self, key: Key, file: &mut fs::File) -> Result<bool, Error> {
        self.look_at(&key)?;
        if self.index.lock().used.contains_key(&key) {
            return Ok(true);
        }
        let temporary = self.temporary(&key);
        let copied = fs::File::create_new(&temporary.0).and_then(|mut to| copy(key.digest.function, file, &mut to));
        if copied.map_err(disk(&temporary.0))? != key.digest {
            return Ok(false);
        }
        self.put(key, &temporary)?;
        Ok(true)
    }

    /// Takes a file that an action made: `written` is where it may be moved from.
    pub(super) fn adopt(&self, key: Key, file: &Path, written: Option<&Path>) {
        {
            let index = self.index.lock();
            if index.used.contains_key(&key) || index.fetching.contains(&key) {
                return;
            }
        }
        if written.is_some_and(|written| self.take(key, written).is_ok()) || key.digest.size > ADOPT_BYTES {
            return;
        }
        let temporary = self.temporary(&key);
        if fs::copy(file, &temporary.0).is_ok_and(|bytes| bytes == key.digest.size) {
            let _ = self.put(key, &temporary);
        }
    }

    /// Moves a file into the cache, if it is an ordinary file that has no other name, and nothing but its content.
    fn take(&self, key: Key, written: &Path) -> std::io::Result<()> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fs::File::from(rustix::fs::open(written, flags, Mode::empty())?);
        let data = file.metadata()?;
        let is_ordinary = data.is_file() && data.nlink() == 1 && data.len() == key.digest.size;
        if !is_ordinary || rustix::fs::flistxattr(&file, &mut [0_u8; 256][..])? > 0 {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        file.set_permissions(fs::Permissions::from_mode(key.mode))?;
        self.owner.take_file(&file)?;
        file.set_modified(time())?;
        fs::rename(written, self.path(&key))?;
        self.add(key);
        Ok(())
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
            // Under the lock: who wants the file now holds it first.
            let mut index = self.index.lock();
            let unused = fs::symlink_metadata(&path).map_or(true, |data| data.nlink() == 1);
            if unused && !index.held.contains_key(&key) {
                let _ = fs::remove_file(&path);
                index.forget(&key);
            }
        }
    }
}

/// Gives a file its mode and time.
fn finish(file: &fs::File, key: &Key) -> std::io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(key.mode))?;
    file.set_modified(time())
}

/// The permission bits that new files have if they ask for all: what the process's mask leaves.
fn modes_of_new_files(directory: &Path) -> std::io::Result<u32> {
    let path = directory.join(format!("tmp-mode-{}", std::process::id()));
    let file = fs::File::options().write(true).create(true).truncate(true).mode(0o777).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file.metadata()?.mode() & 0o777)
}

/// Copies a file, and answers what was copied.
fn copy(function: DigestFunction, from: &mut fs::File, to: &mut fs::File) -> std::io::Result<Digest> {
    use std::io::Read;
    let (mut hasher, mut buffer) = (function.hasher(), vec![0; 128 * 1024]);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => {
                hasher.update(buffer.get(..read).unwrap_or_default());
                to.write_all(buffer.get(..read).unwrap_or_default())?;
            }
        }
    }
}

fn hash(function: DigestFunction, mut file: fs::File) -> std::io::Result<Digest> {
    use std::io::Read;
    let mut hasher = function.hasher();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}
