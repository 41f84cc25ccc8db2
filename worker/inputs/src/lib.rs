//! Input trees from a local content-addressed cache.
//!
//! A tree is made of *units*: read-only directories on disk that are stacked into one. A large subtree is a unit of its own, so
//! that an edited file makes only the small unit around it anew. The files of units are hard links into the cache of files.
//!
//! Invariants: a unit or file that is in its place is whole, whatever the machine went through; nothing that a live [`InputTree`] uses is evicted; an action never
//! gets a unit but as the lower layer of an overlay, or as a copy.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod cut;
mod delta;
mod directories;
pub mod fetching;
mod files;
mod index;
mod key;
pub mod session;
mod units;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_proto::digest::Digest;
use kiln_proto::transfer::{self, Client};
use kiln_trees::{Encoded, Tree};
use parking_lot::Mutex;

use delta::Deltas;
pub use delta::{Delta, DeltaFile};
use directories::Directories;
use files::Files;
use session::Session;
use units::{Pin, Units};

/// Roots whose units are remembered, so that an unchanged tree is not walked again.
const REMEMBERED_ROOTS: usize = 1024;
/// The directory of files.
const FILES: &str = "files";
/// All files carry this time, 2000-01-01, so that a build sees no other machine's clock.
pub const MTIME: i64 = 946_684_800;

/// Where the cache is and how large it may be.
#[derive(Debug, Clone)]
pub struct Config {
    /// A directory of its own.
    pub directory: PathBuf,
    /// Most bytes of files. What is in use at once may be more.
    pub max_bytes: u64,
    /// The user and group that the files belong to, where they are not this process's own.
    pub owner: Option<u32>,
}

/// An input tree that cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("the store lacks {} blobs of the inputs", .0.len())]
    Missing(Vec<Digest>),
    #[error("{0}")]
    Invalid(String),
    #[error("cannot fetch the inputs: {0}")]
    Farm(String),
    #[error("cannot fetch the inputs: the connection broke ({0})")]
    Connection(String),
    #[error("cannot keep inputs at `{path}`: {why}; {}", fix_of(why))]
    Disk { path: PathBuf, why: std::io::Error },
}

impl Error {
    /// Whether the connection broke: the same may work when it is back.
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::Connection(_))
    }
}

fn fix_of(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "the worker may not write there: if it had subordinate ids before, give it the same ids again, or another state directory"
        }
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "free space on that disk, or lower `--cache-size`"
        }
        _ => "is the disk full or faulty?",
    }
}

/// The error of a path on the disk.
pub fn disk(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |why| Error::Disk { path: path.to_owned(), why }
}

/// Whom files and directories of the cache belong to: this process's own user, where none is named.
#[derive(Debug, Clone, Copy)]
struct Owner(Option<u32>);

impl Owner {
    /// Gives an entry to its owner.
    fn take(self, path: &Path) -> Result<(), Error> {
        match self.0 {
            Some(id) => std::os::unix::fs::lchown(path, Some(id), Some(id)).map_err(disk(path)),
            None => Ok(()),
        }
    }

    /// Gives an open file to its owner.
    fn take_file(self, file: &std::fs::File) -> std::io::Result<()> {
        match self.0 {
            Some(id) => std::os::unix::fs::fchown(file, Some(id), Some(id)),
            None => Ok(()),
        }
    }

    /// Whether an entry belongs to its owner.
    fn has(self, data: &std::fs::Metadata) -> bool {
        use std::os::unix::fs::MetadataExt;
        data.uid() == self.0.unwrap_or_else(|| rustix::process::geteuid().as_raw())
    }
}

#[derive(Debug)]
struct Shared {
    files: Files,
    units: Units,
    directories: Directories,
    deltas: Deltas,
    roots: Mutex<HashMap<Digest, Arc<Vec<cut::Unit>>>>,
    max_bytes: u64,
    /// Held by the one that evicts. Those who make trees go on: what they use is held or pinned.
    evicting: tokio::sync::Mutex<()>,
    session: Session,
}

/// What a unit consists of, and what keeps its files where they are.
type Fetched = (cut::Content, Arc<index::Held>);

/// The cache. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inputs {
    shared: Arc<Shared>,
}

/// A tree on disk, kept there until this is dropped.
#[derive(Debug)]
pub struct InputTree {
    layers: Vec<PathBuf>,
    _pins: Vec<Pin>,
}

/// Files of the cache by their content, kept there until this is dropped.
#[derive(Debug)]
pub struct Content {
    shared: Arc<Shared>,
    _held: index::Held,
}

