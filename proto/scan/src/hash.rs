//! Hashes files concurrently, and ensures that each hash belongs to a single state of the file.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::meter::Meter;

use super::{Error, Found, Kind, Stat};

const BUFFER_BYTES: usize = 256 * 1024;
/// How often a file may change while it is read before that is an error.
const ATTEMPTS: usize = 3;

/// Hashes the files in `found` without a known hash; returns state and digest by index.
pub(super) fn hash_files(
    root: &Path,
    found: &[Found],
    known: &[Option<[u8; 32]>],
    function: DigestFunction,
    meter: &Meter,
) -> Result<HashMap<usize, (Stat, Digest)>, Error> {
    let unknown = found.iter().zip(known).enumerate().filter(|(_, (_, known))| known.is_none());
    let wanted: Vec<(usize, &Found)> = unknown
        .map(|(index, (one, _))| (index, one))
        .filter(|(_, one)| matches!(one.kind, Kind::File { .. }))
        .collect();
    meter.expect(wanted.iter().map(|(_, one)| size(one)).sum());
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().min(8)).min(wanted.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut done = Vec::new();
        while let Some((index, one)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let hashed = hash_file(&root.join(&one.path), function, &mut buffer, meter)?;
            done.push((*index, hashed));
        }
        Ok::<_, Error>(done)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = HashMap::with_capacity(wanted.len());
        for worker in workers {
            match worker.join() {
                Ok(done) => all.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

fn size(found: &Found) -> u64 {
    match &found.kind {
        Kind::File { stat, .. } => stat.size,
        Kind::Symlink { .. } | Kind::Directory { .. } | Kind::Empty { .. } => 0,
    }
}

fn hash_file(path: &Path, function: DigestFunction, buffer: &mut [u8], meter: &Meter) -> Result<(Stat, Digest), Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    for _ in 0..ATTEMPTS {
        let mut file = File::open(path).map_err(read)?;
        let before = Stat::new(&file.metadata().map_err(read)?);
        let mut hasher = function.hasher();
        loop {
            match file.read(buffer).map_err(read)? {
                0 => break,
                count => {
                    hasher.update(buffer.get(..count).unwrap_or_default());
                    meter.advance(count as u64);
                }
            }
        }
        let after = Stat::new(&file.metadata().map_err(read)?);
        if before == after && hasher.size() == after.size {
            return Ok((after, hasher.finish()));
        }
    }
    Err(Error::Changing { path: path.to_owned() })
}
