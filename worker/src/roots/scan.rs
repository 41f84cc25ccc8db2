//! What a command wrote over a root, read from the upper directory of its overlay.
//!
//! Invariant: symbolic links are never followed, and nothing but regular files is opened.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_trees::root::{Content, Directory, Forest, Leaf, Name, Node, Time};
use kiln_trees::shape::{MAX_DEPTH, MAX_ENTRIES, MAX_PATH_BYTES};
use tokio_util::sync::CancellationToken;

use super::attributes;
use crate::outputs::{self, Error};

/// What a command wrote.
#[derive(Debug)]
pub(super) struct Scanned {
    /// The layer, with everything that overlayfs copied or marked.
    pub(super) layer: Digest,
    /// When each of its nodes was modified.
    pub(super) times: BTreeMap<Vec<u8>, Time>,
    /// Where the content of each of its files is.
    pub(super) files: HashMap<Digest, PathBuf>,
}

/// Where to read, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upper<'a> {
    pub(super) path: &'a Path,
    /// The id on disk of the root's user 0.
    pub(super) base: u32,
    pub(super) marks: &'static str,
    pub(super) function: DigestFunction,
    pub(super) most_bytes: u64,
}

struct Found {
    path: PathBuf,
    within: Vec<u8>,
    data: Metadata,
}

struct Reading<'a> {
    upper: Upper<'a>,
    /// Files, to be hashed; their names stand in `directories`.
    files: Vec<Found>,
    directories: Vec<(Found, Vec<(Name, Entry)>)>,
    entries: u64,
    bytes: u64,
}

/// What an entry is before files are hashed.
enum Entry {
    /// By its place among the directories.
    Directory(usize),
    /// By its place among the files.
    File(usize),
    Leaf(Leaf, (u64, u64, u64)),
    Whiteout,
}

fn failed<'a>(path: &'a Path, root: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |error| {
        let within = path.strip_prefix(root).unwrap_or(path).display().to_string();
        match error.kind() {
            io::ErrorKind::InvalidFilename | io::ErrorKind::PermissionDenied | io::ErrorKind::Other => {
                Error::Precondition(format!("cannot read `/{within}` after the command: {error}"))
            }
            _ => Error::Farm(format!("cannot read `/{within}` after the command: {error}")),
        }
    }
}

/// Reads everything that was written.
pub(super) fn scan(upper: Upper<'_>, forest: &mut Forest, cancel: &CancellationToken) -> Result<Scanned, Error> {
    let mut reading = Reading { upper, files: Vec::new(), directories: Vec::new(), entries: 0, bytes: 0 };
    let data = fs::symlink_metadata(upper.path).map_err(failed(upper.path, upper.path))?;
    reading.list(upper.path.to_owned(), data, cancel)?;
    let found: Vec<(&Path, &[u8])> =
        reading.files.iter().map(|one| (one.path.as_path(), one.within.as_slice())).collect();
    let digests = outputs::hash_all(upper.function, &found, cancel)?;
    reading.finish(forest, &digests)
}

