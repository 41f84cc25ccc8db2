//! Where each node is in an image: inodes with what follows them come first, then blocks of content.

use std::io::Write;

use super::directory::{self, Entry};
use super::records::{INODE_BYTES, Inode, SLOT, SUPERBLOCK_END, Storage, superblock};
use super::{BLOCK, Error, Kind, Node, xattrs};

/// Most bytes of a symbolic link.
const MAX_LINK: usize = 4095;
/// A chunk that is a hole (`EROFS_NULL_ADDR`).
const NO_BLOCK: [u8; 4] = [0xff; 4];
/// Largest chunk, as a power of two of blocks.
const MAX_CHUNK_BITS: u32 = 31;

/// What a node is on disk.
struct Placed<'a> {
    node: &'a Node,
    number: usize,
    links: u32,
    xattrs: Vec<u8>,
    /// Of a directory.
    entries: Vec<Entry<'a>>,
    size: u64,
    storage: Storage,
    /// Where its inode is.
    at: usize,
    /// Its first block of content, counted from the first of all.
    block: usize,
}

pub(super) struct Layout<'a> {
    placed: Vec<Placed<'a>>,
    /// Where inodes end.
    inodes_end: usize,
    /// How many blocks the image has.
    all: u32,
}

/// The type of a node in its parent's entry, and in its mode.
fn types(kind: &Kind) -> (u8, u32) {
    match kind {
        Kind::File(..) => (1, 0o100_000),
        Kind::Directory(_) => (2, 0o040_000),
        Kind::Character(..) => (3, 0o020_000),
        Kind::Block(..) => (4, 0o060_000),
        Kind::Fifo => (5, 0o010_000),
        Kind::Symlink(_) => (7, 0o120_000),
    }
}

impl<'a> Layout<'a> {
    pub(super) fn of(nodes: &'a [Node], marks: &str) -> Result<Self, Error> {
        let relations = relations(nodes)?;
        let (metacopy, redirect) = (format!("{marks}metacopy"), format!("{marks}redirect"));
        let mut placed = Vec::with_capacity(nodes.len());
        let (mut at, mut blocks) = (SUPERBLOCK_END, 0_usize);
        for (number, (node, relation)) in nodes.iter().zip(relations).enumerate() {
            let own = node.xattrs.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
            let object: &[(&str, &[u8])] = match &node.kind {
                Kind::File(size, path) if *size > 0 => &[(&metacopy, &[]), (&redirect, path)],
                _ => &[],
            };
            let xattrs = xattrs::encode(own.chain(object.iter().copied()))?;
            let entries = match &node.kind {
                Kind::Directory(names) => {
                    let entry = |(name, node): &'a (Vec<u8>, usize)| {
                        Some(Entry { name: name.as_slice(), kind: types(&nodes.get(*node)?.kind).0, node: *node })
                    };
                    directory::entries(number, relation.parent.unwrap_or(number), names.iter().filter_map(entry))?
                }
                _ => Vec::new(),
            };
            let size = match &node.kind {
                Kind::Directory(_) => directory::size(&entries),
                Kind::Symlink(target) if target.len() > MAX_LINK || target.is_empty() => {
                    return Err(Error::Long(target.len()));
                }
                Kind::Symlink(target) => target.len() as u64,
                Kind::File(size, _) if chunk_bits(*size) > MAX_CHUNK_BITS => return Err(Error::Large(*size)),
                Kind::File(size, _) => *size,
                Kind::Fifo | Kind::Character(..) | Kind::Block(..) => 0,
            };
            let mut one = Placed {
                node,
                number,
                links: relation.links,
                xattrs,
                entries,
                size,
                storage: Storage::Plain,
                at: 0,
                block: blocks,
            };
            blocks = blocks.saturating_add(one.place(&mut at));
            placed.push(one);
        }
        // The tools that check an image look for attributes behind each inode, also behind one without any that is the last thing there.
        let inodes_end = at.checked_add(xattrs::HEADER).and_then(|end| end.checked_next_multiple_of(BLOCK));
        let inodes_end = inodes_end.ok_or(Error::Full)?;
        let all =
            (inodes_end / BLOCK).checked_add(blocks).and_then(|all| u32::try_from(all).ok()).ok_or(Error::Full)?;
        Ok(Self { placed, inodes_end, all })
    }

    pub(super) fn write(&self, to: &mut impl Write) -> Result<(), Error> {
        let number = |node: usize| Some((self.placed.get(node)?.at / SLOT) as u64);
        let first = self.inodes_end / BLOCK;
        let root = number(0).and_then(|root| u16::try_from(root).ok()).ok_or(Error::NotTree)?;
        let mut head = superblock(root, self.placed.len() as u64, self.all);
        let mut content = Vec::new();
        for one in &self.placed {
            let data = match &one.node.kind {
                Kind::Directory(_) => directory::encode(&one.entries, number).ok_or(Error::NotTree)?,
                Kind::Symlink(target) => target.clone(),
                _ => Vec::new(),
            };
            // Inodes come one after the other.
            head.resize(one.at, 0);
            one.inode(first)?.encode(&mut head);
            head.extend(&one.xattrs);
            match one.storage {
                Storage::Hole => head.extend(NO_BLOCK),
                Storage::Plain => content.extend(data),
                Storage::Inline => {
                    let (whole, tail) = data.as_chunks::<BLOCK>();
                    content.extend(whole.as_flattened());
                    head.extend(tail);
                }
            }
            content.resize(content.len().next_multiple_of(BLOCK), 0);
        }
        head.resize(self.inodes_end, 0);
        to.write_all(&head)?;
        to.write_all(&content)?;
        Ok(())
    }
}

