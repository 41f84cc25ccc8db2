//! Hashes output files for as long as they are wanted. Small ones are kept in memory, so that they are read only once.

use std::fs;
use std::io::Read;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use kiln_proto::digest::{Digest, DigestFunction};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::walk::{Found, failed};

/// Largest file that is kept in memory.
const KEEP_FILE_BYTES: u64 = 64 << 10;
/// Bytes per read of a larger one.
const READ_BYTES: usize = 128 * 1024;

/// A file's digest, and its bytes if they were kept.
#[derive(Debug, Clone)]
pub(super) struct Hashed {
    pub(super) digest: Digest,
    pub(super) data: Option<Bytes>,
}

/// Hashes files on all processors, in the given order, until cancelled. Keeps small ones, together at most `keep_bytes`.
pub(super) fn hash(
    function: DigestFunction,
    files: &[&Found],
    keep_bytes: u64,
    cancel: &CancellationToken,
) -> Result<Vec<Hashed>, Error> {
    let (next, room) = (AtomicUsize::new(0), AtomicU64::new(keep_bytes));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len().div_ceil(32)).max(1);
    let results: Vec<Result<Vec<(usize, Hashed)>, Error>> = std::thread::scope(|scope| {
        let work = || {
            let (mut done, mut buffer) = (Vec::new(), Vec::new());
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(file) = files.get(index) else { return Ok(done) };
                let hashed = match keep(function, file, &room)? {
                    Some(kept) => kept,
                    None => Hashed { digest: hash_one(function, file, &mut buffer, cancel)?, data: None },
                };
                done.push((index, hashed));
            }
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let gone = || Err(Error::Farm("hashing the outputs was interrupted".to_owned()));
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| gone())).collect()
    });
    let mut hashed = vec![Hashed { digest: Digest::empty(function), data: None }; files.len()];
    for result in results {
        for (index, one) in result? {
            hashed[index] = one;
        }
    }
    Ok(hashed)
}

/// Reads a small file whole, if there is room for it.
fn keep(function: DigestFunction, found: &Found, room: &AtomicU64) -> Result<Option<Hashed>, Error> {
    let takes = |left: u64| left.checked_sub(found.bytes);
    let fits = found.bytes <= KEEP_FILE_BYTES && room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, takes).is_ok();
    if !fits {
        return Ok(None);
    }
    let (path, output) = (found.path.as_path(), found.output.as_str());
    let file = fs::File::open(path).map_err(failed(path, output))?;
    let mut data = Vec::with_capacity(found.bytes as usize + 1);
    file.take(found.bytes + 1).read_to_end(&mut data).map_err(failed(path, output))?;
    // One that has grown since it was listed is read like a large one.
    if data.len() as u64 > found.bytes {
        return Ok(None);
    }
    Ok(Some(Hashed { digest: function.digest(&data), data: Some(data.into()) }))
}

fn hash_one(
    function: DigestFunction,
    found: &Found,
    buffer: &mut Vec<u8>,
    cancel: &CancellationToken,
) -> Result<Digest, Error> {
    let (path, output) = (found.path.as_path(), found.output.as_str());
    let mut file = fs::File::open(path).map_err(failed(path, output))?;
    let mut hasher = function.hasher();
    buffer.resize(READ_BYTES, 0);
    loop {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match file.read(buffer).map_err(failed(path, output))? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashing_ends_when_nobody_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::File::create(dir.path().join("out")).unwrap().set_len(1 << 40).unwrap();
        let data = dir.path().join("out").metadata().unwrap();
        let found = Found::new(dir.path().join("out"), "out", &data);
        let cancel = CancellationToken::new();
        let ended = std::thread::scope(|scope| {
            let hashing = scope.spawn(|| hash(DigestFunction::Sha256, &[&found], u64::MAX, &cancel));
            cancel.cancel();
            hashing.join().unwrap()
        });
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    }

    #[test]
    fn small_files_are_kept_as_long_as_there_is_room_and_all_are_hashed() {
        let dir = tempfile::tempdir().unwrap();
        let content = |number: usize| vec![number as u8; number * 1_000];
        let found: Vec<Found> = (0..100)
            .map(|number| {
                let path = dir.path().join(number.to_string());
                fs::write(&path, content(number)).unwrap();
                let data = path.metadata().unwrap();
                Found::new(path, "out", &data)
            })
            .collect();
        let hashed =
            hash(DigestFunction::Blake3, &found.iter().collect::<Vec<_>>(), 1_000_000, &CancellationToken::new())
                .unwrap();
        let mut kept = 0;
        for (number, one) in hashed.iter().enumerate() {
            assert_eq!(one.digest, DigestFunction::Blake3.digest(&content(number)));
            assert!(one.data.as_ref().is_none_or(|data| *data == content(number)));
            assert!(number <= 65 || one.data.is_none(), "{number} KB were kept");
            kept += one.data.as_ref().map_or(0, |data| data.len());
        }
        assert!((900_000..=1_000_000).contains(&kept), "{kept} bytes were kept");
        // What has changed since it was listed is hashed as it is.
        fs::write(&found[1].path, content(90)).unwrap();
        let hashed = hash(DigestFunction::Blake3, &[&found[1]], u64::MAX, &CancellationToken::new()).unwrap();
        assert_eq!((hashed[0].digest, &hashed[0].data), (DigestFunction::Blake3.digest(&content(90)), &None));
    }
}
