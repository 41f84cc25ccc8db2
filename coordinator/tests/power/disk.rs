//! A disk that loses data: it remembers what was synced, and at a power cut loses, truncates or garbles everything
//! else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use kiln_state::syncs::Syncs;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

#[derive(Debug, Default)]
struct Synced {
    /// Content by inode.
    files: BTreeMap<u64, Vec<u8>>,
    /// Names and inodes by directory.
    directories: BTreeMap<PathBuf, BTreeMap<PathBuf, u64>>,
    /// How many more syncs there are until the power is cut.
    left: u64,
}

/// The disk below a directory, until its power is cut.
#[derive(Debug)]
pub struct Forgetful {
    top: PathBuf,
    /// The content of the disk after the cut.
    after: PathBuf,
    seed: u64,
    synced: Mutex<Synced>,
}

fn names(directory: &Path) -> BTreeMap<PathBuf, u64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.ino()))).collect()
}

impl Forgetful {
    /// Cuts the power during the given sync. Then `after` holds what is left of `top`.
    pub fn new(top: &Path, after: &Path, syncs: u64, seed: u64) -> Self {
        let directories = BTreeMap::from([(top.to_owned(), names(top))]);
        let synced = Mutex::new(Synced { files: BTreeMap::new(), directories, left: syncs });
        Self { top: top.to_owned(), after: after.to_owned(), seed, synced }
    }

    pub fn is_cut(&self) -> bool {
        self.synced.lock().left == 0
    }

    /// Cuts the power now, unless it was cut before.
    pub fn cut(&self) {
        let mut synced = self.synced.lock();
        if synced.left > 0 {
            synced.left = 0;
            self.lose(&synced, &self.top, &self.after, &mut SmallRng::seed_from_u64(self.seed));
        }
    }

    /// Counts a sync, which takes effect only while there is power.
    fn sync(&self, done: impl FnOnce(&mut Synced) -> io::Result<()>) -> io::Result<()> {
        let mut synced = self.synced.lock();
        match synced.left {
            // Nobody notices that nothing is written any more.
            0 => return Ok(()),
            1 => {
                drop(synced);
                self.cut();
                return Ok(());
            }
            _ => synced.left -= 1,
        }
        done(&mut synced)
    }

    fn lose(&self, synced: &Synced, from: &Path, to: &Path, rng: &mut SmallRng) {
        fs::create_dir_all(to).unwrap();
        let (now, none) = (names(from), BTreeMap::new());
        let kept = synced.directories.get(from).unwrap_or(&none);
        for path in now.keys().chain(kept.keys()).collect::<BTreeSet<_>>() {
            let (found, safe) = (now.get(path), kept.get(path));
            // A name that was not synced may exist or not; one that was synced and removed since may exist again.
            let inode = match (found, safe) {
                (Some(found), Some(safe)) if found == safe => *found,
                (Some(found), _) if rng.random_bool(0.7) => *found,
                (_, Some(safe)) if found.is_none() && rng.random_bool(0.5) => *safe,
                _ => continue,
            };
            let target = to.join(path.file_name().unwrap());
            if path.is_dir() {
                self.lose(synced, path, &target, rng);
            } else {
                let seen = fs::read(path).unwrap_or_default();
                let content = synced.files.get(&inode).cloned().unwrap_or_else(|| garbled(seen, rng));
                fs::write(target, content).unwrap();
            }
        }
    }
}

/// What may be left of a file that was never synced.
fn garbled(mut data: Vec<u8>, rng: &mut SmallRng) -> Vec<u8> {
    let at = rng.random_range(0..=data.len());
    match rng.random_range(0..5) {
        0 => data.truncate(at),
        1 => data.clear(),
        2 => data[at..].fill(0),
        3 => rng.fill_bytes(&mut data[at..]),
        _ => {}
    }
    data
}

impl Syncs for Forgetful {
    fn file(&self, file: &File) -> io::Result<()> {
        let mut data = vec![0; file.metadata()?.len() as usize];
        file.read_exact_at(&mut data, 0).or_else(|_| {
            // It was opened for writing only.
            let mut again = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)))?;
            again.rewind()?;
            again.read_exact(&mut data)
        })?;
        let inode = file.metadata()?.ino();
        self.sync(|synced| {
            synced.files.insert(inode, data);
            Ok(())
        })
    }

    fn directory(&self, path: &Path) -> io::Result<()> {
        self.sync(|synced| {
            synced.directories.insert(path.to_owned(), names(path));
            Ok(())
        })
    }

    fn all(&self, path: &Path) -> io::Result<()> {
        let mut open = vec![path.to_owned()];
        self.sync(|synced| {
            while let Some(directory) = open.pop() {
                for (path, inode) in names(&directory) {
                    if path.is_dir() {
                        open.push(path);
                    } else {
                        synced.files.insert(inode, fs::read(path)?);
                    }
                }
                synced.directories.insert(directory.clone(), names(&directory));
            }
            Ok(())
        })
    }
}
