//! The cache of scans: each file's stat data and digest.
//!
//! Invariant: a cache file that was truncated or damaged on disk is ignored: its end contains a hash of everything before it.

use std::cmp::Ordering;
use std::fs::Metadata;
use std::io::Write;
use std::path::Path;

use kiln_proto::digest::DigestFunction;

const MAGIC: &[u8; 8] = b"kilnscn2";
/// Size, two times, inode and device, then the hash.
const FIXED_BYTES: usize = 5 * 8 + 32;

/// Distinguishes states of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Size in bytes.
    pub size: u64,
    /// Time of the last write, in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Time of the last inode change in nanoseconds since the epoch, which users cannot set; on Windows that of the creation.
    pub ctime_ns: i64,
    /// The inode.
    pub inode: u64,
    /// The file system.
    pub device: u64,
}

impl Stat {
    /// From the system's metadata.
    pub fn new(metadata: &Metadata) -> Self {
        let kiln_system::Stamp { size, modified_ns, changed_ns, inode, device } = kiln_system::Stamp::of(metadata);
        Self { size, mtime_ns: modified_ns, ctime_ns: changed_ns, inode, device }
    }

    /// From the system's own structure.
    #[cfg(unix)]
    pub(super) fn of(stat: &rustix::fs::Stat) -> Self {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        // Types differ between systems.
        #[allow(clippy::unnecessary_cast)]
        Self {
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            mtime_ns: ns(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime_ns: ns(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            inode: stat.st_ino,
            device: stat.st_dev as u64,
        }
    }

    /// Whether all changes were before this time, in nanoseconds since the epoch.
    pub fn is_older_than(&self, ns: i64) -> bool {
        self.mtime_ns < ns && self.ctime_ns < ns
    }
}

/// Digests by path and stat data, in the order of their paths.
#[derive(Debug, Default)]
pub struct Cache {
    /// All paths, one after another.
    paths: String,
    /// Where each path ends in `paths`, and what is known of it.
    entries: Vec<(usize, Stat, [u8; 32])>,
}

impl Cache {
    /// Looks up paths, each of which is after the one before.
    pub fn lookup(&self) -> Lookup<'_> {
        Lookup { cache: self, next: 0 }
    }

    /// Adds a file, whose path is after all others.
    pub fn push(&mut self, path: &str, stat: Stat, hash: [u8; 32]) {
        self.paths.push_str(path);
        self.entries.push((self.paths.len(), stat, hash));
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it contains no files.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn path(&self, index: usize) -> &str {
        let end_of = |index: usize| self.entries.get(index).map_or(0, |(end, ..)| *end);
        let start = index.checked_sub(1).map_or(0, end_of);
        self.paths.get(start..end_of(index)).unwrap_or_default()
    }

    /// Reads a cache; `None` if it is missing or damaged.
    pub fn load(file: &Path) -> Option<Self> {
        let data = std::fs::read(file).ok()?;
        let (body, sum) = data.split_at_checked(data.len().checked_sub(32)?)?;
        if DigestFunction::Blake3.digest(body).hash != *sum {
            return None;
        }
        let mut rest = body.strip_prefix(MAGIC.as_slice())?;
        let count = usize::try_from(take_u64(&mut rest)?).ok()?;
        let most = rest.len() / FIXED_BYTES;
        let mut cache = Self {
            paths: String::with_capacity(rest.len().saturating_sub(most.saturating_mul(FIXED_BYTES))),
            entries: Vec::new(),
        };
        cache.entries.reserve(count.min(most));
        for _ in 0..count {
            let length = usize::try_from(take_u64(&mut rest)?).ok()?;
            let (path, after) = rest.split_at_checked(length)?;
            rest = after;
            let stat = Stat {
                size: take_u64(&mut rest)?,
                mtime_ns: take_u64(&mut rest)?.cast_signed(),
                ctime_ns: take_u64(&mut rest)?.cast_signed(),
                inode: take_u64(&mut rest)?,
                device: take_u64(&mut rest)?,
            };
            let (hash, after) = rest.split_first_chunk::<32>()?;
            rest = after;
            cache.push(std::str::from_utf8(path).ok()?, stat, *hash);
        }
        Some(cache)
    }

    /// Writes the cache atomically.
    pub fn save(&self, file: &Path) -> std::io::Result<()> {
        let mut data = Vec::new();
        data.extend_from_slice(MAGIC);
        data.extend((self.entries.len() as u64).to_le_bytes());
        for (index, (_, stat, hash)) in self.entries.iter().enumerate() {
            let path = self.path(index);
            data.extend((path.len() as u64).to_le_bytes());
            data.extend_from_slice(path.as_bytes());
            data.extend(stat.size.to_le_bytes());
            data.extend(stat.mtime_ns.to_le_bytes());
            data.extend(stat.ctime_ns.to_le_bytes());
            data.extend(stat.inode.to_le_bytes());
            data.extend(stat.device.to_le_bytes());
            data.extend_from_slice(hash);
        }
        data.extend_from_slice(&DigestFunction::Blake3.digest(&data).hash);
        let dir = file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
        temporary.write_all(&data)?;
        temporary.persist(file)?;
        Ok(())
    }
}

/// Looks up paths in their order, going through a cache once.
#[derive(Debug)]
pub struct Lookup<'a> {
    cache: &'a Cache,
    /// The first path that may be asked for.
    next: usize,
}

impl Lookup<'_> {
    /// The hash of a file, if it is unchanged. A path that is not after the one before is not found.
    pub fn get(&mut self, path: &str, stat: &Stat) -> Option<[u8; 32]> {
        loop {
            let (_, then, hash) = self.cache.entries.get(self.next)?;
            match self.cache.path(self.next).cmp(path) {
                Ordering::Less => self.next = self.next.saturating_add(1),
                Ordering::Equal => return (then == stat).then_some(*hash),
                Ordering::Greater => return None,
            }
        }
    }
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*bytes))
}
