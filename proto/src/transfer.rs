//! The transfer client: moves blobs between this process and a farm's content-addressed store.
//!
//! Small blobs go in batches, large ones as streams, several at once; what is there already is not sent.
//! Invariant: bytes that come back are checked against their digest before anyone sees them whole.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::io::AsyncReadExt;
use tonic::transport::Channel;

use crate::bytestream::byte_stream_client::ByteStreamClient;
use crate::bytestream::{ReadRequest, WriteRequest};
use crate::channel::MAX_MESSAGE_BYTES;
use crate::digest::{Digest, DigestFunction};
use crate::reapi;
use crate::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use crate::resource_name::{Compression, ReadName, WriteName};

/// Bytes of blobs in one batch, below REAPI servers' usual limit of 4 MiB with its envelope.
const BATCH_BYTES: u64 = 3 * 1024 * 1024;
/// Blobs in one batch.
const BATCH_BLOBS: usize = 2_000;
/// From this size on a blob goes by stream.
const STREAM_FROM_BYTES: u64 = 1024 * 1024;
/// Digests in one question for missing blobs: some 80 bytes each, below gRPC's message limit.
const FIND_DIGESTS: usize = 25_000;
/// Calls under way at once.
const CONCURRENCY: usize = 6;
/// Bytes in one message of a stream.
const CHUNK_BYTES: usize = 1024 * 1024;

/// A transfer that did not work.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("blob `{digest}` is not in the farm's store")]
    Missing { digest: Digest },
    #[error("blob `{digest}` came back with other content (`{found}`)")]
    Corrupt { digest: Digest, found: Digest },
    #[error("`{path}` changed while it was sent; expected `{expected}`, found `{found}`; start the build again")]
    Changed { path: PathBuf, expected: Digest, found: Digest },
    #[error("cannot read or write `{path}`")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{digest}` is no message of the expected kind")]
    Message {
        digest: Digest,
        #[source]
        source: prost::DecodeError,
    },
    #[error("a transfer failed: {}", .0.message())]
    Status(#[from] Box<tonic::Status>),
}

impl Error {
    /// Whether the connection broke or the farm was away: the same may work when it is back.
    pub fn is_connection(&self) -> bool {
        use tonic::Code::{Cancelled, Unavailable, Unknown};
        matches!(self, Self::Status(status) if matches!(status.code(), Unavailable | Unknown | Cancelled))
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Where an upload's bytes are.
#[derive(Debug, Clone)]
pub enum Blob {
    /// In memory.
    Bytes(Bytes),
    /// In a file, read when it is sent.
    File(PathBuf),
}

/// What a transfer moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Blobs sent.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were there already.
    pub reused_bytes: u64,
}

impl std::ops::AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.blobs += other.blobs;
        self.bytes += other.bytes;
        self.reused_bytes += other.reused_bytes;
    }
}

/// A client of one farm and one instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    cas: ContentAddressableStorageClient<Channel>,
    streams: ByteStreamClient<Channel>,
    instance: String,
    function: DigestFunction,
}

impl Client {
    /// A client over a channel; `instance` is REAPI's instance name.
    pub fn new(channel: Channel, instance: impl Into<String>, function: DigestFunction) -> Self {
        Self {
            cas: ContentAddressableStorageClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            streams: ByteStreamClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            instance: instance.into(),
            function,
        }
    }

    /// The digest function that this client speaks.
    pub fn function(&self) -> DigestFunction {
        self.function
    }

    /// Which of these blobs the farm does not have. Extends the life of the others.
    pub async fn find_missing(&self, digests: &[Digest]) -> Result<HashSet<Digest>, Error> {
        let asks = digests.chunks(FIND_DIGESTS).map(|chunk| {
            let request = reapi::FindMissingBlobsRequest {
                instance_name: self.instance.clone(),
                blob_digests: chunk.iter().map(Digest::to_wire).collect(),
                digest_function: self.function.to_wire(),
            };
            let mut cas = self.cas.clone();
            async move { cas.find_missing_blobs(request).await }
        });
        let asks: Vec<_> = asks.collect();
        let mut missing = HashSet::new();
        let mut answers = stream::iter(asks).buffer_unordered(CONCURRENCY);
        while let Some(answer) = answers.next().await {
            for digest in answer?.into_inner().missing_blob_digests {
                missing.insert(Digest::from_wire(self.function, &digest).map_err(malformed)?);
            }
        }
        Ok(missing)
    }

