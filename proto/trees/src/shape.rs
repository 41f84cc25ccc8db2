//! The size of an input tree once it is expanded, and its limits.
//!
//! A directory may be referenced by its digest any number of times, so a few messages can describe more files than any
//! disk holds. Trees are therefore measured before they are expanded, in time and memory proportional to their
//! messages.

use std::collections::HashMap;

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use kiln_proto::digest::Digest;
use kiln_proto::{elements, reapi};

/// Maximum number of files, links and directories of one tree, counted at every path.
pub const MAX_ENTRIES: u64 = 500_000;
/// Number of elements, for files with names and digests, of a tree with [`MAX_ENTRIES`].
pub const MAX_ELEMENTS: u64 = 4 * MAX_ENTRIES;
/// Maximum depth of directories.
pub const MAX_DEPTH: usize = 512;
/// Maximum length of a path in bytes: below Linux's 4096, leaving space for the directory where a worker puts the tree.
pub const MAX_PATH_BYTES: usize = 3072;
/// Maximum length of a name in bytes, as in file systems.
pub const MAX_NAME_BYTES: usize = 255;
/// Maximum size of a `Directory` message in bytes.
pub const MAX_DIRECTORY_BYTES: u64 = 64 << 20;

/// Why a tree is refused.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "the tree has more than {MAX_ENTRIES} entries once it is expanded; split it, or exclude files that are not needed"
    )]
    Entries,
    #[error("the tree is deeper than {MAX_DEPTH} directories")]
    Depth,
    #[error("a path of the tree is longer than {MAX_PATH_BYTES} bytes")]
    Path,
    #[error("a name of {bytes} bytes; file systems allow at most {MAX_NAME_BYTES}")]
    Name { bytes: usize },
    #[error("directory `{digest}` has more than {} MiB or {MAX_ENTRIES} entries; split it", MAX_DIRECTORY_BYTES >> 20)]
    Directory { digest: Digest },
    #[error("blob `{digest}` is not a directory: {source}")]
    Malformed { digest: Digest, source: prost::DecodeError },
    #[error("directory `{digest}` contains itself")]
    Cycle { digest: Digest },
}

/// Refuses a directory that is too large to be read.
///
/// # Errors
/// [`Error::Directory`].
pub fn check_size(digest: &Digest) -> Result<(), Error> {
    if digest.size > MAX_DIRECTORY_BYTES { Err(Error::Directory { digest: *digest }) } else { Ok(()) }
}

/// Decodes a directory after counting its entries: an empty one takes two bytes on the wire and a hundred in memory.
///
/// # Errors
/// If it is malformed, has too many entries, or a name that no file system allows.
pub fn decode(digest: &Digest, data: &[u8]) -> Result<reapi::Directory, Error> {
    check_size(digest)?;
    let malformed = |source| Error::Malformed { digest: *digest, source };
    let (mut rest, mut entries) = (data, 0_u64);
    while rest.has_remaining() {
        let (tag, wire_type) = decode_key(&mut rest).map_err(malformed)?;
        skip_field(wire_type, tag, &mut rest, DecodeContext::default()).map_err(malformed)?;
        entries = entries.saturating_add(1);
        if entries > MAX_ENTRIES {
            return Err(Error::Directory { digest: *digest });
        }
    }
    let decoded = elements::decode(&elements::DIRECTORY, data, MAX_ELEMENTS);
    let directory: reapi::Directory = decoded.map_err(|error| match error {
        elements::Error::TooMany { .. } => Error::Directory { digest: *digest },
        elements::Error::Malformed(source) => malformed(source),
    })?;
    let files = directory.files.iter().map(|node| node.name.len());
    let directories = directory.directories.iter().map(|node| node.name.len());
    let names = files.chain(directories).chain(directory.symlinks.iter().map(|node| node.name.len()));
    match names.max() {
        Some(bytes) if bytes > MAX_NAME_BYTES => Err(Error::Name { bytes }),
        _ => Ok(directory),
    }
}

/// A single directory's measures.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// Number of its entries.
    pub entries: u64,
    /// Length of its longest name in bytes.
    pub longest: usize,
    /// Its subdirectories, with the lengths of their names in bytes.
    pub below: Vec<(Digest, usize)>,
}

/// The measures of an expanded directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Number of files, links and directories.
    pub entries: u64,
    /// Depth of directories.
    pub depth: usize,
    /// Length of the longest path in bytes.
    pub path_bytes: usize,
}

