//! Lists the packs when the store opens.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kiln_proto::digest::Digest;

use super::files::{data_path, list_path};
use super::pack::{BLOCK, Pack};
use super::record::{self, Record};
use super::{Error, Place, Stamp};

/// A blob in a pack, and its last use as far as it was recorded.
#[derive(Debug)]
pub struct Found {
    /// Which blob it is.
    pub digest: Digest,
    /// Where it is.
    pub place: Place,
    /// Its last use.
    pub used: Stamp,
}

/// What was found in a directory.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) packs: HashMap<u32, Pack>,
    pub(super) found: Vec<Found>,
    /// The number of the next pack.
    pub(super) next: u32,
    /// The last pack, if it can be continued.
    pub(super) newest: Option<Last>,
}

/// The end of a pack that can be continued.
#[derive(Debug)]
pub(super) struct Last {
    pub(super) number: u32,
    pub(super) end: u64,
    pub(super) records: u32,
}

pub(super) fn scan(dir: &Path) -> Result<Scanned, Error> {
    let failed = |source| Error::io("list", dir, source);
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut numbers = BTreeSet::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".data").or_else(|| name.strip_suffix(".list")));
        match stem.and_then(|stem| stem.parse::<u32>().ok()) {
            Some(number) => drop(numbers.insert(number)),
            None => tracing::warn!(name = %name.display(), dir = %dir.display(), "ignoring a file that is no pack"),
        }
    }
    let mut scanned = Scanned::default();
    for number in numbers {
        scanned.next = number.checked_add(1).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        scanned.newest = scan_pack(dir, number, &mut scanned)?;
    }
    if let Some(Last { number, end, .. }) = &scanned.newest
        && let Some(pack) = scanned.packs.get_mut(number)
    {
        pack.end = Some(*end);
    }
    Ok(scanned)
}

/// Lists one pack. One without blobs is removed.
fn scan_pack(dir: &Path, number: u32, scanned: &mut Scanned) -> Result<Option<Last>, Error> {
    let (data_path, list_path) = (data_path(dir, number), list_path(dir, number));
    let data = match std::fs::metadata(&data_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        found => Some(found.map_err(|source| Error::io("examine", &data_path, source))?),
    };
    let mut list = Vec::new();
    match std::fs::File::open(&list_path).and_then(|mut file| file.read_to_end(&mut list)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("read", &list_path, error)),
        _ => {}
    }
    let end = data.as_ref().map_or(0, MetadataExt::size);
    let (records, torn) = list.as_chunks::<{ record::BYTES }>();
    let (mut pack, mut damaged) = (Pack::default(), usize::from(!torn.is_empty()));
    for (bytes, record) in records.iter().zip(0..) {
        match Record::decode(bytes) {
            Some(Record { digest, at, used }) if u64::from(at).saturating_add(digest.size) <= end => {
                if used > 0 {
                    pack.add(at, digest.size);
                    scanned.found.push(Found { digest, place: Place { pack: number, record, at }, used });
                }
            }
            _ => damaged = damaged.saturating_add(1),
        }
    }
    if damaged > 0 {
        tracing::error!(path = %list_path.display(), records = damaged, "dropped blobs whose records were damaged on the disk");
    }
    if pack.live == 0 {
        for path in [&list_path, &data_path] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", path, error)),
                _ => {}
            }
        }
        return Ok(None);
    }
    pack.records = records.len() as u32;
    pack.found(data.map_or(0, |data| data.blocks().saturating_mul(512).div_ceil(BLOCK)));
    scanned.packs.insert(number, pack);
    let last = Last { number, end, records: records.len() as u32 };
    Ok((damaged == 0).then_some(last))
}
