//! Small blobs, many in a file: `{number}.data` has their bytes one after another, `{number}.list` a record for each.
//!
//! To create a file for each small blob takes far longer than to write it. A batch is appended to the newest pack in two
//! writes, the bytes before the records, so a process that is killed leaves no record without its bytes. What is not
//! referenced by a record is never read. Nothing here is trusted: whoever reads a blob compares it with its digest, so a
//! damaged pack only loses the blobs that are damaged.
//!
//! A removed blob is struck from the list, and blocks that no other blob needs are given back to the file system. So a
//! pack never takes more blocks than a file for each of its blobs would. It is deleted with its last blob.
//!
//! Invariant: a block is given back only after the records of all its blobs were struck, and never where the next batch
//! may be written.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod files;
mod pack;
mod record;
mod scan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kiln_proto::digest::Digest;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{ReadWriteFlags, preadv2};

use self::files::{Both, Files};
use self::pack::Pack;
use self::record::Record;
pub use self::scan::Found;

/// A pack that has reached this size gets no more blobs.
const FULL_BYTES: u64 = 64 << 20;
/// So has one with this many records, those of removed blobs included.
const FULL_RECORDS: u32 = 256 * 1024;
/// Bytes per write, and at most per read of neighbouring blobs.
const WRITE_BYTES: usize = 1 << 20;
/// Neighbours at most this far apart are read together, with what is between them.
const GAP_BYTES: u64 = 4096;
/// Bytes per store that are not counted as overhead: what a nearly empty pack takes.
const FREE_BYTES: u64 = 1 << 20;

/// Milliseconds since 1970.
pub type Stamp = u64;

/// Why packs cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} `{path}`: {source}")]
pub struct Error {
    /// What failed.
    pub doing: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

impl Error {
    fn io(doing: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self { doing, path: path.to_owned(), source }
    }
}

/// Where a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pack: u32,
    /// The number of its record.
    record: u32,
    /// Where its bytes begin.
    at: u32,
}

/// The packs of one directory.
#[derive(Debug)]
pub struct Packs {
    dir: PathBuf,
    files: Files,
    /// Held while a batch is written.
    newest: Mutex<Option<Newest>>,
    packs: Mutex<HashMap<u32, Pack>>,
    next: Mutex<u32>,
    /// Held while records are changed.
    noting: Mutex<()>,
}

/// The pack that blobs are appended to.
#[derive(Debug)]
struct Newest {
    number: u32,
    files: Arc<Both>,
    end: u64,
    records: u32,
}

impl Packs {
    /// Lists the packs in a directory, which is created if it is missing.
    ///
    /// # Errors
    /// If the disk fails. Damaged records are skipped.
    pub fn open(dir: PathBuf) -> Result<(Self, Vec<Found>), Error> {
        let scanned = scan::scan(&dir)?;
        let files = Files::new(dir.clone());
        let newest = match scanned.newest {
            Some(newest) if newest.end < FULL_BYTES && newest.records < FULL_RECORDS => {
                let both = files.open(newest.number).map_err(|source| Error::io("open a pack in", &dir, source))?;
                Some(Newest { number: newest.number, files: both, end: newest.end, records: newest.records })
            }
            _ => None,
        };
        let packs = Self {
            dir,
            files,
            newest: Mutex::new(newest),
            packs: Mutex::new(scanned.packs),
            next: Mutex::new(scanned.next),
            noting: Mutex::default(),
        };
        Ok((packs, scanned.found))
    }

    /// Bytes on the disk beyond those of the blobs.
    pub fn overhead(&self) -> u64 {
        let overhead: u64 = self.packs.lock().values().map(Pack::overhead).sum();
        overhead.saturating_sub(FREE_BYTES)
    }

