//! Complete file systems as Merkle trees: the roots that steps run in, and the layers of images.
//!
//! A *root* is a tree of directories whose nodes have owners, modes and extended attributes. A *layer* is such a tree with, in
//! addition, whiteouts, opaque directories and directories that are only implied: what changes one root into another
//! ([`Forest::apply`], [`Forest::diff`]). Both are stored as REAPI `Directory` messages with node properties, so that digests,
//! `FindMissingBlobs` and `GetTree` work on them; [`encode`](mod@self) names the properties. Times are no part of them: they lie
//! beside the tree, in [`Times`], so that equal files give equal digests whenever they were written.
//!
//! Invariant: a directory has one encoding, and [`decode`](crate::walk::Directory::decode) accepts no other.

mod apply;
mod attributes;
mod diff;
mod encode;
mod forest;
mod graft;
mod name;
mod read;
pub mod tar;
mod times;

use std::collections::BTreeMap;

use kiln_proto::digest::Digest;

pub use attributes::Attributes;
pub use forest::{Error, Forest};
pub use graft::Follow;
pub use name::{InvalidName, Name, split};
pub use read::{ReadError, read};
pub use times::{InvalidTimes, Time, Times};

/// A directory of a root or of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    /// Its own attributes. None only in a layer: the directory is implied by what is below it and keeps the attributes that it has in
    /// the root, or has [`Attributes::directory`] where the root lacks it.
    pub attributes: Option<Attributes>,
    /// Only in a layer: what the root has in this directory is removed.
    pub opaque: bool,
    /// What is in it.
    pub entries: BTreeMap<Name, Node>,
}

/// What a name in a directory stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory, by the digest of its message.
    Directory(Digest),
    /// Anything else.
    Leaf(Leaf),
    /// Only in a layer: what the root has here is removed.
    Whiteout,
}

/// A node that is not a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// What it is.
    pub content: Content,
    /// Owner, mode and extended attributes.
    pub attributes: Attributes,
    /// The group of hard links that it belongs to, where it has more than one name. Nodes of a group are equal, and are one inode
    /// where the root is laid out. See [`Leaf::group`].
    pub links: Option<u64>,
}

impl Leaf {
    /// A node with one name.
    pub fn new(content: Content, attributes: Attributes) -> Self {
        Self { content, attributes, links: None }
    }

    /// The id of a group of hard links: a hash of the paths of its members in the layer that made them, so that it depends on nothing
    /// else, and two groups of a root differ unless the later one replaced each member of the earlier one.
    pub fn group<'a>(paths: impl IntoIterator<Item = &'a [u8]>) -> u64 {
        let mut sorted: Vec<&[u8]> = paths.into_iter().collect();
        sorted.sort_unstable();
        let digest = kiln_proto::digest::DigestFunction::Sha256.digest(&sorted.join(&0));
        let mut id = [0; 8];
        id.copy_from_slice(&digest.hash[..8]);
        u64::from_be_bytes(id)
    }
}

/// What a node that is not a directory consists of. Sockets are not part of a root: they mean nothing without their process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A regular file with this content.
    File(Digest),
    /// A symbolic link to this path, any bytes but NUL.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device, by its major and minor number.
    Character(u32, u32),
    /// A block device, by its major and minor number.
    Block(u32, u32),
}
