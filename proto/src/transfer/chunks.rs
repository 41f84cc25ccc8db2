//! Transfers a large blob that is similar to one at the other end as the chunks that differ.
//!
//! A sample of its chunks shows whether it is worth reading all of it. Failures other than of the connection are not
//! errors: the blob is then transferred whole.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use super::{Blob, CONCURRENCY, Client, Error, batches, malformed, total};
use crate::chunking::{self, Chunker};
use crate::digest::{Digest, DigestFunction};
use crate::reapi::{self, chunking_function};

/// Minimum size of a blob that may be transferred in chunks, in bytes.
pub const CHUNKED_FROM_BYTES: u64 = 2 * chunking::MAX_BYTES;
/// Length of each sample of a blob, in bytes.
const SAMPLE_BYTES: u64 = 4 * chunking::MAX_BYTES;
/// Number of samples of a blob.
const SAMPLES: u64 = 3;
/// Maximum bytes per read.
const READ_BYTES: usize = 1024 * 1024;

/// A chunk and its offset in the blob, in bytes.
type Placed = (Digest, u64);

impl Client {
    /// Uploads the parts of a blob that the farm lacks, and has it take the rest from existing blobs. Returns the bytes
    /// sent, or `None` if the blob is not similar to any on the farm and should be sent whole.
    pub(super) async fn send_chunks(&self, digest: &Digest, blob: &Blob) -> Result<Option<u64>, Error> {
        let sample = cut(*digest, blob.clone(), Cut::Sample).await?;
        let sample: Vec<Digest> = sample.into_iter().map(|(chunk, _)| chunk).collect();
        if self.find_missing(&sample).await?.len() == sample.len() {
            return Ok(None);
        }
        let chunks = cut(*digest, blob.clone(), Cut::Whole).await?;
        let digests: Vec<Digest> = chunks.iter().map(|(chunk, _)| *chunk).collect();
        let missing = self.find_missing(&digests).await?;
        let wanted: HashMap<Digest, Blob> = chunks
            .iter()
            .filter(|(chunk, _)| missing.contains(chunk))
            .map(|(chunk, offset)| (*chunk, blob.part(*offset, chunk.size)))
            .collect();
        let bytes = wanted.keys().map(|chunk| chunk.size).sum();
        let sends: Vec<_> =
            batches(wanted.into_iter().collect()).into_iter().map(|batch| self.send_batch(batch)).collect();
        stream::iter(sends).buffer_unordered(CONCURRENCY).try_collect::<()>().await?;
        let spliced = self
            .cas
            .clone()
            .splice_blob(reapi::SpliceBlobRequest {
                instance_name: self.instance.clone(),
                blob_digest: Some(digest.to_wire()),
                chunk_digests: digests.iter().map(Digest::to_wire).collect(),
                digest_function: self.function.to_wire(),
                chunking_function: chunking_function::Value::FastCdc2020 as i32,
            })
            .await;
        match spliced {
            Ok(_) => Ok(Some(bytes)),
            Err(status) if status.code() == tonic::Code::AlreadyExists => Ok(Some(bytes)),
            Err(status) if Error::from(status.clone()).is_connection() => Err(status.into()),
            Err(_) => Ok(None),
        }
    }

    /// Makes the farm learn the chunks of a blob that was sent whole, for similar ones later. Runs in the background.
    pub(super) fn have_split(&self, digest: &Digest) {
        let (client, digest) = (self.clone(), *digest);
        tokio::spawn(async move { client.split(&digest).await });
    }

    async fn split(&self, digest: &Digest) -> Result<Vec<Digest>, Error> {
        let request = reapi::SplitBlobRequest {
            instance_name: self.instance.clone(),
            blob_digest: Some(digest.to_wire()),
            digest_function: self.function.to_wire(),
            chunking_function: chunking_function::Value::FastCdc2020 as i32,
        };
        let chunks = self.cas.clone().split_blob(request).await?.into_inner().chunk_digests;
        chunks.iter().map(|chunk| Digest::from_wire(self.function, chunk).map_err(malformed)).collect()
    }

