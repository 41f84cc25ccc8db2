//! The superblock and inodes, as on disk.

/// Where the superblock is.
const SUPERBLOCK: usize = 1024;
/// Where it ends.
pub(super) const SUPERBLOCK_END: usize = SUPERBLOCK + SUPERBLOCK_BYTES;
/// Bytes of the superblock.
const SUPERBLOCK_BYTES: usize = 128;
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
    /// Adds it to an image.
    pub(super) fn encode(&self, record: &mut Vec<u8>) {
        let end = record.len().saturating_add(INODE_BYTES);
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
        record.resize(end, 0);
    }
}

/// The beginning of an image with so many inodes and blocks: its superblock, and what is before it.
pub(super) fn superblock(root: u16, inodes: u64, blocks: u32) -> Vec<u8> {
    let mut record = vec![0; SUPERBLOCK];
    record.u32(MAGIC);
    // No checksum: the feature is not set.
    record.u32(0);
    record.u32(COMPAT_MTIME);
    record.u16(u16::from(BLOCK_BITS));
    record.u16(root);
    record.u64(inodes);
    record.u64(0);
    record.u32(0);
    record.u32(blocks);
    // Where inodes, and attributes that are shared, begin.
    record.u32(0);
    record.u32(0);
    record.extend([0; 32]);
    record.u32(INCOMPAT_CHUNKED);
    record.resize(SUPERBLOCK_END, 0);
    record
}

/// Fields in little-endian order, one after the other.
trait Fields {
    fn u16(&mut self, value: u16);
    fn u32(&mut self, value: u32);
    fn u64(&mut self, value: u64);
}

impl Fields for Vec<u8> {
    fn u16(&mut self, value: u16) {
        self.extend(value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.extend(value.to_le_bytes());
    }
}
