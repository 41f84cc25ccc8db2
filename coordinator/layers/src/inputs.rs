//! Finds the files that differ between two input trees by descending only where digests differ.
//!
//! The trees are those that the actions ran on, so nothing is kept twice: the store holds each directory once, however
//! many records name it.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use futures::future::BoxFuture;
use kiln_proto::digest::Digest;
use kiln_proto::v1::Difference;
use kiln_proto::v1::difference::Kind;
use kiln_trees::root::{self, Attributes, Content, Node};
use kiln_trees::tree::{Entry, Tree};
use kiln_trees::walk::Directory as _;

use kiln_store::BlobStore;
use kiln_store::trees;

/// Differences that are listed; if there are more, only that fact is reported.
pub(super) const MAX_DIFFERENCES: usize = 100;

/// The differences found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) differences: Vec<Difference>,
    /// There are more than [`MAX_DIFFERENCES`].
    pub(super) more: bool,
}

impl Found {
    fn push(&mut self, name: &str, before: Option<String>, after: Option<String>) {
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(Difference { kind: Kind::Input as i32, name: name.to_owned(), before, after });
        } else {
            self.more = true;
        }
    }
}

/// Adds the differences between two directories. A directory that is no longer stored counts as one difference.
pub(super) fn compare<'a>(
    store: &'a dyn BlobStore,
    before: Option<Digest>,
    after: Option<Digest>,
    path: &'a str,
    found: &'a mut Found,
) -> BoxFuture<'a, Result<(), kiln_store::Error>> {
    async move {
        if before == after || found.more {
            return Ok(());
        }
        let (Some(below), Some(now)) = (read(store, before).await?, read(store, after).await?) else {
            let name = if path.is_empty() { "(the whole tree)" } else { path };
            let words = |digest: Option<Digest>| digest.map(|digest| format!("{digest} directory"));
            found.push(name, words(before), words(after));
            return Ok(());
        };
        if below.own != now.own {
            found.push(if path.is_empty() { "(the whole tree)" } else { path }, below.own.clone(), now.own.clone());
        }
        let names: BTreeSet<&String> = below.entries.keys().chain(now.entries.keys()).collect();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let (before, after) = (below.entries.get(name), now.entries.get(name));
            if before == after {
                continue;
            }
            let (sealed_before, sealed_after) = (before.and_then(Listed::sealed), after.and_then(Listed::sealed));
            if sealed_before.is_some() || sealed_after.is_some() {
                compare(store, sealed_before, sealed_after, &path, found).await?;
            }
            let (before, after) = (before.and_then(Listed::words), after.and_then(Listed::words));
            if before.is_some() || after.is_some() {
                found.push(&path, before, after);
            }
        }
        Ok(())
    }
    .boxed()
}

/// What is in a directory, be it of sources or of a root file system.
#[derive(Debug, Default)]
struct Listing {
    /// The directory's own mode and owner, where it has them.
    own: Option<String>,
    entries: BTreeMap<String, Listed>,
}

#[derive(Debug, PartialEq, Eq)]
enum Listed {
    Directory(Digest),
    /// Anything else, as it is described.
    Other(String),
}

impl Listed {
    fn sealed(&self) -> Option<Digest> {
        match self {
            Self::Directory(digest) => Some(*digest),
            Self::Other(_) => None,
        }
    }

    fn words(&self) -> Option<String> {
        match self {
            Self::Directory(_) => None,
            Self::Other(words) => Some(words.clone()),
        }
    }
}

impl Listing {
    fn of_sources(tree: &Tree) -> Self {
        let entries = tree.entries.iter().filter_map(|(name, entry)| {
            let listed = match entry {
                Entry::Sealed { digest } => Listed::Directory(*digest),
                other => Listed::Other(words(other)?),
            };
            Some((name.clone(), listed))
        });
        Self { own: None, entries: entries.collect() }
    }

    fn of_root(directory: &root::Directory) -> Self {
        let listed = |node: &Node| match node {
            Node::Directory(digest) => Listed::Directory(*digest),
            Node::Leaf(leaf) => {
                let content = match &leaf.content {
                    Content::File(digest) => digest.to_string(),
                    Content::Symlink(target) => format!("-> {}", String::from_utf8_lossy(target)),
                    Content::Fifo => "named pipe".to_owned(),
                    Content::Character(major, minor) => format!("character device {major}:{minor}"),
                    Content::Block(major, minor) => format!("block device {major}:{minor}"),
                };
                Listed::Other(format!("{content}{}", attributes(&leaf.attributes)))
            }
            Node::Whiteout => Listed::Other("removed".to_owned()),
        };
        let own = directory.attributes.as_ref().map(|own| format!("directory{}", attributes(own)));
        Self { own, entries: directory.entries.iter().map(|(name, node)| (name.to_string(), listed(node))).collect() }
    }
}

/// What is not usual about a node's attributes.
fn attributes(of: &Attributes) -> String {
    let mut words = format!(" mode {:04o}", of.mode);
    if (of.uid, of.gid) != (0, 0) {
        words.push_str(&format!(" owner {}:{}", of.uid, of.gid));
    }
    for name in of.xattrs.keys() {
        words.push_str(&format!(" with {name}"));
    }
    words
}

/// A directory; empty if there is none, `None` if it is not stored or not a directory.
async fn read(store: &dyn BlobStore, digest: Option<Digest>) -> Result<Option<Listing>, kiln_store::Error> {
    let Some(digest) = digest else { return Ok(Some(Listing::default())) };
    match trees::directory(store, &digest).await {
        Ok(tree) => return Ok(Some(Listing::of_sources(&tree))),
        Err(trees::Error::Store(error)) if !error.is_absent() => return Err(error),
        Err(trees::Error::Store(_)) => return Ok(None),
        Err(_) => {}
    }
    match store.get(&digest).await {
        Ok(data) => Ok(root::Directory::decode(&digest, &data).ok().map(|found| Listing::of_root(&found))),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Describes a file or link.
fn words(entry: &Entry) -> Option<String> {
    match entry {
        Entry::File { digest, mode: Some(mode), .. } => Some(format!("{digest} mode {mode:04o}")),
        Entry::File { digest, executable: false, .. } => Some(digest.to_string()),
        Entry::File { digest, executable: true, .. } => Some(format!("{digest} executable")),
        Entry::Symlink { target } => Some(format!("-> {target}")),
        Entry::Directory(_) | Entry::Sealed { .. } => None,
    }
}