    /// Writes a blob to `path`, copying what it shares with the first similar file of `bases`, and fetching the rest.
    /// Returns the bytes fetched, or `None` if the blob should be fetched whole.
    pub(super) async fn assemble(&self, digest: &Digest, path: &Path, bases: &[PathBuf]) -> Result<Option<u64>, Error> {
        let chunks = match self.split(digest).await {
            Ok(chunks) if total(chunks.iter().map(|chunk| chunk.size)) == digest.size => chunks,
            Err(error) if error.is_connection() => return Err(error),
            _ => return Ok(None),
        };
        let Some((base, local)) = like(digest.function, &chunks, bases).await else { return Ok(None) };
        let mut uses: HashMap<Digest, usize> = HashMap::new();
        let mut wanted = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !local.contains_key(chunk)) {
            let count = uses.entry(*chunk).or_default();
            *count = count.saturating_add(1);
            if *count == 1 {
                wanted.push((*chunk, ()));
            }
        }
        let bytes = total(wanted.iter().map(|(chunk, ())| chunk.size));
        let asks: Vec<_> = batches(wanted)
            .into_iter()
            .map(|batch| self.get_batch(batch.into_iter().map(|(chunk, ())| chunk).collect()))
            .collect();
        let (sender, receiver) = mpsc::channel(4);
        let (whole, to) = (*digest, path.to_owned());
        let writing = tokio::task::spawn_blocking(move || write(&to, &whole, &base, receiver));
        self.meter.advance(digest.size.saturating_sub(bytes));
        let fed = feed(chunks, &local, uses, stream::iter(asks).buffered(CONCURRENCY), sender).await;
        let written = writing.await.map_err(|_| tonic::Status::internal("the writing thread panicked"))?;
        match (written, fed) {
            (Ok(true), Ok(())) => Ok(Some(bytes)),
            (Err(error), _) => Err(error),
            (_, Err(error)) if error.is_connection() => Err(error),
            _ => Ok(None),
        }
    }
}

/// A piece of a blob to be written to a file.
enum Piece {
    /// Fetched data.
    Fetched(Bytes),
    /// Data in the base: offset and length.
    Local(u64, u64),
}