    /// Sends what the farm does not have. The same digest may be given several times.
    pub async fn upload(&self, blobs: Vec<(Digest, Blob)>) -> Result<Moved, Error> {
        let unique: HashMap<Digest, Blob> = blobs.into_iter().filter(|(digest, _)| !digest.is_empty()).collect();
        let digests: Vec<Digest> = unique.keys().copied().collect();
        let missing = self.find_missing(&digests).await?;
        let (wanted, there): (Vec<_>, Vec<_>) = unique.into_iter().partition(|(digest, _)| missing.contains(digest));
        let mut moved = self.send(wanted).await?;
        moved.reused_bytes = there.iter().map(|(digest, _)| digest.size).sum();
        Ok(moved)
    }

    /// Sends blobs without asking first.
    pub async fn send(&self, blobs: Vec<(Digest, Blob)>) -> Result<Moved, Error> {
        let moved = Moved {
            blobs: blobs.len() as u64,
            bytes: blobs.iter().map(|(digest, _)| digest.size).sum(),
            reused_bytes: 0,
        };
        let (large, small): (Vec<_>, Vec<_>) =
            blobs.into_iter().partition(|(digest, _)| digest.size >= STREAM_FROM_BYTES);
        let batches: Vec<_> = batches(small).into_iter().map(|batch| self.send_batch(batch)).collect();
        let batches = stream::iter(batches).buffer_unordered(CONCURRENCY);
        let streams: Vec<_> = large.into_iter().map(|(digest, blob)| self.send_stream(digest, blob)).collect();
        let streams = stream::iter(streams).buffer_unordered(CONCURRENCY);
        futures::try_join!(batches.try_collect::<()>(), streams.try_collect::<()>())?;
        Ok(moved)
    }

    async fn send_batch(&self, batch: Vec<(Digest, Blob)>) -> Result<(), Error> {
        let function = self.function;
        let requests = tokio::task::spawn_blocking(move || {
            batch.into_iter().map(|(digest, blob)| read_small(function, digest, blob)).collect::<Result<Vec<_>, _>>()
        })
        .await
        .map_err(|error| tonic::Status::internal(error.to_string()))??;
        let answer = self
            .cas
            .clone()
            .batch_update_blobs(reapi::BatchUpdateBlobsRequest {
                instance_name: self.instance.clone(),
                requests,
                digest_function: self.function.to_wire(),
            })
            .await?
            .into_inner();
        for response in answer.responses {
            check(response.status)?;
        }
        Ok(())
    }

    async fn send_stream(&self, digest: Digest, blob: Blob) -> Result<(), Error> {
        let name = WriteName {
            instance: self.instance.clone(),
            upload: upload_id(),
            digest,
            compression: Compression::Identity,
        }
        .to_string();
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let call = async {
            let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
            self.streams.clone().write(requests).await
        };
        let feed = feed(name, digest, blob, sender);
        let (answer, fed) = tokio::join!(call, feed);
        fed?;
        let committed = answer?.into_inner().committed_size;
        if committed == digest.size as i64 || committed == -1 {
            Ok(())
        } else {
            let text = format!("the farm took {committed} of {} bytes of `{digest}`", digest.size);
            Err(tonic::Status::data_loss(text).into())
        }
    }

