//! Reads a tree of outputs from disk, without ever following a link.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::tree::{Entry, Tree};

use super::Error;

/// A file that was found, not hashed yet.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) executable: bool,
}

/// What stands at an output's path.
#[derive(Debug)]
pub(super) enum Output {
    File(Found),
    Link(String),
    Directory(Listing),
}

/// A directory with everything below it.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<(String, Found)>,
    pub(super) links: Vec<(String, String)>,
    pub(super) directories: Vec<String>,
}

pub(super) fn join(base: &str, path: &str) -> String {
    let parts = base.split('/').chain(path.split('/')).filter(|part| !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/")
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |error| Error::Farm(format!("cannot read `{}`: {error}", path.display()))
}

/// What stands at a path relative to the root; `None` where nothing does.
pub(super) fn look(root: &Path, path: &str) -> Result<Option<Output>, Error> {
    let mut at = root.to_owned();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for part in parts.iter().take(parts.len().saturating_sub(1)) {
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(data) if data.is_dir() => {}
            Ok(data) if data.is_symlink() => {
                let words = format!(
                    "output `{path}` lies behind the symbolic link `{part}`; name its real path in the outputs"
                );
                return Err(Error::Precondition(words));
            }
            _ => return Ok(None),
        }
    }
    at.extend(parts.last());
    let data = match fs::symlink_metadata(&at) {
        Ok(data) => data,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&at)(error)),
    };
    Ok(Some(if data.is_symlink() {
        Output::Link(target(&at, path)?)
    } else if data.is_dir() {
        let mut listing = Listing::default();
        list(&at, "", path, &mut listing)?;
        Output::Directory(listing)
    } else if data.is_file() {
        Output::File(Found { executable: data.mode() & 0o100 != 0, path: at })
    } else {
        return Err(special(path));
    }))
}

fn special(path: &str) -> Error {
    Error::Precondition(format!(
        "output `{path}` is a socket, a pipe or a device; expected a file, a directory or a symbolic link"
    ))
}

fn target(at: &Path, path: &str) -> Result<String, Error> {
    let target = fs::read_link(at).map_err(failed(at))?;
    let not_text = || Error::Precondition(format!("the target of symbolic link `{path}` is no UTF-8"));
    target.into_os_string().into_string().map_err(|_| not_text())
}

fn list(at: &Path, within: &str, output: &str, listing: &mut Listing) -> Result<(), Error> {
    let mut entries: Vec<fs::DirEntry> =
        fs::read_dir(at).map_err(failed(at))?.collect::<Result<_, _>>().map_err(failed(at))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            let words = format!("`{}` in output `{output}` has a name that is no UTF-8", name.to_string_lossy());
            return Err(Error::Precondition(words));
        };
        let path = join(within, name);
        let data = entry.metadata().map_err(failed(at))?;
        if data.is_symlink() {
            listing.links.push((path.clone(), target(&entry.path(), &path)?));
        } else if data.is_dir() {
            listing.directories.push(path.clone());
            list(&entry.path(), &path, output, listing)?;
        } else if data.is_file() {
            let found = Found { path: entry.path(), executable: data.mode() & 0o100 != 0 };
            listing.files.push((path, found));
        } else {
            return Err(special(&format!("{output}/{path}")));
        }
    }
    Ok(())
}

/// Hashes files on all processors, in the order given.
pub(super) fn hash(function: DigestFunction, files: &[&Found]) -> Result<Vec<Digest>, Error> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len().div_ceil(32)).max(1);
    let results: Vec<Result<Vec<(usize, Digest)>, Error>> = std::thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(file) = files.get(index) else { return Ok(done) };
                done.push((index, hash_one(function, &file.path)?));
            }
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let gone = || Err(Error::Farm("hashing the outputs was interrupted".to_owned()));
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| gone())).collect()
    });
    let mut digests = vec![Digest::empty(function); files.len()];
    for result in results {
        for (index, digest) in result? {
            digests[index] = digest;
        }
    }
    Ok(digests)
}

fn hash_one(function: DigestFunction, path: &Path) -> Result<Digest, Error> {
    use std::io::Read;
    let mut file = fs::File::open(path).map_err(failed(path))?;
    let mut hasher = function.hasher();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer).map_err(failed(path))? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// The tree of a listing, given its files' digests.
pub(super) fn tree(listing: &Listing, digests: &[Digest]) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    let failed = |error: kiln_proto::tree::Error| Error::Farm(error.to_string());
    for directory in &listing.directories {
        tree.insert(directory, Entry::Directory(Tree::default())).map_err(failed)?;
    }
    for ((path, found), digest) in listing.files.iter().zip(digests) {
        let entry = Entry::File { digest: *digest, executable: found.executable };
        tree.insert(path, entry).map_err(failed)?;
    }
    for (path, target) in &listing.links {
        tree.insert(path, Entry::Symlink { target: target.clone() }).map_err(failed)?;
    }
    Ok(tree)
}
