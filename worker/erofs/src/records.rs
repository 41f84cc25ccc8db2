//! The superblock and inodes, as on disk.

/// Where the superblock is.
pub(super) const SUPERBLOCK: usize = 1024;
/// Bytes of the superblock.
pub(super) const SUPERBLOCK_BYTES: usize = 128;
/// Bytes of an inode (`struct erofs_inode_extended`).
pub(super) const INODE_BYTES: usize = 64;
/// What an inode's number counts.
pub(super) const SLOT: usize = 32;

const MAGIC: u32 = 0xe0f5_e1e2;
/// `EROFS_FEATURE_COMPAT_MTIME`: inodes have times of modification.
const COMPAT_MTIME: u32 = 2;
/// `EROFS_FEATURE_INCOMPAT_CHUNKED_FILE`.
const INCOMPAT_CHUNKED: u32 = 4;
const BLOCK_BITS: u8 = 12;

/// How a node's content is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// In blocks of its own.
    Plain = 0,
    /// The last part after the inode, the rest in blocks of its own.
    Inline = 2,
    /// Nowhere: a hole of the file's size.
    Hole = 4,
}

/// An inode.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) storage: Storage,
    pub(super) xattr_words: u16,
    /// With the bits of its type.
    pub(super) mode: u32,
    pub(super) size: u64,
    /// The first block, the device, or how a hole is cut.
    pub(super) place: u32,
    pub(super) number: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: (i64, u32),
    pub(super) links: u32,
}

impl Inode {
    pub(super) fn encode(&self) -> [u8; INODE_BYTES] {
        let mut record = Record::<INODE_BYTES>::default();
        record.u16(1 | (self.storage as u16) << 1);
        record.u16(self.xattr_words);
        record.u16(self.mode as u16);
        record.u16(0);
        record.u64(self.size);
        record.u32(self.place);
        record.u32(self.number);
        record.u32(self.uid);
        record.u32(self.gid);
        record.u64(self.modified.0 as u64);
        record.u32(self.modified.1);
        record.u32(self.links);
        record.bytes
    }
}

/// The superblock of an image with so many inodes and blocks.
pub(super) fn superblock(root: u16, inodes: u64, blocks: u32) -> [u8; SUPERBLOCK_BYTES] {
    let mut record = Record::<SUPERBLOCK_BYTES>::default();
    record.u32(MAGIC);
    // No checksum: the feature is not set.
    record.u32(0);
    record.u32(COMPAT_MTIME);
    record.put(&[BLOCK_BITS, 0]);
    record.u16(root);
    record.u64(inodes);
    record.u64(0);
    record.u32(0);
    record.u32(blocks);
    // Where inodes, and attributes that are shared, begin.
    record.u32(0);
    record.u32(0);
    record.put(&[0; 32]);
    record.u32(INCOMPAT_CHUNKED);
    record.bytes
}

/// Fields in little-endian order, one after the other.
struct Record<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Default for Record<N> {
    fn default() -> Self {
        Self { bytes: [0; N], at: 0 }
    }
}

impl<const N: usize> Record<N> {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
}