impl Placed<'_> {
    /// Puts the inode and what follows it at the next place where it fits, and returns how many blocks of content it has.
    fn place(&mut self, at: &mut usize) -> usize {
        let head = INODE_BYTES.saturating_add(self.xattrs.len());
        let is_hole = matches!(self.node.kind, Kind::File(..)) && self.size > 0;
        let size = self.size as usize;
        let (tail, blocks) = (size % BLOCK, size.div_ceil(BLOCK));
        let (storage, after, blocks) = match (is_hole, tail) {
            (true, _) => (Storage::Hole, NO_BLOCK.len(), 0),
            (false, 1..) if head.saturating_add(tail) <= BLOCK => (Storage::Inline, tail, blocks.saturating_sub(1)),
            _ => (Storage::Plain, 0, blocks),
        };
        let start = at.next_multiple_of(SLOT);
        // What follows an inode is in the same block, unless it is longer than one.
        let whole = head.saturating_add(after);
        let need = if whole <= BLOCK { whole } else { INODE_BYTES };
        let block_end = start.next_multiple_of(BLOCK);
        let crosses = start < block_end && start.saturating_add(need) > block_end;
        self.at = if crosses { block_end } else { start };
        self.storage = storage;
        *at = self.at.saturating_add(whole);
        blocks
    }

    fn inode(&self, first_block: usize) -> Result<Inode, Error> {
        let place = match (&self.node.kind, self.storage) {
            (Kind::Character(major, minor) | Kind::Block(major, minor), _) => device(*major, *minor),
            (_, Storage::Hole) => chunk_bits(self.size),
            _ => u32::try_from(first_block.saturating_add(self.block)).map_err(|_| Error::Full)?,
        };
        Ok(Inode {
            storage: self.storage,
            xattr_words: xattrs::words(&self.xattrs).ok_or(Error::Full)?,
            mode: types(&self.node.kind).1 | self.node.mode & 0o7777,
            size: self.size,
            place,
            number: u32::try_from(self.number.saturating_add(1)).map_err(|_| Error::Full)?,
            uid: self.node.uid,
            gid: self.node.gid,
            modified: self.node.modified,
            links: self.links,
        })
    }
}

/// How many blocks one chunk has, as a power of two, so that a file is one chunk.
fn chunk_bits(size: u64) -> u32 {
    let blocks = size.div_ceil(BLOCK as u64).max(1);
    blocks.next_power_of_two().trailing_zeros()
}

/// A device as Linux encodes it (`new_encode_dev`).
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// How a node is named by others.
#[derive(Debug, Clone, Copy, Default)]
struct Relation {
    /// How many names it has.
    links: u32,
    /// Of a directory other than the root.
    parent: Option<usize>,
}

impl Relation {
    fn add(&mut self, names: u32) -> Result<(), Error> {
        self.links = self.links.checked_add(names).ok_or(Error::Full)?;
        Ok(())
    }
}

/// How each node is named. Refuses what is not a tree.
fn relations(nodes: &[Node]) -> Result<Vec<Relation>, Error> {
    let mut found = vec![Relation::default(); nodes.len()];
    let is_directory = |at: usize| nodes.get(at).map(|node| matches!(node.kind, Kind::Directory(_)));
    match found.first_mut() {
        Some(root) if is_directory(0) == Some(true) => root.add(2)?,
        _ => return Err(Error::NotTree),
    }
    for (at, node) in nodes.iter().enumerate() {
        let Kind::Directory(names) = &node.kind else { continue };
        for (_, below) in names {
            let child = found.get_mut(*below).ok_or(Error::NotTree)?;
            if is_directory(*below) == Some(false) {
                child.add(1)?;
                continue;
            }
            // Children come after their parents, so there are no cycles.
            if *below <= at || child.parent.replace(at).is_some() {
                return Err(Error::NotTree);
            }
            child.add(2)?;
            // The child's `..`.
            found.get_mut(at).ok_or(Error::NotTree)?.add(1)?;
        }
    }
    if found.iter().any(|relation| relation.links == 0) { Err(Error::NotTree) } else { Ok(found) }
}