/// Where the cache in a directory has the content of files.
pub fn objects(directory: &Path) -> PathBuf {
    directory.join(FILES)
}

impl Content {
    /// Where a file with this content is, below [`objects`]: an absolute path there.
    pub fn object(&self, digest: &Digest) -> String {
        files::name(&key::Key::new(*digest, false, None))
    }

    /// Where a file with this content is. It must not be changed.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.shared.files.path(&key::Key::new(*digest, false, None))
    }
}

impl InputTree {
    /// The directories that together are the tree.
    pub fn layers(&self) -> &[PathBuf] {
        &self.layers
    }
}

impl Inputs {
    /// Opens the cache; what an earlier run left half made is removed.
    pub fn open(config: Config) -> Result<Self, Error> {
        let session = Session::open(&config.directory)?;
        let owner = Owner(config.owner);
        let files = Files::open(objects(&config.directory), session.is_trusted(), owner)?;
        let units = Units::open(config.directory.join("units"), session.is_trusted(), owner)?;
        let deltas = Deltas::open(&config.directory, owner)?;
        let shared = Shared {
            deltas,
            files,
            units,
            directories: Directories::default(),
            roots: Mutex::default(),
            max_bytes: config.max_bytes,
            evicting: tokio::sync::Mutex::default(),
            session,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Bytes of cached files.
    pub fn bytes(&self) -> u64 {
        self.shared.files.bytes()
    }

    /// Bytes of files fetched from the farm so far.
    pub fn fetched_bytes(&self) -> u64 {
        self.shared.files.fetched_bytes()
    }

    /// Makes a tree available, fetching what is not here. Callers at the same time share the work.
    pub async fn fetch(&self, client: &Client, root: &Digest) -> Result<InputTree, Error> {
        let tree = self.make(client, root).await?;
        if self.shared.files.bytes() > self.shared.max_bytes {
            self.evict().await;
        }
        Ok(tree)
    }

    async fn make(&self, client: &Client, root: &Digest) -> Result<InputTree, Error> {
        let known = self.shared.roots.lock().get(root).cloned();
        if let Some(units) = known
            && let Some(tree) = self.pin_all(&units)
        {
            return Ok(tree);
        }
        let directories = self.shared.directories.closure(client, root).await?;
        let units = Arc::new(cut::cut(&directories, root)?);
        let mut fetched = self.files_of(client, &directories, &units).await?;
        let mut pins = Vec::new();
        for unit in units.iter() {
            let content = fetched.remove(&unit.name);
            pins.push(self.unit(client, &directories, unit, content).await?);
        }
        let mut roots = self.shared.roots.lock();
        if roots.len() >= REMEMBERED_ROOTS {
            roots.clear();
        }
        roots.insert(*root, units);
        Ok(InputTree { layers: pins.iter().map(|pin| pin.path().to_owned()).collect(), _pins: pins })
    }

    /// The tree under a root with files and directories laid over it: its digest, and the messages that the farm may lack.
    ///
    /// # Errors
    /// If what lies under the root cannot be read.
    pub async fn overlaid(&self, client: &Client, root: &Digest, over: Tree) -> Result<(Digest, Vec<Encoded>), Error> {
        self.shared.directories.overlaid(client, root, over).await
    }

    fn pin_all(&self, units: &[cut::Unit]) -> Option<InputTree> {
        let pins: Vec<Pin> = units.iter().map(|unit| self.shared.units.pin(&unit.name)).collect::<Option<_>>()?;
        Some(InputTree { layers: pins.iter().map(|pin| pin.path().to_owned()).collect(), _pins: pins })
    }

    /// Fetches the files of all units that are not here, together, because each unit has few. Returns what these units consist of.
    async fn files_of(
        &self,
        client: &Client,
        directories: &kiln_trees::Closure,
        units: &[cut::Unit],
    ) -> Result<HashMap<String, Fetched>, Error> {
        let mut absent = Vec::new();
        for unit in units.iter().filter(|unit| !self.shared.units.is_there(&unit.name)) {
            absent.push((unit.name.clone(), cut::content(directories, unit)?));
        }
        let wanted: Vec<(String, key::Key)> =
            absent.iter().flat_map(|(_, content)| content.files.iter().cloned()).collect();
        let held = Arc::new(self.shared.files.ensure(client, &wanted).await?);
        Ok(absent.into_iter().map(|(name, content)| (name, (content, held.clone()))).collect())
    }

    async fn unit(
        &self,
        client: &Client,
        directories: &kiln_trees::Closure,
        unit: &cut::Unit,
        fetched: Option<Fetched>,
    ) -> Result<Pin, Error> {
        let alone = self.shared.units.flight(&unit.name).lock_owned().await;
        if let Some(pin) = self.shared.units.pin(&unit.name) {
            return Ok(pin);
        }
        let (content, held) = match fetched {
            Some(fetched) => fetched,
            // It was evicted a moment ago.
            None => {
                let content = cut::content(directories, unit)?;
                let held = self.shared.files.ensure(client, &content.files).await?;
                (content, Arc::new(held))
            }
        };
        let (shared, name, unit_path) = (self.shared.clone(), unit.name.clone(), unit.path.clone());
        // Who waits for this may be cancelled; the work goes on, and with it what keeps others from the same.
        let make = move || {
            let _keep = (alone, held);
            shared.units.make(&name, &unit_path, &content, &shared.files)
        };
        tokio::task::spawn_blocking(make).await.map_err(|error| Error::Farm(error.to_string()))?
    }

    /// Makes the content of files available, each digest once; it stays for as long as the answer is kept.
    pub async fn content(&self, client: &Client, digests: impl Iterator<Item = Digest>) -> Result<Content, Error> {
        let distinct: std::collections::BTreeSet<Digest> = digests.filter(|digest| !digest.is_empty()).collect();
        let wanted: Vec<(String, key::Key)> =
            distinct.into_iter().map(|digest| (digest.hex(), key::Key::new(digest, false, None))).collect();
        let held = self.shared.files.ensure(client, &wanted).await?;
        if self.shared.files.bytes() > self.shared.max_bytes {
            self.evict().await;
        }
        Ok(Content { shared: self.shared.clone(), _held: held })
    }

    /// As [`content`](Self::content), if all of it is here.
    pub fn held(&self, digests: &[Digest]) -> Option<Content> {
        let keys = digests.iter().map(|digest| key::Key::new(*digest, false, None)).collect();
        let held = self.shared.files.hold_present(keys)?;
        Some(Content { shared: self.shared.clone(), _held: held })
    }

    /// Puts files that an action made into the cache, each with whether it is executable, so that a later action here need
    /// not fetch them. What lies below `root` is moved from the same place below `written`, where it is on this process's
    /// own disk and nobody needs it any more; else it is copied. Best effort.
    pub async fn adopt_all(&self, made: Vec<(Digest, bool, PathBuf)>, root: &Path, written: Option<&Path>) {
        let shared = self.shared.clone();
        let (root, written) = (root.to_owned(), written.map(Path::to_owned));
        let adopt = move || {
            for (digest, executable, file) in made {
                let place = written.as_ref().and_then(|written| Some(written.join(file.strip_prefix(&root).ok()?)));
                shared.files.adopt(key::Key::new(digest, executable, None), &file, place.as_deref());
            }
        };
        let _ = tokio::task::spawn_blocking(adopt).await;
    }

    /// Writes to disk what is here, and that it is whole: after this, a machine that fails loses nothing. For an orderly end.
    pub fn close(&self) {
        if let Err(error) = self.shared.session.close() {
            tracing::warn!(%error, "cannot write the cache of inputs to disk; it is checked at the next start");
        }
    }

    async fn evict(&self) {
        let _alone = self.shared.evicting.lock().await;
        if self.shared.files.bytes() <= self.shared.max_bytes {
            return;
        }
        let shared = self.shared.clone();
        let _ = tokio::task::spawn_blocking(move || {
            // Files go with the units that use them: the oldest units first, until enough files are nobody's.
            let aim = (shared.max_bytes / 10).saturating_mul(9);
            loop {
                shared.files.evict_unused(aim);
                if shared.files.bytes() <= aim || !shared.units.evict_some() {
                    break;
                }
            }
            shared.roots.lock().clear();
        })
        .await;
    }
}

/// What the failure of a transfer means for a tree.
pub fn transfer_failed(error: transfer::Error) -> Error {
    match error {
        transfer::Error::Missing { digest } => Error::Missing(vec![digest]),
        transfer::Error::Message { digest, source } => {
            Error::Invalid(format!("input `{digest}` is not a directory: {source}"))
        }
        other if other.is_connection() => Error::Connection(other.to_string()),
        other => Error::Farm(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_cannot_be_written_names_the_fix() {
        let said = |kind: std::io::ErrorKind| disk(Path::new("/state/units"))(kind.into()).to_string();
        assert!(said(std::io::ErrorKind::PermissionDenied).contains("give it the same ids again"));
        assert!(said(std::io::ErrorKind::StorageFull).contains("`--cache-size`"));
    }
}
