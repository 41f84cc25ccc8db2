//! Downloads: every byte is checked against its digest before the complete blob is visible.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};

use super::reading::Reading;
use super::sources::{Source, Wrong};
use super::{CHUNKED_FROM_BYTES, CONCURRENCY, Client, Error, STREAM_FROM_BYTES, batches, check, malformed, verify};
use crate::digest::Digest;
use crate::reapi;

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
        self.until_right(digest, |wrong| self.get_large(digest, wrong)).await
    }

    async fn get_large(&self, digest: &Digest, wrong: Wrong) -> Result<Bytes, Error> {
        let mut data = Vec::with_capacity(usize::try_from(digest.size).unwrap_or(0).min(64 << 20));
        let mut reading = self.read(digest, wrong);
        while let Some(chunk) = reading.next().await? {
            self.meter.advance(chunk.len() as u64);
            data.extend_from_slice(&chunk);
        }
        verify(digest, &data).inspect_err(|_| reading.was_wrong())?;
        Ok(data.into())
    }

    /// Repeats a transfer whose content was wrong, each time from other coordinators.
    async fn until_right<T, F>(&self, digest: &Digest, attempt: impl Fn(Wrong) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let wrong = Wrong::default();
        for _ in 1..self.source_count() {
            match attempt(wrong.clone()).await {
                Err(Error::Corrupt { .. }) => tracing::debug!(%digest, "asking another coordinator for a blob"),
                ended => return ended,
            }
        }
        attempt(wrong).await
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
        // A batch goes where its first blob would.
        let Some(first) = wanted.first().copied() else { return Ok(found) };
        found.extend(self.ask(&first, |source| self.get_batch_from(source, wanted.clone())).await?);
        Ok(found)
    }

    async fn get_batch_from(&self, source: Source, wanted: Vec<Digest>) -> Result<HashMap<Digest, Bytes>, Error> {
        let mut cas = source.cas;
        let request = reapi::BatchReadBlobsRequest {
            instance_name: self.instance.clone(),
            digests: wanted.iter().map(Digest::to_wire).collect(),
            acceptable_compressors: Vec::new(),
            digest_function: self.function.to_wire(),
        };
        let mut found = HashMap::with_capacity(wanted.len());
        for response in cas.batch_read_blobs(request).await?.into_inner().responses {
            let digest = Digest::required(self.function, response.digest.as_ref()).map_err(malformed)?;
            if response.status.as_ref().is_some_and(|status| status.code == tonic::Code::NotFound as i32) {
                return Err(Error::Missing { digest });
            }
            check(response.status)?;
            verify(&digest, &response.data)?;
            found.insert(digest, response.data.into());
        }
        if let Some(digest) = wanted.iter().find(|digest| !found.contains_key(digest)) {
            return Err(Error::Missing { digest: *digest });
        }
        self.meter.advance(found.values().map(|data: &Bytes| data.len() as u64).sum());
        Ok(found)
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
        let mut reading = self.read(digest, Wrong::default());
        // The first bytes show whether the blob is there.
        let first = reading.next().await?;
        Ok(stream::iter(first.map(Ok)).chain(reading.into_stream()).boxed())
    }

    /// A message stored as a blob.
    pub async fn get_message<M: prost::Message + Default>(&self, digest: &Digest) -> Result<M, Error> {
        M::decode(self.get(digest).await?).map_err(|source| Error::Message { digest: *digest, source })
    }

    /// Streams a blob to a new file at `path` and checks its digest, in constant memory.
    ///
    /// An incomplete file is removed.
    pub async fn download(&self, digest: &Digest, path: &Path) -> Result<(), Error> {
        let result = self.until_right(digest, |wrong| self.download_from(digest, path, wrong)).await;
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

    async fn download_from(&self, digest: &Digest, path: &Path, wrong: Wrong) -> Result<(), Error> {
        // Hashed and written in a separate thread while the next bytes arrive.
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let (digest, path, hasher) = (*digest, path.to_owned(), self.function.hasher());
        let writing = tokio::task::spawn_blocking(move || write_checked(&path, &digest, hasher, receiver));
        let mut reading = (digest.size >= STREAM_FROM_BYTES).then(|| self.read(&digest, wrong));
        let fetched = self.fetch_into(&digest, reading.as_mut(), sender).await;
        let written = writing.await.map_err(|_| tonic::Status::internal("the writing thread panicked"))?;
        match (written, fetched) {
            // The stream fails when writing does.
            (Err(error @ Error::File { .. }), _) | (_, Err(error)) => Err(error),
            (written, Ok(())) => written.inspect_err(|_| reading.iter().for_each(Reading::was_wrong)),
        }
    }

    async fn fetch_into(
        &self,
        digest: &Digest,
        reading: Option<&mut Reading>,
        sender: tokio::sync::mpsc::Sender<Bytes>,
    ) -> Result<(), Error> {
        let Some(reading) = reading else {
            let _ = sender.send(self.get(digest).await?).await;
            return Ok(());
        };
        while let Some(chunk) = reading.next().await? {
            self.meter.advance(chunk.len() as u64);
            if sender.send(chunk).await.is_err() {
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
