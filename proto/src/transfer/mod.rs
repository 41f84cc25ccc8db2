//! The transfer client: moves blobs between this process and a farm's content-addressed store.
//!
//! Small blobs are sent in batches, large ones as streams, several at once; existing blobs are not sent. A large blob
//! that is similar to one at the other end is sent as the chunks that differ.
//! Of a farm with several coordinators, another one is asked for what one does not have, or answers wrongly or too slowly.
//! Invariant: downloaded bytes are checked against their digest before the complete blob is visible.

mod chunks;
mod download;
mod possession;
mod reading;
mod sources;
mod upload;

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::channel::Channel;
use bytes::Bytes;
use futures::{StreamExt, stream};
use kiln_telemetry::trace::{Traced, traced};
use tonic::service::interceptor::InterceptedService;

use crate::bytestream::byte_stream_client::ByteStreamClient;
use crate::channel::MAX_MESSAGE_BYTES;
use crate::digest::{Digest, DigestFunction};
use crate::meter::Meter;
use crate::reapi;
use crate::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use crate::scope::ForLease;

pub use chunks::CHUNKED_FROM_BYTES;

/// Maximum bytes of blobs in one batch, below REAPI servers' usual limit of 4 MiB with the envelope.
const BATCH_BYTES: u64 = 3 * 1024 * 1024;
/// Maximum number of blobs in one batch.
const BATCH_BLOBS: usize = 2_000;
/// Minimum size of a blob that is sent as a stream.
const STREAM_FROM_BYTES: u64 = 1024 * 1024;
/// Digests in one request for missing blobs: about 80 bytes each, below gRPC's message limit.
const FIND_DIGESTS: usize = 25_000;
/// Maximum concurrent calls.
const CONCURRENCY: usize = 6;
/// Bytes in one message of a stream.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Why a transfer failed.
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
    #[error("`{digest}` is not a message of the expected type")]
    Message {
        digest: Digest,
        #[source]
        source: prost::DecodeError,
    },
    #[error("a transfer failed: {}", .0.message())]
    Status(#[from] Box<tonic::Status>),
}

impl Error {
    /// Whether the connection broke or the farm was unavailable, so that a retry may succeed.
    pub fn is_connection(&self) -> bool {
        self.connection().is_some()
    }

    /// The status of the call whose connection broke, if that is the reason.
    pub fn connection(&self) -> Option<&tonic::Status> {
        use tonic::Code::{Cancelled, Unavailable, Unknown};
        match self {
            Self::Status(status) if matches!(status.code(), Unavailable | Unknown | Cancelled) => Some(status),
            _ => None,
        }
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// The source of an upload's bytes.
#[derive(Debug, Clone)]
pub enum Blob {
    /// In memory.
    Bytes(Bytes),
    /// In a file, which is read when it is sent.
    File(PathBuf),
    /// In a file from an offset on, in bytes; read when it is sent.
    Part(PathBuf, u64),
}

impl Blob {
    /// The part of this blob that starts at `offset`, in bytes.
    fn part(&self, offset: u64, length: u64) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Bytes(slice(bytes, offset, length)),
            Self::File(path) => Self::Part(path.clone(), offset),
            Self::Part(path, start) => Self::Part(path.clone(), start.saturating_add(offset)),
        }
    }

    /// The bytes from `offset` on, at most `length`.
    fn reader(&self, offset: u64, length: u64) -> Result<Box<dyn Read + Send>, Error> {
        use std::io::{Cursor, Seek, SeekFrom};
        let (path, start) = match self {
            Self::Bytes(bytes) => return Ok(Box::new(Cursor::new(slice(bytes, offset, length)))),
            Self::File(path) => (path, 0),
            Self::Part(path, start) => (path, *start),
        };
        let mut file = std::fs::File::open(path).map_err(|source| self.failed(source))?;
        file.seek(SeekFrom::Start(start.saturating_add(offset))).map_err(|source| self.failed(source))?;
        Ok(Box::new(file.take(length)))
    }

