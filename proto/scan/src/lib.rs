//! The scan: from a directory on disk to a Merkle tree, hashing only what changed since the last time; and what git says of it.
//!
//! Invariant: a digest in a [`Scanned`] tree is that of bytes which the file really had while the scan ran. What the cache
//! remembers is trusted only where the file's size, times and inode are as they were, and were old enough then.

pub mod around;
mod cache;
mod excluded;
pub mod git;
mod hash;
mod owned;
mod walk;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::meter::Meter;
use kiln_proto::transfer::Blob;
use kiln_trees::tree::{Entry, Tree};

pub use cache::{Cache, Stat};
pub use walk::{Found, Kind, LeftOut, Walked, Why, walk};

/// In a directory that holds nothing but Kiln's output: says what Kiln wrote there. Such a directory is no source.
pub const OUTPUT_RECORD: &str = ".kiln-output.json";
/// The same in a directory that holds other files too.
pub const SHARED_OUTPUT_RECORD: &str = ".kiln-fetched.json";

/// A tree that cannot be built from. Every one is the user's to mend.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("there is no directory `{}` to build from", .path.display())]
    NoDirectory { path: PathBuf },
    #[error(
        "`{}` is a name that is not valid UTF-8, and cannot be sent to another machine; rename it, or list it in `.kilnignore`",
        .path.display()
    )]
    Name { path: PathBuf },
    #[error(
        "`{}` is a {kind}; expected a file, a directory or a symbolic link; remove it, or list it in `.kilnignore`",
        .path.display()
    )]
    Special { path: PathBuf, kind: &'static str },
    #[error(
        "the symbolic link `{path}` leaves the tree: it points to `{target}`, which is on no worker; point it \
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
        "git cannot list the files of `{}`, so Kiln does not know which belong to the project: {reason}", .path.display()
    )]
    Git { path: PathBuf, reason: String },
    #[error("cannot list the directory: {0}")]
    Walk(#[from] ignore::Error),
    #[error("`{}` changes while it is read; let what writes it finish, and start the build again", .path.display())]
    Changing { path: PathBuf },
    #[error(transparent)]
    Tree(#[from] kiln_trees::tree::Error),
}

/// What to scan.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory.
    pub root: PathBuf,
    /// Paths relative to it that the tree consists of; empty for all of it.
    pub parts: Vec<String>,
    /// Where the cache of digests is kept; none: everything is hashed.
    pub cache: Option<PathBuf>,
    /// The digest function.
    pub function: DigestFunction,
}

/// A scanned tree.
#[derive(Debug)]
pub struct Scanned {
    /// The directory that was scanned, absolute.
    pub root: PathBuf,
    /// Digest of the root `Directory`.
    pub digest: Digest,
    /// Everything the tree consists of, by digest: directories in memory, files by path.
    pub blobs: HashMap<Digest, Blob>,
    /// Files in the tree.
    pub files: usize,
    /// Files whose bytes were read.
    pub hashed: usize,
    /// Paths of all files and symbolic links, sorted.
    pub paths: Vec<String>,
    /// What is not in the tree, beside what git ignores.
    pub left_out: Vec<LeftOut>,
}

/// Scans a directory.
pub fn scan(options: &Options) -> Result<Scanned, Error> {
    scan_metered(options, &Meter::default())
}

/// As [`scan`]; counts the bytes that are hashed.
pub fn scan_metered(options: &Options, meter: &Meter) -> Result<Scanned, Error> {
    let started = SystemTime::now();
    let root = directory(&options.root)?;
    let cache_file = options.cache.as_ref().map(|dir| dir.join(cache_name(&root, options.function)));
    let (walked, cache) = std::thread::scope(|scope| {
        let cache = scope.spawn(|| cache_file.as_deref().and_then(Cache::load).unwrap_or_default());
        let walked = walk(&root, &options.parts);
        (walked, cache.join().unwrap_or_default())
    });
    let Walked { found, left_out } = walked?;
    let known: Vec<Option<[u8; 32]>> = found
        .iter()
        .map(|found| match &found.kind {
            Kind::File { stat, .. } => cache.get(&found.path, stat),
            Kind::Symlink { .. } => None,
        })
        .collect();
    let fresh = hash::hash_files(&root, &found, &known, options.function, meter)?;
    let hashed = fresh.len();
    let scanned = build(root, &found, &known, &fresh, options.function)?;
    if let Some(file) = cache_file.filter(|_| hashed > 0 || cache.len() != scanned.files) {
        remember(&file, &found, &known, &fresh, started);
    }
    let paths = found.into_iter().map(|one| one.path).collect();
    Ok(Scanned { hashed, left_out, paths, ..scanned })
}

/// The directory in its absolute form.
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
    let mut tree = Tree::default();
    let mut blobs = HashMap::with_capacity(found.len() + found.len() / 4);
    let mut files = 0;
    for (index, one) in found.iter().enumerate() {
        let entry = match &one.kind {
            Kind::Symlink { target } => Entry::Symlink { target: target.clone() },
            Kind::File { stat, executable } => {
                files += 1;
                let digest = match (known[index], fresh.get(&index)) {
                    (Some(hash), _) => Digest { function, hash, size: stat.size },
                    (None, Some((_, digest))) => *digest,
                    (None, None) => return Err(Error::Changing { path: root.join(&one.path) }),
                };
                blobs.entry(digest).or_insert_with(|| Blob::File(root.join(&one.path)));
                Entry::file(digest, *executable)
            }
        };
        tree.insert(&one.path, entry)?;
    }
    let digest = tree.encode(function, &mut |encoded| {
        blobs.insert(encoded.digest, Blob::Bytes(Bytes::from(encoded.data)));
    });
    Ok(Scanned { root, digest, blobs, files, hashed: 0, left_out: Vec::new(), paths: Vec::new() })
}

/// Keeps what was learnt, but for files so young that a later write could leave the same times behind ("racily clean").
/// A cache that cannot be written costs time and nothing else.
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
        let learnt = match (known[index], fresh.get(&index)) {
            (Some(hash), _) => Some((*stat, hash)),
            (None, Some((stat, digest))) => Some((*stat, digest.hash)),
            (None, None) => None,
        };
        if let Some((stat, hash)) = learnt.filter(|(stat, _)| stat.is_older_than(young)) {
            cache.put(one.path.clone(), stat, hash);
        }
    }
    if let Err(error) = cache.save(file) {
        tracing::debug!("the scan's cache `{}` was not written: {error}", file.display());
    }
}

fn cache_name(root: &Path, function: DigestFunction) -> String {
    use std::os::unix::ffi::OsStrExt;
    let name = DigestFunction::Sha256.digest(root.as_os_str().as_bytes()).hex();
    format!("{}.{}", &name[..32], function.name())
}

#[cfg(test)]
mod tests;