/// Sends the pieces of a blob in order. A fetched chunk is kept until its last use.
async fn feed(
    chunks: Vec<Digest>,
    local: &HashMap<Digest, u64>,
    mut uses: HashMap<Digest, usize>,
    mut fetches: impl Stream<Item = Result<HashMap<Digest, Bytes>, Error>> + Unpin,
    sender: mpsc::Sender<Piece>,
) -> Result<(), Error> {
    let mut ready: HashMap<Digest, Bytes> = HashMap::new();
    for chunk in chunks {
        let piece = if let Some(offset) = local.get(&chunk) {
            Piece::Local(*offset, chunk.size)
        } else {
            while !ready.contains_key(&chunk) {
                ready.extend(fetches.next().await.ok_or(Error::Missing { digest: chunk })??);
            }
            let count = uses.entry(chunk).or_default();
            *count = count.saturating_sub(1);
            let data = if *count == 0 { ready.remove(&chunk) } else { ready.get(&chunk).cloned() };
            Piece::Fetched(data.ok_or(Error::Missing { digest: chunk })?)
        };
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Writes the pieces, and checks that they are the blob.
fn write(path: &Path, digest: &Digest, base: &Path, mut pieces: mpsc::Receiver<Piece>) -> Result<bool, Error> {
    use std::io::Write;
    let Ok(base) = File::open(base) else { return Ok(false) };
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut file = File::create(path).map_err(failed)?;
    let mut hasher = digest.function.hasher();
    while let Some(piece) = pieces.blocking_recv() {
        let data = match piece {
            Piece::Fetched(data) => data,
            Piece::Local(offset, length) => {
                let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
                if kiln_system::read_exact_at(&base, &mut data, offset).is_err() {
                    return Ok(false);
                }
                data.into()
            }
        };
        hasher.update(&data);
        file.write_all(&data).map_err(failed)?;
    }
    Ok(hasher.finish() == *digest)
}

/// The first of these files that shares chunks with a blob, and where they are in it.
async fn like(
    function: DigestFunction,
    chunks: &[Digest],
    bases: &[PathBuf],
) -> Option<(PathBuf, HashMap<Digest, u64>)> {
    for base in bases {
        let Ok(data) = tokio::fs::metadata(base).await else { continue };
        let whole = Digest { function, hash: [0; 32], size: data.len() };
        let sample = cut(whole, Blob::File(base.clone()), Cut::Sample).await.unwrap_or_default();
        if sample.iter().any(|(chunk, _)| chunks.contains(chunk)) {
            let Ok(local) = cut(whole, Blob::File(base.clone()), Cut::Whole).await else { continue };
            return Some((base.clone(), local.into_iter().collect()));
        }
    }
    None
}

#[derive(Debug, Clone, Copy)]
enum Cut {
    Whole,
    Sample,
}

/// The chunks of a blob of this size, or of some parts of it.
async fn cut(blob: Digest, source: Blob, what: Cut) -> Result<Vec<Placed>, Error> {
    let work = move || {
        let mut chunks = Vec::new();
        match what {
            Cut::Sample if blob.size > SAMPLES * SAMPLE_BYTES => {
                let step = (blob.size.saturating_sub(SAMPLE_BYTES)) / (SAMPLES - 1);
                for place in 0..SAMPLES {
                    let at = step.saturating_mul(place);
                    let found = cut_range(&blob, &source, at, SAMPLE_BYTES)?;
                    // A cut at the start of a range is not one of the whole blob's.
                    let skip = usize::from(at > 0);
                    chunks.extend(found.iter().take(found.len().saturating_sub(1)).skip(skip));
                }
            }
            _ => chunks = cut_range(&blob, &source, 0, blob.size)?,
        }
        Ok(chunks)
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| tonic::Status::internal(error.to_string()))?
}

fn cut_range(blob: &Digest, source: &Blob, at: u64, length: u64) -> Result<Vec<Placed>, Error> {
    let (mut chunker, mut chunks, mut offset) = (Chunker::new(), Vec::new(), at);
    let mut take = |chunk: Bytes| {
        chunks.push((blob.function.digest(&chunk), offset));
        offset = offset.saturating_add(chunk.len() as u64);
    };
    let mut reader = source.reader(at, length)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = reader.read(&mut buffer).map_err(|error| source.failed(error))?;
        if count == 0 {
            break;
        }
        chunker.push(buffer.get(..count).unwrap_or_default());
        while let Some(chunk) = chunker.next_whole() {
            take(chunk);
        }
    }
    while let Some(chunk) = chunker.next_last() {
        take(chunk);
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut hash = [7; 32];
        let mut data = Vec::with_capacity(length + 32);
        while data.len() < length {
            hash = DigestFunction::Blake3.digest(&hash).hash;
            data.extend_from_slice(&hash);
        }
        data.truncate(length);
        data
    }

    #[tokio::test]
    async fn a_sample_is_of_chunks_that_the_whole_blob_has() {
        let data = noise(40 << 20);
        let digest = DigestFunction::Blake3.digest(&data);
        let blob = Blob::Bytes(data.into());
        let whole = cut(digest, blob.clone(), Cut::Whole).await.unwrap();
        let sample = cut(digest, blob, Cut::Sample).await.unwrap();
        let known = sample.iter().filter(|chunk| whole.contains(chunk)).count();
        assert!(
            sample.len() > 20 && known * 10 >= sample.len() * 8,
            "expected most of the {} sampled chunks among the blob's, found {known}",
            sample.len()
        );
    }
}
