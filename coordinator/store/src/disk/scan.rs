//! Lists the disk when the store opens.

use std::ffi::OsStr;
use std::fs::{DirEntry, ReadDir};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_state::syncs::{self, Syncs};

use super::Error;
use crate::clock::{self, Stamp};
use crate::floor::Floor;
use kiln_index::{Index, Located};
use kiln_packs::{self as packs, Packs, Place};

/// Removes what an earlier process left half written.
pub(super) fn clear(tmp: &Path) -> Result<(), Error> {
    for entry in list(tmp)? {
        let path = entry.map_err(|source| Error::io("list", tmp, source))?.path();
        std::fs::remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
    }
    Ok(())
}

/// Lists the blobs in files and in packs, most recently used as the newest. A file whose size does not match its name is removed; files that
/// are not blobs are left alone. `capacity` returns the limit of a store that holds the given bytes.
pub(super) fn scan(
    dir: &Path,
    (packs, packed): (&Packs, Vec<packs::Found>),
    capacity: impl FnOnce(u64) -> u64,
    now: Stamp,
    floor: &Floor,
    syncs: &dyn Syncs,
) -> Result<Index, Error> {
    let mut found: Vec<(Stamp, Digest, Option<Place>)> = Vec::with_capacity(packed.len());
    found.extend(packed.into_iter().map(|one| (one.used, one.digest, Some(one.place))));
    for function in [DigestFunction::Sha256, DigestFunction::Blake3] {
        let top = dir.join(function.name());
        syncs::make_directory(&top, syncs).map_err(|source| Error::io("make", &top, source))?;
        for shard in list(&top)? {
            let shard = shard.map_err(|source| Error::io("list", &top, source))?.path();
            for entry in list(&shard)? {
                let entry = entry.map_err(|source| Error::io("list", &shard, source))?;
                found.extend(examine(function, &entry)?.map(|(written, digest)| (clock::stamp(written), digest, None)));
            }
        }
    }
    found.sort_unstable_by_key(|(used, digest, _)| (*used, *digest));
    let held = found.iter().map(|(_, digest, _)| digest.size).sum();
    let mut index = Index::new(capacity(held));
    index.set_overhead(packs.overhead());
    let mut gone = Vec::new();
    for (used, digest, place) in found {
        if index.look(&digest).is_some() {
            gone.extend(place.map(|place| (digest, place)));
            continue;
        }
        let evicted = index.insert_found(digest, place, used, now);
        if let Some(until) = evicted.named_until {
            floor.raise(until);
        }
        for Located { digest, place } in evicted.blobs {
            match place {
                Some(place) => gone.push((digest, place)),
                None => remove(&super::path_in(dir, &digest))?,
            }
        }
    }
    packs.free(&gone);
    index.set_overhead(packs.overhead());
    Ok(index)
}

fn examine(function: DigestFunction, entry: &DirEntry) -> Result<Option<(SystemTime, Digest)>, Error> {
    let path = entry.path();
    let Some(digest) = parse(function, &entry.file_name()) else {
        tracing::warn!(path = %path.display(), "ignoring a file in the blob store that is not a blob");
        return Ok(None);
    };
    let metadata = entry.metadata().map_err(|source| Error::io("examine", &path, source))?;
    if !metadata.is_file() || metadata.len() != digest.size {
        tracing::error!(%digest, found_bytes = metadata.len(), "dropped a blob that was truncated on the disk");
        remove(&path)?;
        return Ok(None);
    }
    let written = metadata.modified().map_err(|source| Error::io("examine", &path, source))?;
    Ok(Some((written, digest)))
}

fn parse(function: DigestFunction, name: &OsStr) -> Option<Digest> {
    let (hash, size) = name.to_str()?.split_once('-')?;
    Digest::new(function, hash, size.parse().ok()?).ok()
}

/// Lists a directory; empty if it is a file.
fn list(dir: &Path) -> Result<impl Iterator<Item = io::Result<DirEntry>>, Error> {
    let entries: Option<ReadDir> = match std::fs::read_dir(dir) {
        Ok(entries) => Some(entries),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => None,
        Err(source) => return Err(Error::io("list", dir, source)),
    };
    Ok(entries.into_iter().flatten())
}

fn remove(path: &PathBuf) -> Result<(), Error> {
    std::fs::remove_file(path).map_err(|source| Error::io("remove", path, source))
}