impl Shape {
    fn add(&mut self, name: usize, below: &Self) -> Result<(), Error> {
        self.entries = self.entries.saturating_add(below.entries);
        self.depth = self.depth.max(below.depth.saturating_add(1));
        self.path_bytes = self.path_bytes.max(name.saturating_add(1).saturating_add(below.path_bytes));
        match self {
            Self { entries, .. } if *entries > MAX_ENTRIES => Err(Error::Entries),
            Self { depth, .. } if *depth > MAX_DEPTH => Err(Error::Depth),
            Self { path_bytes, .. } if *path_bytes > MAX_PATH_BYTES => Err(Error::Path),
            _ => Ok(()),
        }
    }
}

/// Measures the tree under `root`; directories missing in `nodes` count as empty. Visits each directory once, without
/// recursion.
///
/// # Errors
/// If the expanded tree exceeds a limit of this module.
pub fn measure(root: &Digest, nodes: &HashMap<Digest, Node>) -> Result<Shape, Error> {
    let empty = Node::default();
    let node = |digest: &Digest| nodes.get(digest).unwrap_or(&empty);
    let own = |node: &Node| Shape { entries: node.entries, depth: 0, path_bytes: node.longest };
    // `None` while a directory is on the path from the root to the one being measured.
    let mut known: HashMap<Digest, Option<Shape>> = HashMap::from([(*root, None)]);
    let mut way: Vec<(Digest, usize, Shape)> = vec![(*root, 0, own(node(root)))];
    loop {
        let Some((digest, next, shape)) = way.last_mut() else { return Ok(Shape::default()) };
        if shape.entries > MAX_ENTRIES {
            return Err(Error::Entries);
        }
        let Some((below, name)) = node(digest).below.get(*next) else {
            let (digest, shape) = (*digest, *shape);
            known.insert(digest, Some(shape));
            way.pop();
            if way.is_empty() {
                return Ok(shape);
            }
            continue;
        };
        match known.get(below) {
            Some(Some(measured)) => {
                *next = next.saturating_add(1);
                shape.add(*name, measured)?;
            }
            Some(None) => return Err(Error::Cycle { digest: *below }),
            None => {
                let below = *below;
                known.insert(below, None);
                way.push((below, 0, own(node(&below))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::digest::DigestFunction;

    fn name(text: &str) -> Digest {
        DigestFunction::Sha256.digest(text.as_bytes())
    }

    /// Levels of directories that each name the one below so many times.
    fn levels(depth: usize, fan: usize, bytes: usize) -> HashMap<Digest, Node> {
        let at = |level: usize| name(&level.to_string());
        let node = |level: usize| {
            let below = if level == depth { Vec::new() } else { vec![(at(level + 1), bytes); fan] };
            Node { entries: below.len() as u64, longest: if below.is_empty() { 0 } else { bytes }, below }
        };
        (0..=depth).map(|level| (at(level), node(level))).collect()
    }

    #[test]
    fn a_tree_is_measured_as_it_would_be_laid_out() {
        let shape = measure(&name("0"), &levels(3, 2, 5)).unwrap();
        assert_eq!(shape, Shape { entries: 14, depth: 3, path_bytes: 5 + 1 + 5 + 1 + 5 + 1 });
    }

    #[test]
    fn what_would_explode_is_refused_in_words() {
        assert_eq!(measure(&name("0"), &levels(60, 10, 1)), Err(Error::Entries));
        assert_eq!(measure(&name("0"), &levels(MAX_DEPTH + 1, 1, 1)), Err(Error::Depth));
        assert_eq!(measure(&name("0"), &levels(20, 1, 250)), Err(Error::Path));
        let own = Node { below: vec![(name("0"), 1)], ..Node::default() };
        assert_eq!(measure(&name("0"), &HashMap::from([(name("0"), own)])), Err(Error::Cycle { digest: name("0") }));
    }

    #[test]
    fn depth_is_that_of_the_longest_way() {
        // The chain is reached from the root at once, and again behind another as long.
        let mut nodes = levels(400, 1, 1);
        let at = |level: usize| name(&format!("second {level}"));
        for level in 0..400 {
            let below = if level == 399 { name("0") } else { at(level + 1) };
            nodes.insert(at(level), Node { entries: 1, longest: 1, below: vec![(below, 1)] });
        }
        let root = Node { entries: 2, longest: 1, below: vec![(name("0"), 1), (at(0), 1)] };
        nodes.insert(name("root"), root);
        assert_eq!(measure(&name("root"), &nodes), Err(Error::Depth));
    }

    #[test]
    fn a_message_of_countless_empty_entries_is_refused_before_it_is_decoded() {
        let data = [0x0a, 0x00].repeat(600_000);
        let digest = DigestFunction::Sha256.digest(&data);
        assert_eq!(decode(&digest, &data).unwrap_err(), Error::Directory { digest });
    }
}
