//! Scans a directory into a Merkle tree, hashing only what changed since the last scan; and collects facts from git.
//!
//! Invariant: a digest in a [`Scanned`] tree belongs to bytes that the file really had during the scan. A cached digest
//! is used only if the file's size, times and inode are unchanged and were old enough when it was cached.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

pub mod around;
mod assemble;
mod cache;
mod context;
mod excluded;
pub mod git;
mod hash;
mod listing;
mod owned;
mod programs;
#[cfg_attr(unix, path = "states_unix.rs")]
#[cfg_attr(windows, path = "states_windows.rs")]
mod states;
mod times;
mod walk;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::meter::Meter;
use kiln_proto::transfer::Blob;
use kiln_trees::root::Times;

pub use cache::{Cache, Stat};
pub use context::{Keeps, Kept};
pub use walk::{Found, Kind, LeftOut, Walked, Why, walk};

/// The record of what Kiln wrote to a directory that contains only its output. Such a directory is not a source.
pub const OUTPUT_RECORD: &str = ".kiln-output.json";
/// The same in a directory that contains other files too.
pub const SHARED_OUTPUT_RECORD: &str = ".kiln-fetched.json";

/// Why a tree cannot be scanned. Every error is the user's to fix.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("there is no directory `{}` to build from", .path.display())]
    NoDirectory { path: PathBuf },
    #[error(
        "the name `{}` is not valid UTF-8 and cannot be sent to another machine; rename it, or list it in `.kilnignore`",
        .path.display()
    )]
    Name { path: PathBuf },
    #[error(
        "`{}` is a {kind}; expected a file, a directory or a symbolic link; remove it, or list it in `.kilnignore`",
        .path.display()
    )]
    Special { path: PathBuf, kind: &'static str },
    #[error(
        "the symbolic link `{path}` leaves the tree: it points to `{target}`, which no worker has; point it \
         inside the tree, or list it in `.kilnignore`"
    )]
    Link { path: String, target: String },
    #[error("cannot read `{}`; make it readable, or list it in `.kilnignore`", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "git cannot list the files of `{}`, so Kiln cannot tell which belong to the project: {reason}", .path.display()
    )]
    Git { path: PathBuf, reason: String },
    #[error("cannot list the directory: {0}")]
    Walk(#[from] ignore::Error),
    #[error("`{}` changes while it is read; let what writes it finish, and start the build again", .path.display())]
    Changing { path: PathBuf },
    #[error(transparent)]
    Tree(#[from] kiln_trees::tree::Error),
}

/// Options of a scan.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory.
    pub root: PathBuf,
    /// Paths relative to it that belong to the tree; empty for all.
    pub parts: Vec<String>,
    /// The file with the cache of digests; `None` to hash everything.
    pub cache: Option<PathBuf>,
    /// The digest function.
    pub function: DigestFunction,
    /// Which files there are.
    pub files: Files,
}

/// Which files of a directory belong to a tree.
#[derive(Debug, Clone, Default)]
pub enum Files {
    /// Those of a project, as git and `.kilnignore` say.
    #[default]
    Project,
    /// All that are kept, with permission bits and empty directories: the context of a Dockerfile.
    Context(Keeps),
}

/// A scanned tree.
#[derive(Debug)]
pub struct Scanned {
    /// The directory that was scanned, an absolute path.
    pub root: PathBuf,
    /// Digest of the root `Directory`.
    pub digest: Digest,
    /// Number of files in the tree.
    pub files: usize,
    /// Number of files whose bytes were read.
    pub hashed: usize,
    /// Paths of all files and symbolic links, sorted.
    pub paths: Vec<String>,
    /// Paths that are not in the tree, in addition to those that git ignores.
    pub left_out: Vec<LeftOut>,
    /// When the files, the links and their directories were modified; only of a context.
    pub times: Times,
    /// Of each of `paths`, the digest of its content below `root`, if it has any.
    contents: Vec<Option<Digest>>,
    /// All other blobs of the tree.
    others: HashMap<Digest, Blob>,
}

impl Scanned {
    /// A tree that consists of these blobs, from below a directory.
    pub fn of(root: PathBuf, digest: Digest, blobs: HashMap<Digest, Blob>) -> Self {
        Self {
            root,
            digest,
            files: 0,
            hashed: 0,
            paths: Vec::new(),
            left_out: Vec::new(),
            times: Times::default(),
            contents: Vec::new(),
            others: blobs,
        }
    }

    /// Every blob of the tree: directories in memory, files by path. They are collected only here, because of an unchanged tree most
    /// likely none is wanted.
    pub fn blobs(&self) -> HashMap<Digest, Blob> {
        let mut all = HashMap::with_capacity(self.others.len().saturating_add(self.contents.len()));
        all.extend(self.others.iter().map(|(digest, blob)| (*digest, blob.clone())));
        for (path, digest) in self.paths.iter().zip(&self.contents) {
            if let Some(digest) = digest {
                all.entry(*digest).or_insert_with(|| Blob::File(self.root.join(path)));
            }
        }
        all
    }

    /// A blob of the tree that is in memory: a directory, or something small.
    pub fn held(&self, digest: &Digest) -> Option<&Bytes> {
        match self.others.get(digest)? {
            Blob::Bytes(data) => Some(data),
            Blob::File(_) | Blob::Part(..) => None,
        }
    }

    /// The size of all blobs together, in bytes.
    pub fn bytes(&self) -> u64 {
        let mut files: Vec<&Digest> = self.contents.iter().flatten().collect();
        files.sort_unstable();
        files.dedup();
        let held = self.others.keys();
        held.chain(files.into_iter().filter(|digest| !self.others.contains_key(digest))).map(|digest| digest.size).sum()
    }

