//! The files of a root, for whoever wants to tell roots apart by some of them: their content is known without reading any.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use kiln_broker::Sources;
use kiln_proto::digest::Digest;
use kiln_trees::root::{Content, Directory, Forest, Node};

/// The files of a root, as they were before an action began to change it.
pub(crate) struct Files<'a> {
    pub(super) forest: &'a Forest,
    pub(super) root: Digest,
    /// Whether these are all that the action sees: it has no mounts with others.
    pub(super) is_all: bool,
}

impl Files<'_> {
    fn directory(&self, path: &Path) -> io::Result<&Directory> {
        let known = |digest: &Digest| self.forest.get(digest).ok_or(io::ErrorKind::NotFound);
        let mut directory = known(&self.root)?;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let found = directory.entries.iter().find(|(known, _)| known.as_bytes() == name.as_encoded_bytes());
            match found {
                Some((_, Node::Directory(digest))) => directory = known(digest)?,
                _ => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        Ok(directory)
    }
}

impl Files<'_> {
    /// The names of the programs in these directories, which lie between colons. Those that are reached through a link are left out.
    pub(crate) fn programs(&self, path: &str) -> BTreeSet<String> {
        let directories = std::env::split_paths(path).filter_map(|path| self.directory(&path).ok());
        let entries = directories.flat_map(|directory| &directory.entries);
        let names = entries.filter(|(_, node)| matches!(node, Node::Leaf(_)));
        names.filter_map(|(name, _)| String::from_utf8(name.as_bytes().to_vec()).ok()).collect()
    }
}

impl Sources for Files<'_> {
    fn entries(&self, directory: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
        use std::os::unix::ffi::OsStrExt;
        if !self.is_all {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let name = |name: &[u8]| directory.join(std::ffi::OsStr::from_bytes(name));
        let entries = self.directory(directory)?.entries.iter();
        Ok(entries.map(|(known, node)| (name(known.as_bytes()), matches!(node, Node::Directory(_)))).collect())
    }

    fn digest(&self, file: &Path) -> io::Result<String> {
        let (Some(parent), Some(name)) = (file.parent(), file.file_name()) else { return Ok(String::new()) };
        let entries = &self.directory(parent)?.entries;
        let found = entries.iter().find(|(known, _)| known.as_bytes() == name.as_encoded_bytes());
        Ok(match found {
            Some((_, Node::Leaf(leaf))) => match &leaf.content {
                Content::File(digest) => digest.hex(),
                // What it leads to is a file of its own.
                Content::Symlink(to) => format!("-> {}", to.escape_ascii()),
                Content::Fifo | Content::Character(..) | Content::Block(..) => String::new(),
            },
            _ => String::new(),
        })
    }
}
