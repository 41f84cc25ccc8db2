//! Downloads: every byte is checked against its digest before the complete blob is visible.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};

use super::{
    CHUNKED_FROM_BYTES, CONCURRENCY, Client, Error, STREAM_FROM_BYTES, batches, check, gone, malformed, verify,
};
use crate::bytestream::ReadRequest;
use crate::digest::Digest;
use crate::reapi;
use crate::resource_name::{Compression, ReadName};

impl Client {
    /// Fetches one blob into memory.
    pub async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        if digest.is_empty() {
            return Ok(Bytes::new());
        }
        if digest.size < STREAM_FROM_BYTES {
            let mut found = self.get_batch(vec![*digest]).await?;
            return found.remove(digest).ok_or(Error::Missing { digest: *digest });
        }
        let mut data = Vec::with_capacity(usize::try_from(digest.size).unwrap_or(0).min(64 << 20));
        let mut chunks = self.read(digest).await?;
        while let Some(chunk) = chunks.message().await.map_err(|status| gone(status, digest))? {
            self.meter.advance(chunk.data.len() as u64);
            data.extend_from_slice(&chunk.data);
        }
        verify(digest, &data)?;
        Ok(data.into())
    }

    /// Fetches many blobs; small ones in batches. Fails with [`Error::Missing`] if one is missing.
    pub async fn get_many(&self, digests: &[Digest]) -> Result<HashMap<Digest, Bytes>, Error> {
        let unique: HashSet<Digest> = digests.iter().copied().collect();
        let (large, small): (Vec<_>, Vec<_>) = unique.into_iter().partition(|d| d.size >= STREAM_FROM_BYTES);
        let groups = batches(small.into_iter().map(|digest| (digest, ())).collect());
        let mut found = HashMap::with_capacity(digests.len());
        let asks: Vec<_> = groups
            .into_iter()
            .map(|group| self.get_batch(group.into_iter().map(|(digest, ())| digest).collect()))
            .collect();
        let mut answers = stream::iter(asks).buffer_unordered(CONCURRENCY);
        while let Some(answer) = answers.next().await {
            found.extend(answer?);
        }
        for digest in large {
            found.insert(digest, self.get(&digest).await?);
        }
        match digests.iter().find(|digest| !found.contains_key(digest)) {
            Some(digest) => Err(Error::Missing { digest: *digest }),
            None => Ok(found),
        }
    }

    pub(super) async fn get_batch(&self, digests: Vec<Digest>) -> Result<HashMap<Digest, Bytes>, Error> {
        let (empty, wanted): (Vec<_>, Vec<_>) = digests.into_iter().partition(Digest::is_empty);
        let mut found: HashMap<Digest, Bytes> = empty.into_iter().map(|digest| (digest, Bytes::new())).collect();
        if wanted.is_empty() {
            return Ok(found);
        }
        let answer = self
            .cas
            .clone()
            .batch_read_blobs(reapi::BatchReadBlobsRequest {
                instance_name: self.instance.clone(),
                digests: wanted.iter().map(Digest::to_wire).collect(),
                acceptable_compressors: Vec::new(),
                digest_function: self.function.to_wire(),
            })
            .await?
            .into_inner();
        for response in answer.responses {
            let digest = Digest::required(self.function, response.digest.as_ref()).map_err(malformed)?;
            if response.status.as_ref().is_some_and(|status| status.code == tonic::Code::NotFound as i32) {
                return Err(Error::Missing { digest });
            }
            check(response.status)?;
            verify(&digest, &response.data)?;
            self.meter.advance(response.data.len() as u64);
            found.insert(digest, response.data.into());
        }
        Ok(found)
    }

    async fn read(&self, digest: &Digest) -> Result<tonic::Streaming<crate::bytestream::ReadResponse>, Error> {
        let name = ReadName { instance: self.instance.clone(), digest: *digest, compression: Compression::Identity };
        let request = ReadRequest { resource_name: name.to_string(), read_offset: 0, read_limit: 0 };
        Ok(self.streams.clone().read(request).await.map_err(|status| gone(status, digest))?.into_inner())
    }

    /// Streams a blob as the farm sends it, unverified: the caller must make sure that it is checked.
    ///
    /// # Errors
    /// [`Error::Missing`] if it does not exist; the stream itself may end with an error.
    pub async fn stream(&self, digest: &Digest) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        if digest.size < STREAM_FROM_BYTES {
            let data = self.get(digest).await?;
            return Ok(stream::iter([Ok(data)]).boxed());
        }
        let (chunks, digest) = (self.read(digest).await?, *digest);
        let pieces = chunks.map(move |chunk| match chunk {
            Ok(chunk) => Ok(chunk.data.into()),
            Err(status) => Err(gone(status, &digest)),
        });
        Ok(pieces.boxed())
    }

    /// A message stored as a blob.
    pub async fn get_message<M: prost::Message + Default>(&self, digest: &Digest) -> Result<M, Error> {
        M::decode(self.get(digest).await?).map_err(|source| Error::Message { digest: *digest, source })
    }

    /// Streams a blob to a new file at `path` and checks its digest, in constant memory.
    ///
    /// An incomplete file is removed.
    pub async fn download(&self, digest: &Digest, path: &Path) -> Result<(), Error> {
        let result = self.download_unchecked(digest, path).await;
        if result.is_err() {
            let _ = tokio::fs::remove_file(path).await;
        }
        result
    }

    /// Like [`download`](Self::download), but copies what the blob shares with one of `bases`, files that may be
    /// similar. Returns the bytes fetched.
    pub async fn download_over(&self, digest: &Digest, path: &Path, bases: &[PathBuf]) -> Result<u64, Error> {
        if digest.size >= CHUNKED_FROM_BYTES && !bases.is_empty() {
            match self.assemble(digest, path, bases).await {
                Ok(Some(fetched)) => return Ok(fetched),
                Ok(None) => {}
                Err(error) => {
                    let _ = tokio::fs::remove_file(path).await;
                    return Err(error);
                }
            }
        }
        self.download(digest, path).await.map(|()| digest.size)
    }

    async fn download_unchecked(&self, digest: &Digest, path: &Path) -> Result<(), Error> {
        // Hashed and written in a separate thread while the next bytes arrive.
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let (digest, path, hasher) = (*digest, path.to_owned(), self.function.hasher());
        let writing = tokio::task::spawn_blocking(move || write_checked(&path, &digest, hasher, receiver));
        let fetched = self.fetch_into(&digest, sender).await;
        let written = writing.await.map_err(|_| tonic::Status::internal("the writing thread panicked"))?;
        match (written, fetched) {
            // The stream fails when writing does.
            (Err(error @ Error::File { .. }), _) | (_, Err(error)) => Err(error),
            (written, Ok(())) => written,
        }
    }

    async fn fetch_into(&self, digest: &Digest, sender: tokio::sync::mpsc::Sender<Bytes>) -> Result<(), Error> {
        if digest.size < STREAM_FROM_BYTES {
            let _ = sender.send(self.get(digest).await?).await;
            return Ok(());
        }
        let mut chunks = self.read(digest).await?;
        while let Some(chunk) = chunks.message().await.map_err(|status| gone(status, digest))? {
            self.meter.advance(chunk.data.len() as u64);
            if sender.send(chunk.data.into()).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}
fn write_checked(
    path: &Path,
    digest: &Digest,
    mut hasher: crate::digest::Hasher,
    mut chunks: tokio::sync::mpsc::Receiver<Bytes>,
) -> Result<(), Error> {
    use std::io::Write;
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut file = std::fs::File::create(path).map_err(failed)?;
    while let Some(chunk) = chunks.blocking_recv() {
        hasher.update(&chunk);
        file.write_all(&chunk).map_err(failed)?;
    }
    let found = hasher.finish();
    if found == *digest { Ok(()) } else { Err(Error::Corrupt { digest: *digest, found }) }
}
