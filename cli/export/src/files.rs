//! The files of an image, into a directory or an archive.
//!
//! Invariant: no link is followed, neither one of the image nor one that is in the directory already.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use kiln_images::blobs::{self, Blobs};
use kiln_images::image::Image;
use kiln_images::layer::unpacked;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_trees::root::{
    Attributes, Content, Directory, Error as TreeError, Forest, Leaf, Name, Node, Time, Times, tar,
};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::Error;

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// Told the path of a node and what it is.
type Visit<'a> = dyn FnMut(&[u8], &Leaf) -> Result<(), Error> + 'a;

/// The files of an image.
#[derive(Debug)]
pub struct Files {
    forest: Forest,
    root: Digest,
    times: Times,
    /// The content of files, by digest.
    contents: TempDir,
}

impl Files {
    /// Reads the layers of an image.
    ///
    /// # Errors
    /// If a layer cannot be read or is malformed.
    pub async fn read(blobs: &dyn Blobs, image: &Image) -> Result<Self, Error> {
        let contents = tempfile::Builder::new().prefix("kiln-export-").tempdir().map_err(Error::Temporary)?;
        let mut forest = Forest::new(FUNCTION);
        let root = forest.put(Directory::empty(Attributes::directory()));
        let mut files = Self { forest, root, times: Times::default(), contents };
        for layer in &image.layers {
            let packed = files.contents.path().join("layer");
            let mut file = tokio::fs::File::create(&packed).await.map_err(Error::Temporary)?;
            let mut pieces = blobs::checked(blobs.open(layer).await?, layer);
            while let Some(piece) = pieces.try_next().await? {
                file.write_all(&piece).await.map_err(Error::Temporary)?;
            }
            file.flush().await.map_err(Error::Temporary)?;
            drop(file);
            let kind =
                kiln_images::manifest::media_type::of_layer(&layer.media_type).unwrap_or(&layer.media_type).to_owned();
            let applying = tokio::task::spawn_blocking(move || {
                let mut files = files;
                files.layer(&kind, &packed).map(|()| files)
            });
            let applied = applying.await;
            files = applied.map_err(|error| Error::Temporary(io::Error::other(error)))??;
        }
        Ok(files)
    }

    fn layer(&mut self, media_type: &str, packed: &Path) -> Result<(), Error> {
        let file = std::fs::File::open(packed).map_err(Error::Temporary)?;
        let plain = unpacked(media_type, io::BufReader::new(file)).map_err(Error::Temporary)?;
        let directory = self.contents.path().to_owned();
        let mut store = |content: &mut dyn Read| keep(&directory, content);
        let (layer, times) = tar::read(&mut self.forest, plain, &mut store)?;
        self.root = self.forest.apply(&self.root, &layer)?;
        self.times.0.extend(times.0);
        Ok(())
    }

    /// Adds a file at the root.
    ///
    /// # Errors
    /// If it cannot have this name.
    pub fn add(&mut self, name: &str, content: &[u8]) -> Result<(), Error> {
        let digest = keep(self.contents.path(), &mut &content[..]).map_err(Error::Temporary)?;
        let name = Name::new(name.as_bytes()).map_err(TreeError::from)?;
        let root = self.forest.get(&self.root).cloned().ok_or_else(|| TreeError::Unread(vec![self.root]))?;
        let mut root = Directory::clone(&root);
        root.entries.insert(name, Node::Leaf(Leaf::new(Content::File(digest), Attributes::of_root(0o644))));
        self.root = self.forest.put(root);
        Ok(())
    }

    /// Puts the files of several platforms into one: each in a directory of its name, or all together.
    ///
    /// # Errors
    /// [`Error::Conflict`] if two have different files at one path.
    pub fn join(all: Vec<(String, Self)>, split: bool) -> Result<Vec<Self>, Error> {
        if !split {
            let mut seen: HashMap<Vec<u8>, Leaf> = HashMap::new();
            for (_, files) in &all {
                files.walk(&files.root, &mut Vec::new(), &mut |path, leaf| match seen.get(path) {
                    Some(other) if other != leaf => {
                        Err(Error::Conflict { path: String::from_utf8_lossy(path).into_owned() })
                    }
                    _ => {
                        seen.insert(path.to_vec(), leaf.clone());
                        Ok(())
                    }
                })?;
            }
            return Ok(all.into_iter().map(|(_, files)| files).collect());
        }
        all.into_iter().map(|(name, files)| files.below(&name)).collect()
    }