    /// Appends blobs; all are stored or none.
    ///
    /// # Errors
    /// If the disk fails or is full.
    pub fn append(&self, blobs: &[(Digest, Bytes)], now: Stamp) -> Result<Vec<Place>, Error> {
        let mut newest = self.newest.lock();
        let pack = match &mut *newest {
            Some(pack) => pack,
            none => none.insert(self.begin()?),
        };
        let (from, first) = (pack.end, pack.records);
        let mut records = Vec::with_capacity(blobs.len().saturating_mul(record::BYTES));
        let mut places = Vec::with_capacity(blobs.len());
        let mut at = from;
        for ((digest, data), record) in blobs.iter().zip(first..) {
            // A pack ends long before 4 GiB, and a batch is a message of some MiB.
            let start = at as u32;
            Record { digest: *digest, at: start, used: now.max(1) }.encode(&mut records);
            places.push(Place { pack: pack.number, record, at: start });
            at = at.saturating_add(data.len() as u64);
        }
        self.count(pack.number, &places, blobs);
        let written =
            write(pack, from, blobs).and_then(|()| pack.files.list.write_all_at(&records, record::place(first)));
        if let Err(source) = written {
            let failed = Error::io("append to a pack in", &self.dir, source);
            // Nothing refers to what was written. If it cannot be cut off, it goes with the pack.
            let _ = pack.files.list.set_len(record::place(first));
            let _ = pack.files.data.set_len(from);
            let gone: Vec<(Digest, Place)> = blobs.iter().map(|(digest, _)| *digest).zip(places).collect();
            self.uncount(&gone);
            self.close(&mut newest);
            return Err(failed);
        }
        (pack.end, pack.records) = (at, first.saturating_add(blobs.len() as u32));
        if at >= FULL_BYTES || pack.records >= FULL_RECORDS {
            self.close(&mut newest);
        }
        Ok(places)
    }

    /// Counts blobs before they are written, so that their blocks are not given back meanwhile.
    fn count(&self, number: u32, places: &[Place], blobs: &[(Digest, Bytes)]) {
        let mut packs = self.packs.lock();
        let pack = packs.entry(number).or_default();
        for (place, (digest, _)) in places.iter().zip(blobs) {
            pack.add(place.at, digest.size);
            pack.records = pack.records.saturating_add(1);
            pack.end = Some(u64::from(place.at).saturating_add(digest.size));
        }
    }

    /// Starts a pack.
    fn begin(&self) -> Result<Newest, Error> {
        let mut next = self.next.lock();
        let number = *next;
        let files = self.files.create(number).map_err(|source| Error::io("make a pack in", &self.dir, source))?;
        *next = next.saturating_add(1);
        Ok(Newest { number, files, end: 0, records: 0 })
    }

    /// Appends nothing more to the newest pack.
    fn close(&self, newest: &mut Option<Newest>) {
        let Some(Newest { number, .. }) = newest.take() else { return };
        let mut packs = self.packs.lock();
        let is_needed = packs.get_mut(&number).is_some_and(|pack| {
            pack.end = None;
            pack.live > 0
        });
        if !is_needed {
            packs.remove(&number);
            self.files.delete(number);
        }
    }

    /// Reads blobs, unchecked and in the same order. Those of one pack that are near one another are read together.
    pub fn read(&self, wanted: &[(Digest, Place)]) -> Vec<std::io::Result<Bytes>> {
        let mut order: Vec<(usize, &(Digest, Place))> = wanted.iter().enumerate().collect();
        order.sort_unstable_by_key(|(_, (_, place))| (place.pack, place.at));
        let mut results: Vec<std::io::Result<Bytes>> = Vec::new();
        results.resize_with(wanted.len(), || Err(std::io::ErrorKind::NotFound.into()));
        let mut rest = order.as_slice();
        while let Some((_, (_, first))) = rest.first() {
            let (number, from) = (first.pack, u64::from(first.at));
            let mut to = from;
            let mut is_near = |(digest, place): &(Digest, Place)| {
                let at = u64::from(place.at);
                let near = place.pack == number
                    && at <= to.saturating_add(GAP_BYTES)
                    && at.saturating_sub(from) <= WRITE_BYTES as u64;
                if near {
                    to = to.max(at.saturating_add(digest.size));
                }
                near
            };
            let count = rest.iter().take_while(|(_, one)| is_near(one)).count();
            let (run, others) = rest.split_at(count.max(1));
            rest = others;
            let data = self.files.open(number).and_then(|files| read_at(&files.data, from, to));
            for (at, (digest, place)) in run {
                let Some(result) = results.get_mut(*at) else { continue };
                let start = u64::from(place.at).saturating_sub(from) as usize;
                *result = match &data {
                    Ok(data) => Ok(part(data, start, digest.size)),
                    Err(error) => Err(error.kind().into()),
                };
            }
        }
        results
    }

