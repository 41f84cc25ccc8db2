//! Layers of a few files for one job: what a step has made itself, for a call of a compiler that needs it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_proto::digest::Digest;

use super::index::Held;
use super::key::Key;
use super::{Error, Inputs, Owner, Shared, disk};

/// The directory of all deltas, which are removed at each start.
const DIRECTORY: &str = "deltas";

#[derive(Debug)]
pub(super) struct Deltas {
    directory: PathBuf,
    owner: Owner,
    count: AtomicU64,
}

/// A file of a delta.
#[derive(Debug)]
pub struct DeltaFile {
    /// Its path below the input root.
    pub path: PathBuf,
    /// What its content is said to be.
    pub digest: Digest,
    /// Whether it is a program.
    pub executable: bool,
    /// Its content, if the cache lacks it.
    pub content: File,
}

/// A layer of files; removed on drop.
#[derive(Debug)]
pub struct Delta {
    path: PathBuf,
    _held: Held,
    _shared: Arc<Shared>,
}

impl Delta {
    /// Its directory, to be stacked above a job's other layers.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Delta {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "cannot remove a layer of a call");
        }
    }
}

impl Deltas {
    pub(super) fn open(below: &Path, owner: Owner) -> Result<Self, Error> {
        let directory = below.join(DIRECTORY);
        if directory.exists() {
            fs::remove_dir_all(&directory).map_err(disk(&directory))?;
        }
        fs::create_dir_all(&directory).map_err(disk(&directory))?;
        owner.take(&directory)?;
        Ok(Self { directory, owner, count: AtomicU64::new(0) })
    }

    fn directories(&self, root: &Path, below: &Path) -> Result<(), Error> {
        let mut path = root.to_owned();
        for part in below {
            path.push(part);
            match fs::create_dir(&path) {
                Ok(()) => self.owner.take(&path)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(disk(&path)(error)),
            }
        }
        Ok(())
    }
}

impl Inputs {
    /// Makes a layer of these files and symbolic links (by path, with their targets), and leaves out files those whose content is not what it was said to be; answers with what is in it, too.
    /// Blocks.
    pub fn delta(
        &self,
        files: Vec<DeltaFile>,
        links: &BTreeMap<PathBuf, PathBuf>,
    ) -> Result<(Delta, BTreeMap<PathBuf, Digest>), Error> {
        let shared = &self.shared;
        let deltas = &shared.deltas;
        let key = |file: &DeltaFile| Key::new(file.digest, file.executable, None);
        let path = deltas.directory.join(deltas.count.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&path).map_err(disk(&path))?;
        let held = shared.files.hold(&files.iter().map(key).collect::<Vec<_>>());
        let delta = Delta { path, _held: held, _shared: shared.clone() };
        deltas.owner.take(delta.path())?;
        for (path, target) in links {
            if let Some(parent) = path.parent() {
                deltas.directories(delta.path(), parent)?;
            }
            let link = delta.path().join(path);
            std::os::unix::fs::symlink(target, &link).map_err(disk(&link))?;
            deltas.owner.take(&link)?;
        }
        let mut content = BTreeMap::new();
        for mut file in files {
            if let Some(parent) = file.path.parent() {
                deltas.directories(delta.path(), parent)?;
            }
            let to = delta.path().join(&file.path);
            if !shared.files.take_open(key(&file), &mut file.content)? {
                continue;
            }
            if shared.files.link(&key(&file), &to).is_err() {
                // The cache has lost it, and knows that now.
                file.content.seek(SeekFrom::Start(0)).map_err(disk(&to))?;
                shared.files.take_open(key(&file), &mut file.content)?;
                shared.files.link(&key(&file), &to)?;
            }
            content.insert(file.path, file.digest);
        }
        Ok((delta, content))
    }
}