    /// The same, in a directory.
    fn below(mut self, name: &str) -> Result<Self, Error> {
        let key = Name::new(name.as_bytes()).map_err(TreeError::from)?;
        let mut root = Directory::empty(Attributes::directory());
        root.entries.insert(key, Node::Directory(self.root));
        self.root = self.forest.put(root);
        let moved = |path: &Vec<u8>| {
            if path.is_empty() { name.as_bytes().to_vec() } else { [name.as_bytes(), path].join(&b'/') }
        };
        self.times = Times(self.times.0.iter().map(|(path, time)| (moved(path), *time)).collect());
        Ok(self)
    }

    fn walk(&self, directory: &Digest, path: &mut Vec<u8>, each: &mut Visit<'_>) -> Result<(), Error> {
        let directory = self.forest.get(directory).cloned().ok_or_else(|| TreeError::Unread(vec![*directory]))?;
        for (name, node) in &directory.entries {
            let before = path.len();
            if before > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            match node {
                Node::Directory(below) => self.walk(below, path, each)?,
                Node::Leaf(leaf) => each(path, leaf)?,
                Node::Whiteout => {}
            }
            path.truncate(before);
        }
        Ok(())
    }

    /// Writes an archive of all, which errors call `shown`. No time is later than `latest`, in seconds.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_archives(all: &[Self], to: impl Write, latest: Option<i64>, shown: &Path) -> Result<(), Error> {
        let broken = |source| Error::Write { path: shown.to_owned(), source };
        let mut to = to;
        for files in all {
            let mut data = Unended { to: &mut to, held: Vec::new() };
            files.archive(&mut data, latest).map_err(|error| match error {
                tar::TarError::Io(source) => broken(source),
                other => other.into(),
            })?;
        }
        to.write_all(&[0; END_BYTES]).map_err(broken)?;
        to.flush().map_err(broken)
    }

    fn archive(&self, to: impl Write, latest: Option<i64>) -> Result<(), tar::TarError> {
        let clamp = |time: &Time| latest.map_or(*time, |latest| (*time).min(Time { seconds: latest, nanos: 0 }));
        let times = Times(self.times.0.iter().map(|(path, time)| (path.clone(), clamp(time))).collect());
        let mut open = |digest: &Digest| -> io::Result<Box<dyn Read>> {
            Ok(Box::new(std::fs::File::open(self.contents.path().join(digest.hex()))?))
        };
        tar::write(&self.forest, &self.root, &times, &mut open, to)
    }

    /// Writes into a directory. Other files in it stay; a file in the place of one of the image is replaced. Returns what this user
    /// cannot make there.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn write_directory(&self, into: &Path, latest: Option<i64>) -> Result<Vec<String>, Error> {
        std::fs::create_dir_all(into).map_err(|source| Error::Write { path: into.to_owned(), source })?;
        let mut writer = Writer { files: self, latest, links: HashMap::new(), left_out: Vec::new() };
        writer.directory(&self.root, into, &mut Vec::new())?;
        Ok(writer.left_out)
    }
}

/// Keeps the content of a file.
fn keep(directory: &Path, content: &mut dyn Read) -> io::Result<Digest> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    let mut hasher = FUNCTION.hasher();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match content.read(&mut buffer)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                file.write_all(&buffer[..count])?;
            }
        }
    }
    let digest = hasher.finish();
    file.persist(directory.join(digest.hex())).map_err(|error| error.error)?;
    Ok(digest)
}

/// Bytes of zeros that end an archive.
const END_BYTES: usize = 1024;

/// Writes an archive without what ends it, so that another can follow.
struct Unended<W> {
    to: W,
    held: Vec<u8>,
}