    /// Reads a blob, unchecked, if that needs no waiting for the disk: its pack is open and its bytes are in memory. `None` does not say that it
    /// is missing.
    pub fn read_now(&self, digest: &Digest, place: Place) -> Option<Bytes> {
        let files = self.files.is_open(place.pack)?;
        let mut data = vec![0; usize::try_from(digest.size).ok()?];
        let into = &mut [IoSliceMut::new(&mut data)];
        let read = preadv2(&files.data, into, place.at.into(), ReadWriteFlags::NOWAIT).ok()?;
        (read == data.len()).then(|| data.into())
    }

    /// Removes blobs. The index must not list them any more.
    pub fn free(&self, gone: &[(Digest, Place)]) {
        if gone.is_empty() {
            return;
        }
        self.note(0, || gone.iter().map(|(_, place)| *place).collect());
        self.uncount(gone);
    }

    /// Gives back what blobs took whose records are struck or were never written.
    fn uncount(&self, gone: &[(Digest, Place)]) {
        let mut packs = self.packs.lock();
        for (digest, place) in gone {
            let Some(pack) = packs.get_mut(&place.pack) else { continue };
            let range = pack.remove(place.at, digest.size);
            if pack.live == 0 && pack.end.is_none() {
                packs.remove(&place.pack);
                self.files.delete(place.pack);
            } else if let Some(range) = range
                && self.punch(place.pack, range.start, range.end.saturating_sub(range.start))
            {
                pack.punched(&range);
            }
        }
    }

    fn punch(&self, number: u32, from: u64, length: u64) -> bool {
        let Ok(files) = self.files.open(number) else { return false };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&files.data, flags, from, length) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, pack = number, "cannot give blocks back; they go with the pack's last blob");
                false
            }
        }
    }

    /// Writes down when blobs were last used; 0 strikes them from the list. `which` selects those that are still there:
    /// what is struck stays so.
    pub fn note(&self, used: Stamp, which: impl FnOnce() -> Vec<Place>) {
        let _one = self.noting.lock();
        let mut places = which();
        places.sort_unstable_by_key(|place| (place.pack, place.record));
        for group in places.chunk_by(|one, other| one.pack == other.pack) {
            let Some(Place { pack, .. }) = group.first() else { continue };
            let Ok(files) = self.files.open(*pack) else { continue };
            for place in group {
                let at = record::place(place.record).saturating_add(record::USED_AT);
                if let Err(error) = files.list.write_all_at(&used.to_le_bytes(), at) {
                    tracing::debug!(%error, pack, "cannot record the last use of a blob");
                }
            }
        }
    }
}

/// Writes blobs one after another.
fn write(pack: &Newest, mut at: u64, blobs: &[(Digest, Bytes)]) -> std::io::Result<()> {
    let total: usize = blobs.iter().map(|(_, data)| data.len()).sum();
    let mut gathered = BytesMut::with_capacity(total.min(WRITE_BYTES));
    let nexts = blobs.iter().skip(1).map(|(_, data)| Some(data.len())).chain([None]);
    for ((_, data), next) in blobs.iter().zip(nexts) {
        gathered.extend_from_slice(data);
        if next.is_none_or(|next| gathered.len().saturating_add(next) > WRITE_BYTES) {
            pack.files.data.write_all_at(&gathered, at)?;
            at = at.saturating_add(gathered.len() as u64);
            gathered.clear();
        }
    }
    Ok(())
}

/// Reads a range of bytes; less if the file is shorter.
fn read_at(file: &File, from: u64, to: u64) -> std::io::Result<Bytes> {
    let mut data = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
    let mut read = 0_usize;
    while let Some(rest) = data.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, from.saturating_add(read as u64)) {
            Ok(0) => break,
            Ok(count) => read = read.saturating_add(count),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    data.truncate(read);
    Ok(data.into())
}

/// A blob's part of what was read.
fn part(data: &Bytes, start: usize, size: u64) -> Bytes {
    let start = start.min(data.len());
    let end = usize::try_from(size).map_or(data.len(), |size| data.len().min(start.saturating_add(size)));
    data.slice(start..end)
}
