//! Where each node is in an image: inodes with what follows them come first, then blocks of content.

use std::io::Write;

use super::directory::{self, Entry};
use super::records::{INODE_BYTES, Inode, SLOT, SUPERBLOCK, SUPERBLOCK_BYTES, Storage, superblock};
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
    blocks: usize,
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
        let (links, parents) = relations(nodes)?;
        let (metacopy, redirect) = (format!("{marks}metacopy"), format!("{marks}redirect"));
        let mut placed = Vec::with_capacity(nodes.len());
        let (mut at, mut blocks) = (SUPERBLOCK + SUPERBLOCK_BYTES, 0);
        for (number, node) in nodes.iter().enumerate() {
            let own = node.xattrs.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
            let object: &[(&str, &[u8])] = match &node.kind {
                Kind::File(size, path) if *size > 0 => &[(&metacopy, &[]), (&redirect, path)],
                _ => &[],
            };
            let xattrs = xattrs::encode(own.chain(object.iter().copied()))?;
            let entries = match &node.kind {
                Kind::Directory(names) => {
                    let entry = |(name, node): &'a (Vec<u8>, usize)| Entry {
                        name: name.as_slice(),
                        kind: types(&nodes[*node].kind).0,
                        node: *node,
                    };
                    directory::entries(number, parents[number], names.iter().map(entry))?
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
                links: links[number],
                xattrs,
                entries,
                size,
                storage: Storage::Plain,
                at: 0,
                block: blocks,
            };
            blocks += one.place(&mut at);
            placed.push(one);
        }
        // The tools that check an image look for attributes behind each inode, also behind one without any that is the last thing there.
        let inodes_end = (at + xattrs::HEADER).next_multiple_of(BLOCK);
        u32::try_from(inodes_end / BLOCK + blocks).map_err(|_| Error::Full)?;
        Ok(Self { placed, inodes_end, blocks })
    }

    pub(super) fn write(&self, to: &mut impl Write) -> Result<(), Error> {
        let number = |node: usize| (self.placed[node].at / SLOT) as u64;
        let first = self.inodes_end / BLOCK;
        let mut head = vec![0; self.inodes_end];
        let all = (first + self.blocks) as u32;
        let root = superblock(number(0) as u16, self.placed.len() as u64, all);
        head[SUPERBLOCK..SUPERBLOCK + SUPERBLOCK_BYTES].copy_from_slice(&root);
        let mut content = Vec::with_capacity(self.blocks * BLOCK);
        for one in &self.placed {
            let data = match &one.node.kind {
                Kind::Directory(_) => directory::encode(&one.entries, number),
                Kind::Symlink(target) => target.clone(),
                _ => Vec::new(),
            };
            let split = if one.storage == Storage::Inline { data.len() / BLOCK * BLOCK } else { data.len() };
            let (whole, tail) = data.split_at(split);
            let mut put = |at: &mut usize, bytes: &[u8]| {
                head[*at..*at + bytes.len()].copy_from_slice(bytes);
                *at += bytes.len();
            };
            let mut at = one.at;
            put(&mut at, &one.inode(first)?.encode());
            put(&mut at, &one.xattrs);
            put(&mut at, if one.storage == Storage::Hole { &NO_BLOCK } else { tail });
            content.extend_from_slice(whole);
            content.resize(content.len().next_multiple_of(BLOCK), 0);
        }
        to.write_all(&head)?;
        to.write_all(&content)?;
        Ok(())
    }
}

impl Placed<'_> {
    /// Puts the inode and what follows it at the next place where it fits, and returns how many blocks of content it has.
    fn place(&mut self, at: &mut usize) -> usize {
        let head = INODE_BYTES + self.xattrs.len();
        let is_hole = matches!(self.node.kind, Kind::File(..)) && self.size > 0;
        let tail = (self.size % BLOCK as u64) as usize;
        let blocks = (self.size as usize).div_ceil(BLOCK);
        let (storage, after, blocks) = match (is_hole, tail) {
            (true, _) => (Storage::Hole, NO_BLOCK.len(), 0),
            (false, 1..) if head + tail <= BLOCK => (Storage::Inline, tail, blocks - 1),
            _ => (Storage::Plain, 0, blocks),
        };
        let start = at.next_multiple_of(SLOT);
        // What follows an inode is in the same block, unless it is longer than one.
        let need = if head + after <= BLOCK { head + after } else { INODE_BYTES };
        let crosses = start / BLOCK != (start + need - 1) / BLOCK;
        self.at = if crosses { start.next_multiple_of(BLOCK) } else { start };
        self.storage = storage;
        *at = self.at + head + after;
        blocks
    }

    fn inode(&self, first_block: usize) -> Result<Inode, Error> {
        let place = match (&self.node.kind, self.storage) {
            (Kind::Character(major, minor) | Kind::Block(major, minor), _) => device(*major, *minor),
            (_, Storage::Hole) => chunk_bits(self.size),
            _ => u32::try_from(first_block + self.block).map_err(|_| Error::Full)?,
        };
        Ok(Inode {
            storage: self.storage,
            xattr_words: xattrs::words(&self.xattrs).ok_or(Error::Full)?,
            mode: types(&self.node.kind).1 | self.node.mode & 0o7777,
            size: self.size,
            place,
            number: u32::try_from(self.number + 1).map_err(|_| Error::Full)?,
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

/// How many names each node has, and the parent of each directory.
fn relations(nodes: &[Node]) -> Result<(Vec<u32>, Vec<usize>), Error> {
    let (mut links, mut parents) = (vec![0_u32; nodes.len()], vec![usize::MAX; nodes.len()]);
    let is_directory = |at: usize| nodes.get(at).map(|node| matches!(node.kind, Kind::Directory(_)));
    if is_directory(0) != Some(true) {
        return Err(Error::NotTree);
    }
    (links[0], parents[0]) = (2, 0);
    for (at, node) in nodes.iter().enumerate() {
        let Kind::Directory(names) = &node.kind else { continue };
        for (_, below) in names {
            match is_directory(*below).ok_or(Error::NotTree)? {
                // Children come after their parents, so there are no cycles.
                true if parents[*below] != usize::MAX || *below <= at => return Err(Error::NotTree),
                true => {
                    parents[*below] = at;
                    links[*below] += 2;
                    links[at] += 1;
                }
                false => links[*below] += 1,
            }
        }
    }
    if links.contains(&0) { Err(Error::NotTree) } else { Ok((links, parents)) }
}