impl<W: Write> Write for Unended<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(data);
        let surplus = self.held.len().saturating_sub(END_BYTES);
        self.to.write_all(&self.held[..surplus])?;
        self.held.drain(..surplus);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

struct Writer<'a> {
    files: &'a Files,
    latest: Option<i64>,
    /// Where each group of hard links is.
    links: HashMap<u64, PathBuf>,
    left_out: Vec<String>,
}

impl Writer<'_> {
    fn directory(&mut self, digest: &Digest, at: &Path, path: &mut Vec<u8>) -> Result<(), Error> {
        let directory = self.files.forest.get(digest).cloned().ok_or_else(|| TreeError::Unread(vec![*digest]))?;
        for (name, node) in &directory.entries {
            let before = path.len();
            if before > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            let Some(target) = own_name(name.as_bytes()).map(|name| at.join(name)) else {
                self.left_out.push(String::from_utf8_lossy(path).into_owned());
                path.truncate(before);
                continue;
            };
            match node {
                Node::Directory(below) => {
                    make_directory(&target).map_err(|source| Error::Write { path: target.clone(), source })?;
                    self.directory(below, &target, path)?;
                    let attributes = self.files.forest.get(below).and_then(|below| below.attributes.clone());
                    let mode = attributes.map_or(0o755, |attributes| attributes.mode);
                    self.finish(&target, path, Some(mode))?;
                }
                Node::Leaf(leaf) => self.leaf(leaf, &target, path)?,
                Node::Whiteout => {}
            }
            path.truncate(before);
        }
        Ok(())
    }

    fn leaf(&mut self, leaf: &Leaf, target: &Path, path: &[u8]) -> Result<(), Error> {
        let failed = |source| Error::Write { path: target.to_owned(), source };
        clear(target).map_err(failed)?;
        if let Some(first) = leaf.links.and_then(|group| self.links.get(&group)) {
            return std::fs::hard_link(first, target).map_err(failed);
        }
        match &leaf.content {
            Content::File(digest) => {
                let from = self.files.contents.path().join(digest.hex());
                std::fs::copy(from, target).map_err(failed)?;
                if let Some(group) = leaf.links {
                    self.links.insert(group, target.to_owned());
                }
                self.finish(target, path, Some(leaf.attributes.mode))
            }
            Content::Symlink(to) => {
                symlink(to, target).map_err(failed)?;
                self.finish(target, path, None)
            }
            Content::Fifo | Content::Character(..) | Content::Block(..) => {
                self.left_out.push(String::from_utf8_lossy(path).into_owned());
                Ok(())
            }
        }
    }

    /// Sets mode and time, after everything below is written.
    fn finish(&self, target: &Path, path: &[u8], mode: Option<u32>) -> Result<(), Error> {
        let failed = |source| Error::Write { path: target.to_owned(), source };
        if let Some(mode) = mode {
            kiln_system::set_mode(target, mode).map_err(failed)?;
        }
        let Some(time) = self.files.times.0.get(path) else { return Ok(()) };
        let seconds = self.latest.map_or(time.seconds, |latest| time.seconds.min(latest));
        kiln_system::set_modified(target, seconds, time.nanos).map_err(failed)
    }
}

/// A name as this system has it; none if it has no such names.
fn own_name(name: &[u8]) -> Option<&Path> {
    // Elsewhere these separate parts of a path, or begin a stream.
    let is_name = cfg!(unix) || !name.iter().any(|byte| b"\\:".contains(byte));
    kiln_system::path_of(name).filter(|_| is_name)
}

/// A link, whose target is bytes.
fn symlink(to: &[u8], at: &Path) -> io::Result<()> {
    let to = kiln_system::path_of(to).ok_or(io::ErrorKind::InvalidFilename)?;
    kiln_system::symlink(to, at)
}

/// A directory, in the place of whatever else is there.
fn make_directory(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => {
            // What is below must be writable until it is written.
            kiln_system::set_mode(path, kiln_system::mode(&found) | 0o700)
        }
        Ok(_) => std::fs::remove_file(path).and_then(|()| std::fs::create_dir(path)),
        Err(_) => std::fs::create_dir(path),
    }
}

