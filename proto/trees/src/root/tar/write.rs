//! A layer becomes an archive.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::path::Path;

use ::tar::{Builder, EntryType, Header};
use kiln_proto::digest::Digest;

use super::super::{Attributes, Content, Error, Forest, Leaf, Node, Times};
use super::{OPAQUE, TarError, WHITEOUT, XATTR, entry};
use crate::shape::MAX_DEPTH;

/// Writes a layer, or a root as the layer that makes it of nothing. `open` gives a file's content.
///
/// Equal layers with equal times give equal bytes: entries in order of their paths' bytes, a directory before what is in it, of a group
/// of hard links the first as the file and the others as links to it. A time that is not known is 0; nanoseconds are left out.
///
/// # Errors
/// Where a directory is not in memory, a name begins like a whiteout's, content cannot be read, or `to` cannot be written.
pub fn write(
    forest: &Forest,
    layer: &Digest,
    times: &Times,
    open: &mut dyn FnMut(&Digest) -> io::Result<Box<dyn Read>>,
    to: impl Write,
) -> Result<(), TarError> {
    let mut writer = Writer { forest, times, open, archive: Builder::new(to), links: HashMap::new() };
    writer.directory(&mut Vec::new(), layer, 0)?;
    writer.archive.finish()?;
    Ok(())
}

/// The files whose content [`write()`] opens, in the order in which it does: for whoever reads ahead.
///
/// # Errors
/// Where a directory is not in memory, or the layer is too deep.
pub fn contents(forest: &Forest, layer: &Digest) -> Result<Vec<Digest>, TarError> {
    fn of(
        forest: &Forest,
        digest: &Digest,
        depth: usize,
        links: &mut HashSet<u64>,
        found: &mut Vec<Digest>,
    ) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Depth);
        }
        let directory = forest.get(digest).ok_or_else(|| Error::Unread(vec![*digest]))?;
        for node in directory.entries.values() {
            match node {
                Node::Directory(below) => of(forest, below, depth.saturating_add(1), links, found)?,
                Node::Leaf(Leaf { content: Content::File(digest), links: group, .. })
                    if group.is_none_or(|group| links.insert(group)) =>
                {
                    found.push(*digest);
                }
                Node::Leaf(_) | Node::Whiteout => {}
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    of(forest, layer, 0, &mut HashSet::new(), &mut found)?;
    Ok(found)
}

struct Writer<'a, W: Write> {
    forest: &'a Forest,
    times: &'a Times,
    open: &'a mut dyn FnMut(&Digest) -> io::Result<Box<dyn Read>>,
    archive: Builder<W>,
    /// The first path of each group of hard links.
    links: HashMap<u64, Vec<u8>>,
}

