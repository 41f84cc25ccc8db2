//! A farm with only the content services, served on a port of this machine.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use kiln_coordinator::services::{ActionCache, ByteStream, Capabilities, ContentAddressableStorage, NoLogs, ReadLogs};
use kiln_proto::bytestream::byte_stream_client::ByteStreamClient;
use kiln_proto::bytestream::byte_stream_server::ByteStreamServer;
use kiln_proto::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use kiln_proto::channel::Channel;
use kiln_proto::channel::MAX_MESSAGE_BYTES;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi::action_cache_client::ActionCacheClient;
use kiln_proto::reapi::action_cache_server::ActionCacheServer;
use kiln_proto::reapi::capabilities_client::CapabilitiesClient;
use kiln_proto::reapi::capabilities_server::CapabilitiesServer;
use kiln_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use kiln_store::{Config, Stores};
use prost::Message;
use tempfile::TempDir;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Status};

pub const SHA256: DigestFunction = DigestFunction::Sha256;
pub const BLAKE3: DigestFunction = DigestFunction::Blake3;

/// A running farm and its clients. Stopped when dropped.
pub struct Farm {
    pub stores: Stores,
    pub channel: Channel,
    pub cas: ContentAddressableStorageClient<Channel>,
    pub bytes: ByteStreamClient<Channel>,
    pub actions: ActionCacheClient<Channel>,
    pub capabilities: CapabilitiesClient<Channel>,
    pub dir: TempDir,
    pub url: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Farm {
    pub async fn start() -> Self {
        Self::with(1 << 30, Arc::new(NoLogs)).await
    }

    pub async fn with(max_bytes: u64, logs: Arc<dyn ReadLogs>) -> Self {
        Self::of(max_bytes, |stores| ByteStream::new(stores, logs)).await
    }

    /// A farm that ends uploads which are silent for this long.
    pub async fn with_idle_timeout(patience: std::time::Duration) -> Self {
        Self::of(1 << 30, |stores| ByteStream::new(stores, Arc::new(NoLogs)).with_idle_timeout(patience)).await
    }

    /// A farm that accepts this many concurrent uploads.
    pub async fn with_uploads(most: usize) -> Self {
        Self::of(1 << 30, |stores| ByteStream::new(stores, Arc::new(NoLogs)).with_uploads(most)).await
    }

    async fn of(max_bytes: u64, bytes: impl FnOnce(Stores) -> ByteStream) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stores = Stores::open(&Config::on_disk(dir.path().to_owned(), max_bytes)).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let cas = ContentAddressableStorage::server(stores.clone());
        let bytes = ByteStreamServer::new(bytes(stores.clone()));
        let actions = ActionCacheServer::new(ActionCache::new(stores.clone()));
        let router = tonic::transport::Server::builder()
            .initial_stream_window_size(4 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024)
            .add_service(cas)
            .add_service(bytes.max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(actions.max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(CapabilitiesServer::new(Capabilities));
        let server = tokio::spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        let channel = kiln_proto::channel::connect(&url, &Default::default()).await.unwrap();
        Self {
            stores,
            cas: ContentAddressableStorageClient::new(channel.clone()),
            bytes: ByteStreamClient::new(channel.clone()),
            actions: ActionCacheClient::new(channel.clone()),
            capabilities: CapabilitiesClient::new(channel.clone()),
            channel,
            dir,
            url,
            server,
        }
    }

    /// Stores a blob and returns its digest.
    pub async fn put(&self, function: DigestFunction, data: &[u8]) -> Digest {
        let digest = function.digest(data);
        self.stores.blobs.put(&digest, data.to_vec().into()).await.unwrap();
        digest
    }

    /// Stores a message as a blob.
    pub async fn put_message(&self, message: &impl Message) -> Digest {
        self.put(SHA256, &message.encode_to_vec()).await
    }

    pub async fn has(&self, digest: &Digest) -> bool {
        self.stores.blobs.find_missing(&[*digest]).await.unwrap().is_empty()
    }

    /// Reads with `ByteStream`.
    pub async fn read(&self, name: &str, offset: i64, limit: i64) -> Result<Vec<u8>, Status> {
        let request = ReadRequest { resource_name: name.to_owned(), read_offset: offset, read_limit: limit };
        let mut pieces = self.bytes.clone().read(request).await?.into_inner();
        let mut data = Vec::new();
        while let Some(piece) = pieces.message().await? {
            data.extend(piece.data);
        }
        Ok(data)
    }

    /// Writes with `ByteStream`; returns the committed size.
    pub async fn write(&self, messages: Vec<WriteRequest>) -> Result<i64, Status> {
        let response = self.bytes.clone().write(tokio_stream::iter(messages)).await?;
        Ok(response.into_inner().committed_size)
    }

    /// Committed size, and whether the upload is complete.
    pub async fn write_status(&self, name: &str) -> (i64, bool) {
        let request = QueryWriteStatusRequest { resource_name: name.to_owned() };
        let status = self.bytes.clone().query_write_status(request).await.unwrap().into_inner();
        (status.committed_size, status.complete)
    }

    /// Takes a blob from the disk behind the store's back.
    pub fn lose(&self, digest: &Digest) {
        lose(self.dir.path(), digest);
    }
}

/// Where a blob is on the disk.
pub struct Spot {
    /// Its own file, or a pack.
    pub path: PathBuf,
    /// Where it begins there.
    pub at: u64,
    /// The pack's list, and where its last use is there.
    record: Option<(PathBuf, u64)>,
}

/// Looks for a blob on the disk, without the store.
pub fn spot(data_dir: &Path, digest: &Digest) -> Option<Spot> {
    let file = blob_file(data_dir, digest);
    if file.exists() {
        return Some(Spot { path: file, at: 0, record: None });
    }
    let number = |bytes: &[u8]| u64::from(u32::from_le_bytes(bytes.try_into().unwrap()));
    for entry in std::fs::read_dir(data_dir.join("blobs/packs")).into_iter().flatten().flatten() {
        let list = entry.path();
        if list.extension().is_none_or(|extension| extension != "list") {
            continue;
        }
        for (at, record) in std::fs::read(&list).unwrap().chunks_exact(64).enumerate() {
            let is_it = record[..32] == digest.hash && number(&record[32..36]) == digest.size;
            if is_it && record[56..] != [0; 8] {
                let record = (list.clone(), at as u64 * 64 + 56);
                let offset = number(&std::fs::read(&list).unwrap()[at * 64 + 36..at * 64 + 40]);
                return Some(Spot { path: list.with_extension("data"), at: offset, record: Some(record) });
            }
        }
    }
    None
}

/// Whether a blob is on the disk.
pub fn is_stored(data_dir: &Path, digest: &Digest) -> bool {
    spot(data_dir, digest).is_some()
}

/// Overwrites bytes of a blob on the disk.
pub fn damage(data_dir: &Path, digest: &Digest, at: u64, bytes: &[u8]) {
    let spot = spot(data_dir, digest).unwrap();
    std::fs::File::options().write(true).open(spot.path).unwrap().write_all_at(bytes, spot.at + at).unwrap();
}

/// Takes a blob from the disk behind the store's back.
pub fn lose(data_dir: &Path, digest: &Digest) {
    match spot(data_dir, digest).unwrap() {
        Spot { path, record: None, .. } => std::fs::remove_file(path).unwrap(),
        Spot { .. } => damage(data_dir, digest, 0, &vec![0; digest.size as usize]),
    }
}

/// Sets when a blob was last used, in seconds since 1970, while the store is closed.
pub fn set_used(data_dir: &Path, digest: &Digest, seconds: u64) {
    let spot = spot(data_dir, digest).unwrap();
    let open = |path: &Path| std::fs::File::options().write(true).open(path).unwrap();
    match spot.record {
        Some((list, at)) => open(&list).write_all_at(&(seconds * 1_000).to_le_bytes(), at).unwrap(),
        None => open(&spot.path).set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap(),
    }
}

fn blob_file(data_dir: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    let name = format!("{hex}-{}", digest.size);
    data_dir.join("blobs").join(digest.function.name()).join(&hex[..2]).join(name)
}

/// Files under a directory, except the lock.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().unwrap() != "lock" {
            found.push(path);
        }
    }
    found
}

/// One message of an upload.
pub fn piece(name: &str, offset: usize, data: &[u8], finish: bool) -> WriteRequest {
    WriteRequest {
        resource_name: name.to_owned(),
        write_offset: offset as i64,
        finish_write: finish,
        data: data.to_vec(),
    }
}

/// An upload of `data` in messages of `size` bytes.
pub fn pieces(name: &str, data: &[u8], size: usize) -> Vec<WriteRequest> {
    let count = data.len().div_ceil(size);
    let cut = data.chunks(size).enumerate();
    cut.map(|(at, part)| piece(name, at * size, part, at + 1 == count)).collect()
}

/// Incompressible bytes, determined by the seed.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut output = vec![0; size];
    rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut output);
    output
}

pub fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.unwrap_err().code()
}
