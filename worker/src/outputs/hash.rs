//! Hashes output files for as long as they are wanted.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_proto::digest::{Digest, DigestFunction};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::walk::{Found, failed};

/// Hashes files on all processors, in the given order, until cancelled.
pub(super) fn hash(
    function: DigestFunction,
    files: &[&Found],
    cancel: &CancellationToken,
) -> Result<Vec<Digest>, Error> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len().div_ceil(32)).max(1);
    let results: Vec<Result<Vec<(usize, Digest)>, Error>> = std::thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(file) = files.get(index) else { return Ok(done) };
                done.push((index, hash_one(function, file, cancel)?));
            }
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let gone = || Err(Error::Farm("hashing the outputs was interrupted".to_owned()));
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| gone())).collect()
    });
    let mut digests = vec![Digest::empty(function); files.len()];
    for result in results {
        for (index, digest) in result? {
            digests[index] = digest;
        }
    }
    Ok(digests)
}

fn hash_one(function: DigestFunction, found: &Found, cancel: &CancellationToken) -> Result<Digest, Error> {
    use std::io::Read;
    let (path, output) = (found.path.as_path(), found.output.as_str());
    let mut file = fs::File::open(path).map_err(failed(path, output))?;
    let mut hasher = function.hasher();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match file.read(&mut buffer).map_err(failed(path, output))? {
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
            let hashing = scope.spawn(|| hash(DigestFunction::Sha256, &[&found], &cancel));
            cancel.cancel();
            hashing.join().unwrap()
        });
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    }
}