impl<W: Write> Writer<'_, W> {
    fn directory(&mut self, path: &mut Vec<u8>, digest: &Digest, depth: usize) -> Result<(), TarError> {
        if depth > MAX_DEPTH {
            return Err(Error::Depth.into());
        }
        let directory = self.forest.get(digest).cloned().ok_or_else(|| Error::Unread(vec![*digest]))?;
        if let Some(attributes) = &directory.attributes {
            let mut header = self.header(path, attributes);
            header.set_entry_type(EntryType::Directory);
            let name = if path.is_empty() { b"./".to_vec() } else { [path, &b"/"[..]].concat() };
            self.append(header, &name, attributes, io::empty())?;
        }
        let below = path.len();
        if directory.opaque {
            self.mark(path, OPAQUE)?;
        }
        for (name, node) in &directory.entries {
            let name = name.as_bytes();
            if let Node::Whiteout = node {
                self.mark(path, &[WHITEOUT, name].concat())?;
                continue;
            }
            if below > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            if name.starts_with(WHITEOUT) {
                return Err(entry(path, "an archive of a layer cannot hold it: its name is that of a whiteout"));
            }
            match node {
                Node::Directory(digest) => self.directory(path, digest, depth.saturating_add(1))?,
                Node::Leaf(leaf) => self.leaf(path, leaf)?,
                Node::Whiteout => {}
            }
            path.truncate(below);
        }
        Ok(())
    }

    fn leaf(&mut self, path: &[u8], leaf: &Leaf) -> Result<(), TarError> {
        let mut header = self.header(path, &leaf.attributes);
        if let Some(group) = leaf.links {
            if let Some(first) = self.links.get(&group).cloned() {
                header.set_entry_type(EntryType::Link);
                return self.append_link(header, path, &first, &leaf.attributes);
            }
            self.links.insert(group, path.to_owned());
        }
        let device = |header: &mut Header, kind, major, minor| {
            header.set_entry_type(kind);
            header.set_device_major(major)?;
            header.set_device_minor(minor)
        };
        match &leaf.content {
            Content::File(digest) => {
                header.set_size(digest.size);
                let mut content = (self.open)(digest)?;
                let mut exact = Exact { inner: &mut content, left: digest.size };
                self.append(header, path, &leaf.attributes, &mut exact)?;
                if exact.left > 0 || content.read(&mut [0])? > 0 {
                    return Err(entry(path, format!("its content does not have {} bytes", digest.size)));
                }
                return Ok(());
            }
            Content::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                return self.append_link(header, path, target, &leaf.attributes);
            }
            Content::Fifo => header.set_entry_type(EntryType::Fifo),
            Content::Character(major, minor) => device(&mut header, EntryType::Char, *major, *minor)?,
            Content::Block(major, minor) => device(&mut header, EntryType::Block, *major, *minor)?,
        }
        self.append(header, path, &leaf.attributes, io::empty())
    }

    fn header(&self, path: &[u8], attributes: &Attributes) -> Header {
        let time = self.times.0.get(path).copied().unwrap_or_default();
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_mode(attributes.mode);
        header.set_uid(attributes.uid.into());
        header.set_gid(attributes.gid.into());
        header.set_mtime(u64::try_from(time.seconds).unwrap_or(0));
        header
    }

    fn extensions(&mut self, attributes: &Attributes) -> io::Result<()> {
        let named: Vec<(String, &[u8])> =
            attributes.xattrs.iter().map(|(name, value)| (format!("{XATTR}{name}"), value.as_slice())).collect();
        if named.is_empty() {
            return Ok(());
        }
        self.archive.append_pax_extensions(named.iter().map(|(name, value)| (name.as_str(), *value)))
    }

    fn append(
        &mut self,
        mut header: Header,
        path: &[u8],
        attributes: &Attributes,
        content: impl Read,
    ) -> Result<(), TarError> {
        self.extensions(attributes)?;
        Ok(self.archive.append_data(&mut header, path_of(path)?, content)?)
    }

    fn append_link(
        &mut self,
        mut header: Header,
        path: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), TarError> {
        self.extensions(attributes)?;
        Ok(self.archive.append_link(&mut header, path_of(path)?, path_of(target)?)?)
    }

    /// An empty file that removes something, without an owner or a time.
    fn mark(&mut self, directory: &[u8], name: &[u8]) -> Result<(), TarError> {
        let path = if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() };
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_mode(0);
        // Not every reader takes a blank number for 0.
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        Ok(self.archive.append_data(&mut header, path_of(&path)?, io::empty())?)
    }
}

/// A path as the system's own.
fn path_of(path: &[u8]) -> io::Result<&Path> {
    kiln_system::path_of(path).ok_or_else(|| {
        let shown = String::from_utf8_lossy(path);
        io::Error::new(io::ErrorKind::InvalidInput, format!("this system has no paths such as `{shown}`"))
    })
}

/// So many bytes of a reader; the rest is missing where it ends earlier.
struct Exact<'a> {
    inner: &'a mut dyn Read,
    left: u64,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let read = match buffer.split_at_mut_checked(most) {
            Some((wanted, _)) => self.inner.read(wanted)?,
            None => self.inner.read(buffer)?,
        };
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}