impl Reading<'_> {
    /// Lists the directory and everything below it. Not recursive: a command may make a tree that is deeper than a stack allows.
    fn list(&mut self, top: PathBuf, data: Metadata, cancel: &CancellationToken) -> Result<(), Error> {
        let mut at = 0;
        self.directories.push((Found { path: top, within: Vec::new(), data }, Vec::new()));
        while at < self.directories.len() {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let (path, within) = {
                let (found, _) = &self.directories[at];
                (found.path.clone(), found.within.clone())
            };
            let root = self.upper.path;
            let mut names: Vec<Vec<u8>> = Vec::new();
            for entry in fs::read_dir(&path).map_err(failed(&path, root))? {
                names.push(entry.map_err(failed(&path, root))?.file_name().into_vec());
            }
            names.sort_unstable();
            let mut entries = Vec::with_capacity(names.len());
            for bytes in names {
                let below = path.join(OsStr::from_bytes(&bytes));
                let name = Name::new(bytes).map_err(|error| Error::Precondition(error.to_string()))?;
                let within = joined(&within, &name);
                if let Some(entry) = self.entry(below, within)? {
                    entries.push((name, entry));
                }
            }
            self.directories[at].1 = entries;
            at += 1;
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf, within: Vec<u8>) -> Result<Option<Entry>, Error> {
        let root = self.upper.path;
        let data = fs::symlink_metadata(&path).map_err(failed(&path, root))?;
        self.entries += 1;
        let depth = within.iter().filter(|byte| **byte == b'/').count() + 1;
        if self.entries > MAX_ENTRIES || depth > MAX_DEPTH || within.len() > MAX_PATH_BYTES {
            return Err(Error::Precondition(format!(
                "the command left more than {MAX_ENTRIES} files and directories, or one that is deeper than {MAX_DEPTH} directories or \
                 has a path of more than {MAX_PATH_BYTES} bytes: `/{}`",
                shown(&within)
            )));
        }
        let kind = data.file_type();
        if kind.is_dir() {
            self.directories.push((Found { path, within, data }, Vec::new()));
            return Ok(Some(Entry::Directory(self.directories.len() - 1)));
        }
        if kind.is_file() {
            self.bytes = self.bytes.saturating_add(data.len());
            if self.bytes > self.upper.most_bytes {
                let gib = self.upper.most_bytes >> 30;
                let words =
                    format!("the command left files of more than {gib} GiB, holes included: `/{}`", shown(&within));
                return Err(Error::Precondition(words));
            }
            self.files.push(Found { path, within, data });
            return Ok(Some(Entry::File(self.files.len() - 1)));
        }
        let content = if kind.is_symlink() {
            Content::Symlink(fs::read_link(&path).map_err(failed(&path, root))?.into_os_string().into_vec())
        } else if kind.is_char_device() && data.rdev() == 0 {
            return Ok(Some(Entry::Whiteout));
        } else if kind.is_fifo() {
            Content::Fifo
        } else if kind.is_char_device() || kind.is_block_device() {
            let (major, minor) = (nix::sys::stat::major(data.rdev()) as u32, nix::sys::stat::minor(data.rdev()) as u32);
            if kind.is_char_device() { Content::Character(major, minor) } else { Content::Block(major, minor) }
        } else {
            // A socket means nothing without its process, and must not be in the roots that follow either.
            fs::remove_file(&path).map_err(failed(&path, root))?;
            return Ok(None);
        };
        let attributes = attributes::read(&path, &data, self.upper.base).map_err(failed(&path, root))?;
        Ok(Some(Entry::Leaf(Leaf::new(content, attributes), (data.dev(), data.ino(), data.nlink()))))
    }

    /// Children before parents: each directory comes after the one that it is in.
    fn finish(self, forest: &mut Forest, digests: &[Digest]) -> Result<Scanned, Error> {
        let upper = self.upper;
        let groups = self.groups();
        let mut scanned =
            Scanned { layer: Digest::empty(upper.function), times: BTreeMap::new(), files: HashMap::new() };
        let mut made: Vec<Option<Digest>> = vec![None; self.directories.len()];
        for (at, (found, entries)) in self.directories.iter().enumerate().rev() {
            let attributes = attributes::read(&found.path, &found.data, upper.base);
            let attributes = attributes.map_err(failed(&found.path, upper.path))?;
            let mark = attributes::mark(&found.path, upper.marks, "opaque").map_err(failed(&found.path, upper.path))?;
            let mut directory = Directory::empty(attributes);
            directory.opaque = mark.as_deref() == Some(b"y");
            scanned.times.insert(found.within.clone(), attributes::time(&found.data));
            for (name, entry) in entries {
                let node = match entry {
                    Entry::Whiteout => Node::Whiteout,
                    Entry::Directory(number) => Node::Directory(made[*number].unwrap_or(scanned.layer)),
                    Entry::Leaf(leaf, (device, inode, _)) => {
                        let mut leaf = leaf.clone();
                        leaf.links = groups.get(&(*device, *inode)).copied();
                        let within = joined(&found.within, name);
                        let data = fs::symlink_metadata(found.path.join(OsStr::from_bytes(name.as_bytes())));
                        let data = data.map_err(failed(&found.path, upper.path))?;
                        scanned.times.insert(within, attributes::time(&data));
                        Node::Leaf(leaf)
                    }
                    Entry::File(number) => {
                        let (file, digest) = (&self.files[*number], digests[*number]);
                        let attributes = attributes::read(&file.path, &file.data, upper.base);
                        let attributes = attributes.map_err(failed(&file.path, upper.path))?;
                        let mut leaf = Leaf::new(Content::File(digest), attributes);
                        leaf.links = groups.get(&(file.data.dev(), file.data.ino())).copied();
                        scanned.times.insert(file.within.clone(), attributes::time(&file.data));
                        scanned.files.insert(digest, file.path.clone());
                        Node::Leaf(leaf)
                    }
                };
                directory.entries.insert(name.clone(), node);
            }
            made[at] = Some(forest.put(directory));
        }
        scanned.layer = made.first().copied().flatten().unwrap_or(scanned.layer);
        Ok(scanned)
    }

    /// The groups of names that are one inode.
    fn groups(&self) -> HashMap<(u64, u64), u64> {
        let mut names: HashMap<(u64, u64), Vec<Vec<u8>>> = HashMap::new();
        for file in self.files.iter().filter(|file| file.data.nlink() > 1) {
            names.entry((file.data.dev(), file.data.ino())).or_default().push(file.within.clone());
        }
        for (found, entries) in &self.directories {
            for (name, entry) in entries {
                if let Entry::Leaf(_, (device, inode, links)) = entry
                    && *links > 1
                {
                    names.entry((*device, *inode)).or_default().push(joined(&found.within, name));
                }
            }
        }
        let several = names.into_iter().filter(|(_, names)| names.len() > 1);
        several.map(|(inode, names)| (inode, Leaf::group(names.iter().map(Vec::as_slice)))).collect()
    }
}

pub(super) fn joined(within: &[u8], name: &Name) -> Vec<u8> {
    if within.is_empty() { name.as_bytes().to_vec() } else { [within, b"/", name.as_bytes()].concat() }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}