    /// One blob, whole, in memory.
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
            data.extend_from_slice(&chunk.data);
        }
        verify(digest, &data)?;
        Ok(data.into())
    }

    /// Many blobs; small ones by batch. Fails with [`Error::Missing`] where one is absent.
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

    async fn get_batch(&self, digests: Vec<Digest>) -> Result<HashMap<Digest, Bytes>, Error> {
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
            found.insert(digest, response.data.into());
        }
        Ok(found)
    }

    async fn read(&self, digest: &Digest) -> Result<tonic::Streaming<crate::bytestream::ReadResponse>, Error> {
        let name = ReadName { instance: self.instance.clone(), digest: *digest, compression: Compression::Identity };
        let request = ReadRequest { resource_name: name.to_string(), read_offset: 0, read_limit: 0 };
        Ok(self.streams.clone().read(request).await.map_err(|status| gone(status, digest))?.into_inner())
    }

    /// A message stored as a blob.
    pub async fn get_message<M: prost::Message + Default>(&self, digest: &Digest) -> Result<M, Error> {
        M::decode(self.get(digest).await?).map_err(|source| Error::Message { digest: *digest, source })
    }

    /// Streams a blob into a new file at `path`, checked against its digest. Constant memory.
    ///
    /// A file that did not come whole is removed.
    pub async fn download(&self, digest: &Digest, path: &Path) -> Result<(), Error> {
        let result = self.download_unchecked(digest, path).await;
        if result.is_err() {
            let _ = tokio::fs::remove_file(path).await;
        }
        result
    }

    async fn download_unchecked(&self, digest: &Digest, path: &Path) -> Result<(), Error> {
        // Hashed and written on a thread of its own while the next bytes come in.
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let (digest, path, hasher) = (*digest, path.to_owned(), self.function.hasher());
        let writing = tokio::task::spawn_blocking(move || write_checked(&path, &digest, hasher, receiver));
        let fetched = self.fetch_into(&digest, sender).await;
        let written = writing.await.map_err(|_| tonic::Status::internal("the writing thread ended early"))?;
        match (written, fetched) {
            // The stream breaks when writing does.
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

/// Feeds a write stream. A receiver that went away is no error here: the call's own answer says why.
async fn feed(
    name: String,
    digest: Digest,
    blob: Blob,
    sender: tokio::sync::mpsc::Sender<WriteRequest>,
) -> Result<(), Error> {
    let mut offset = 0_u64;
    let mut name = Some(name);
    let mut message = |data: Vec<u8>| {
        let request = WriteRequest {
            resource_name: name.take().unwrap_or_default(),
            write_offset: offset as i64,
            finish_write: offset + data.len() as u64 == digest.size,
            data,
        };
        offset += request.data.len() as u64;
        request
    };
    match blob {
        Blob::Bytes(bytes) => {
            for chunk in bytes.chunks(CHUNK_BYTES) {
                if sender.send(message(chunk.to_vec())).await.is_err() {
                    return Ok(());
                }
            }
        }
        Blob::File(path) => {
            let failed = |source| Error::File { path: path.clone(), source };
            let mut file = tokio::fs::File::open(&path).await.map_err(failed)?;
            file.set_max_buf_size(CHUNK_BYTES);
            let mut left = digest.size;
            while left > 0 {
                let mut data = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES)];
                if let Err(source) = file.read_exact(&mut data).await {
                    if source.kind() != std::io::ErrorKind::UnexpectedEof {
                        return Err(failed(source));
                    }
                    let found = Digest { size: digest.size - left, ..digest };
                    return Err(Error::Changed { path, expected: digest, found });
                }
                left -= data.len() as u64;
                if sender.send(message(data)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Groups blobs so that each group fits a batch call.
fn batches<T>(blobs: Vec<(Digest, T)>) -> Vec<Vec<(Digest, T)>> {
    let mut groups: Vec<Vec<(Digest, T)>> = Vec::new();
    let mut bytes = 0;
    for blob in blobs {
        let size = blob.0.size;
        match groups.last_mut() {
            Some(group) if bytes + size <= BATCH_BYTES && group.len() < BATCH_BLOBS => {
                bytes += size;
                group.push(blob);
            }
            _ => {
                bytes = size;
                groups.push(vec![blob]);
            }
        }
    }
    groups
}

fn read_small(
    function: DigestFunction,
    digest: Digest,
    blob: Blob,
) -> Result<reapi::batch_update_blobs_request::Request, Error> {
    let data = match blob {
        Blob::Bytes(bytes) => bytes.to_vec(),
        Blob::File(path) => {
            let data = std::fs::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
            let found = function.digest(&data);
            if found != digest {
                return Err(Error::Changed { path, expected: digest, found });
            }
            data
        }
    };
    Ok(reapi::batch_update_blobs_request::Request {
        digest: Some(digest.to_wire()),
        data,
        compressor: reapi::compressor::Value::Identity as i32,
    })
}

fn verify(digest: &Digest, data: &[u8]) -> Result<(), Error> {
    let found = digest.function.digest(data);
    if found == *digest { Ok(()) } else { Err(Error::Corrupt { digest: *digest, found }) }
}

fn check(status: Option<crate::rpc::Status>) -> Result<(), Error> {
    match status {
        Some(status) if status.code != 0 => Err(tonic::Status::new(status.code.into(), status.message).into()),
        _ => Ok(()),
    }
}

fn gone(status: tonic::Status, digest: &Digest) -> Error {
    if status.code() == tonic::Code::NotFound { Error::Missing { digest: *digest } } else { status.into() }
}

fn malformed(error: crate::digest::Error) -> Error {
    tonic::Status::internal(format!("the farm's answer is malformed: {error}")).into()
}

/// Names an upload uniquely: this process, and a count within it.
fn upload_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}-{:x}", std::process::id(), now.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn batches_hold_every_blob_once_and_stay_under_the_limit(
            sizes in proptest::collection::vec(0..STREAM_FROM_BYTES, 0..200)
        ) {
            let blobs: Vec<(Digest, usize)> = sizes
                .iter()
                .enumerate()
                .map(|(index, size)| (Digest { function: DigestFunction::Sha256, hash: [0; 32], size: *size }, index))
                .collect();
            let groups = batches(blobs);
            let order: Vec<usize> = groups.iter().flatten().map(|(_, index)| *index).collect();
            proptest::prop_assert_eq!(order, (0..sizes.len()).collect::<Vec<_>>());
            for group in groups {
                proptest::prop_assert!(group.iter().map(|(digest, _)| digest.size).sum::<u64>() <= BATCH_BYTES);
            }
        }
    }
}