    /// Adds blobs.
    pub fn extend(&mut self, blobs: impl IntoIterator<Item = (Digest, Blob)>) {
        self.others.extend(blobs);
    }

    /// Adds the times to the blobs, and returns the digest of theirs.
    pub fn add_times(&mut self, function: DigestFunction) -> Digest {
        let data = Bytes::from(self.times.encode());
        let digest = function.digest(&data);
        self.others.insert(digest, Blob::Bytes(data));
        digest
    }
}

/// Scans a directory.
pub fn scan(options: &Options) -> Result<Scanned, Error> {
    scan_metered(options, &Meter::default())
}

/// Like [`scan`]; counts the hashed bytes.
pub fn scan_metered(options: &Options, meter: &Meter) -> Result<Scanned, Error> {
    let started = SystemTime::now();
    let root = directory(&options.root)?;
    let kind = if matches!(options.files, Files::Project) { "" } else { ".context" };
    let cache_file = options.cache.as_ref().map(|dir| dir.join(cache_name(&root, options.function) + kind));
    let (walked, cache) = std::thread::scope(|scope| {
        let cache = scope.spawn(|| cache_file.as_deref().and_then(Cache::load).unwrap_or_default());
        let walked = match &options.files {
            Files::Project => walk(&root, &options.parts),
            Files::Context(keeps) => context::walk(&root, keeps),
        };
        (walked, cache.join().unwrap_or_default())
    });
    let Walked { found, left_out } = walked?;
    let mut lookup = cache.lookup();
    let known: Vec<Option<[u8; 32]>> = found
        .iter()
        .map(|found| match &found.kind {
            Kind::File { stat, .. } => lookup.get(&found.path, stat),
            Kind::Symlink { .. } | Kind::Directory { .. } | Kind::Empty { .. } => None,
        })
        .collect();
    let fresh = hash::hash_files(&root, &found, &known, options.function, meter)?;
    let hashed = fresh.len();
    let scanned = build(root, &found, &known, &fresh, options.function)?;
    if let Some(file) = cache_file.filter(|_| hashed > 0 || cache.len() != scanned.files) {
        remember(&file, &found, &known, &fresh, started);
    }
    let times = match options.files {
        Files::Project => Times::default(),
        Files::Context(_) => times::of(&scanned.root, &found),
    };
    let paths = found.into_iter().map(|one| one.path).collect();
    Ok(Scanned { hashed, left_out, paths, times, ..scanned })
}

/// The absolute path of a directory.
pub fn directory(path: &Path) -> Result<PathBuf, Error> {
    let missing = || Error::NoDirectory { path: path.to_owned() };
    let root = path.canonicalize().map_err(|_| missing())?;
    if root.is_dir() { Ok(root) } else { Err(missing()) }
}

fn build(
    root: PathBuf,
    found: &[Found],
    known: &[Option<[u8; 32]>],
    fresh: &HashMap<usize, (Stat, Digest)>,
    function: DigestFunction,
) -> Result<Scanned, Error> {
    let mut contents = Vec::with_capacity(found.len());
    let mut others = HashMap::new();
    let mut files = 0_usize;
    for (index, one) in found.iter().enumerate() {
        contents.push(match &one.kind {
            Kind::Symlink { .. } | Kind::Directory { .. } => None,
            Kind::Empty { .. } => {
                files = files.saturating_add(1);
                others.insert(Digest::empty(function), Blob::Bytes(Bytes::new()));
                None
            }
            Kind::File { stat, .. } => {
                files = files.saturating_add(1);
                match (known.get(index).copied().flatten(), fresh.get(&index)) {
                    (Some(hash), _) => Some(Digest { function, hash, size: stat.size }),
                    (None, Some((_, digest))) => Some(*digest),
                    (None, None) => return Err(Error::Changing { path: root.join(&one.path) }),
                }
            }
        });
    }
    let (digest, directories) = assemble::tree(found, &contents, function)?;
    others.extend(directories.into_iter().map(|encoded| (encoded.digest, Blob::Bytes(Bytes::from(encoded.data)))));
    Ok(Scanned { files, contents, ..Scanned::of(root, digest, others) })
}

/// Updates the cache, except for files modified so recently that a later write could leave the same times ("racily
/// clean"). A cache that cannot be written only costs time.
fn remember(
    file: &Path,
    found: &[Found],
    known: &[Option<[u8; 32]>],
    fresh: &HashMap<usize, (Stat, Digest)>,
    started: SystemTime,
) {
    let young = started
        .checked_sub(Duration::from_secs(2))
        .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
    let mut cache = Cache::default();
    for (index, one) in found.iter().enumerate() {
        let Kind::File { stat, .. } = &one.kind else { continue };
        let learnt = match (known.get(index).copied().flatten(), fresh.get(&index)) {
            (Some(hash), _) => Some((*stat, hash)),
            (None, Some((stat, digest))) => Some((*stat, digest.hash)),
            (None, None) => None,
        };
        if let Some((stat, hash)) = learnt.filter(|(stat, _)| stat.is_older_than(young)) {
            cache.push(&one.path, stat, hash);
        }
    }
    if let Err(error) = cache.save(file) {
        tracing::debug!("cannot write the scan's cache `{}`: {error}", file.display());
    }
}

fn cache_name(root: &Path, function: DigestFunction) -> String {
    let name = DigestFunction::Sha256.digest(root.as_os_str().as_encoded_bytes()).hex();
    format!("{}.{}", name.get(..32).unwrap_or(&name), function.name())
}

#[cfg(test)]
mod tests;