/// Makes room for a file. A directory stays, because it may have files of others.
fn clear(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => Err(io::Error::other("a directory is in its place; remove it")),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of one archive, as if it were the only layer.
    fn files(build: impl FnOnce(&mut Vec<(&'static str, Content, u32)>, &Path)) -> Files {
        let contents = tempfile::tempdir().unwrap();
        let mut forest = Forest::new(FUNCTION);
        let mut entries = Vec::new();
        build(&mut entries, contents.path());
        let mut root = Directory::empty(Attributes::directory());
        for (name, content, mode) in entries {
            let leaf = Leaf::new(content, Attributes::of_root(mode));
            root.entries.insert(Name::new(name.as_bytes()).unwrap(), Node::Leaf(leaf));
        }
        let root = forest.put(root);
        Files { forest, root, times: Times::default(), contents }
    }

    fn file(at: &Path, content: &[u8]) -> Content {
        Content::File(keep(at, &mut &content[..]).unwrap())
    }

    #[test]
    fn files_go_into_a_directory_and_replace_files_but_follow_no_link() {
        let image = files(|entries, at| {
            entries.push(("tool", file(at, b"new"), 0o755));
            entries.push(("link", Content::Symlink(b"/etc/passwd".to_vec()), 0o777));
            entries.push(("pipe", Content::Fifo, 0o644));
        });
        let (outside, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("victim"), "mine").unwrap();
        kiln_system::symlink(&outside.path().join("victim"), &into.path().join("tool")).unwrap();
        std::fs::write(into.path().join("other"), "mine").unwrap();
        assert_eq!(image.write_directory(into.path(), None).unwrap(), ["pipe"]);
        assert_eq!(std::fs::read(into.path().join("tool")).unwrap(), b"new");
        assert_eq!(std::fs::read(outside.path().join("victim")).unwrap(), b"mine");
        assert_eq!(std::fs::read(into.path().join("other")).unwrap(), b"mine");
        assert_eq!(std::fs::read_link(into.path().join("link")).unwrap(), Path::new("/etc/passwd"));
        // A directory of the image in the place of a link does not lead out either.
        let below = Files::join(vec![("tool".into(), image)], true).unwrap();
        std::fs::remove_file(into.path().join("tool")).unwrap();
        kiln_system::symlink(outside.path(), &into.path().join("tool")).unwrap();
        below[0].write_directory(into.path(), None).unwrap();
        assert!(!outside.path().join("link").exists() && into.path().join("tool/tool").is_file());
    }

    #[test]
    fn archives_of_several_platforms_are_one_and_lose_no_zeros() {
        let image = || files(|entries, at| entries.push(("zeros", file(at, &[0; 700]), 0o644)));
        let all = Files::join(vec![("linux_amd64".into(), image()), ("linux_arm64".into(), image())], true).unwrap();
        let mut data = Vec::new();
        Files::write_archives(&all, &mut data, Some(0), Path::new("-")).unwrap();
        let into = tempfile::tempdir().unwrap();
        std::fs::write(into.path().join("a.tar"), data).unwrap();
        let done = std::process::Command::new("tar").args(["-xf", "a.tar"]).current_dir(into.path()).status().unwrap();
        assert!(done.success());
        for platform in ["linux_amd64", "linux_arm64"] {
            assert_eq!(std::fs::read(into.path().join(platform).join("zeros")).unwrap(), [0; 700]);
        }
    }

    #[test]
    fn different_files_of_platforms_do_not_hide_each_other() {
        let image = |content: &'static [u8]| files(move |entries, at| entries.push(("a", file(at, content), 0o644)));
        let both = |one, other| Files::join(vec![("x".into(), image(one)), ("y".into(), image(other))], false);
        assert!(both(b"1", b"1").is_ok());
        assert!(matches!(both(b"1", b"2"), Err(Error::Conflict { path }) if path == "a"));
    }
}