    /// The file that it is in; empty for one in memory.
    fn path(&self) -> &Path {
        match self {
            Self::Bytes(_) => Path::new(""),
            Self::File(path) | Self::Part(path, _) => path,
        }
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::File { path: self.path().to_owned(), source }
    }
}

/// The amount of a transfer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Blobs sent.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were already there.
    pub reused_bytes: u64,
}

impl std::ops::AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.blobs = self.blobs.saturating_add(other.blobs);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.reused_bytes = self.reused_bytes.saturating_add(other.reused_bytes);
    }
}

/// A connection whose calls carry the lease that they are made for.
pub type LeaseChannel = Traced<InterceptedService<Channel, ForLease>>;

type Cas = ContentAddressableStorageClient<LeaseChannel>;
type Streams = ByteStreamClient<LeaseChannel>;

fn cas(channel: LeaseChannel) -> Cas {
    Cas::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
}

fn streams(channel: LeaseChannel) -> Streams {
    Streams::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// A client for one farm and one instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    bare: Channel,
    lease: ForLease,
    /// Whether reads are spread over all coordinators.
    is_spread: bool,
    channel: LeaseChannel,
    cas: Cas,
    streams: Streams,
    instance: String,
    function: DigestFunction,
    meter: Meter,
}

impl Client {
    /// A client on a channel; `instance` is REAPI's instance name.
    pub fn new(channel: Channel, instance: impl Into<String>, function: DigestFunction) -> Self {
        Self::for_lease(channel, instance, function, &[])
    }

    /// A worker's client, which presents the grant of its lease.
    pub fn for_lease(channel: Channel, instance: impl Into<String>, function: DigestFunction, grant: &[u8]) -> Self {
        let lease = ForLease::of(grant);
        let bare = channel.clone();
        let channel = traced(InterceptedService::new(channel, lease.clone()));
        Self {
            cas: cas(channel.clone()),
            streams: streams(channel.clone()),
            bare,
            lease,
            is_spread: false,
            channel,
            instance: instance.into(),
            function,
            meter: Meter::default(),
        }
    }

    /// Spreads reads over all coordinators of the farm, by digest: each of them reads other blobs from the store behind it.
    #[must_use]
    pub fn spread(self) -> Self {
        Self { is_spread: true, ..self }
    }

    /// Counts transferred bytes on this meter. An upload restarts it with the bytes to be sent.
    #[must_use]
    pub fn metered(self, meter: Meter) -> Self {
        Self { meter, ..self }
    }

    /// Its connection, for calls of other services on behalf of the same lease.
    pub fn channel(&self) -> LeaseChannel {
        self.channel.clone()
    }

    /// The digest function that this client speaks.
    pub fn function(&self) -> DigestFunction {
        self.function
    }

    /// Which of these blobs the farm lacks. Extends the lifetime of the others.
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
}

/// The bytes of blob from `offset` on, at most `length`.
fn slice(bytes: &Bytes, offset: u64, length: u64) -> Bytes {
    let size = bytes.len() as u64;
    let (start, end) = (offset.min(size), offset.saturating_add(length).min(size));
    bytes.slice(start as usize..end as usize)
}

/// The sum of sizes, in bytes.
fn total(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

/// Groups blobs so that each group fits into a batch.
fn batches<T>(blobs: Vec<(Digest, T)>) -> Vec<Vec<(Digest, T)>> {
    let mut groups: Vec<Vec<(Digest, T)>> = Vec::new();
    let mut bytes = 0_u64;
    for blob in blobs {
        let size = blob.0.size;
        match groups.last_mut() {
            Some(group) if bytes.saturating_add(size) <= BATCH_BYTES && group.len() < BATCH_BLOBS => {
                bytes = bytes.saturating_add(size);
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

/// A unique name for an upload: this process, and a counter.
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
