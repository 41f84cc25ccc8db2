//! For tests: a content-addressed store in memory behind a real gRPC server, which counts requests.

#![allow(dead_code, clippy::unwrap_used)]

mod caches;

use std::collections::HashMap;
use std::sync::Arc;

use kiln_proto::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use kiln_proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use kiln_proto::reapi::{self, batch_read_blobs_response, batch_update_blobs_response};
use kiln_proto::resource_name::{ReadName, WriteName};
use kiln_proto::rpc;
use kiln_proto::transfer::Client;
use kiln_proto::v1::cache_mounts_server::CacheMountsServer;
use kiln_trees::tree::{Entry, Tree};
use parking_lot::Mutex;
use tonic::{Request, Response, Status, Streaming};

pub const F: DigestFunction = DigestFunction::Sha256;

/// The store.
#[derive(Clone, Default)]
pub struct Cas {
    state: Arc<Mutex<State>>,
    /// Cache mounts, which are served beside it.
    pub caches: caches::Caches,
}

#[derive(Default)]
struct State {
    blobs: HashMap<Digest, Vec<u8>>,
    reads: HashMap<Digest, u64>,
    writes: HashMap<Digest, u64>,
    /// Blobs in the largest batch that was read.
    largest_batch: usize,
    /// Reads of this blob block.
    withheld: Option<Digest>,
}

impl Cas {
    /// Serves a new store; returns it and a client for it.
    pub async fn start() -> (Self, Client) {
        let (cas, channel) = Self::serve().await;
        (cas, Client::new(channel, "", F))
    }

    /// Serves a new store; returns it and a connection to it.
    pub async fn serve() -> (Self, kiln_proto::channel::Channel) {
        let cas = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(
                ContentAddressableStorageServer::new(cas.clone())
                    .max_decoding_message_size(64 << 20)
                    .max_encoding_message_size(64 << 20),
            )
            .add_service(ByteStreamServer::new(cas.clone()))
            .add_service(CacheMountsServer::new(cas.caches.clone()))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        tokio::spawn(server);
        let channel = kiln_proto::channel::connect(&format!("http://{address}"), &Default::default()).await.unwrap();
        (cas, channel)
    }

    pub fn put(&self, data: impl AsRef<[u8]>) -> Digest {
        let digest = F.digest(data.as_ref());
        self.state.lock().blobs.insert(digest, data.as_ref().to_vec());
        digest
    }

    /// A file's entry; stores its content.
    pub fn file(&self, data: impl AsRef<[u8]>, executable: bool) -> Entry {
        Entry::file(self.put(data), executable)
    }

    /// Stores a tree's directories and returns the root.
    pub fn tree(&self, tree: &Tree) -> Digest {
        let mut emit = |encoded: kiln_trees::tree::Encoded| {
            self.put(encoded.data);
        };
        tree.encode(F, &mut emit)
    }

    pub fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        if digest.is_empty() {
            return Some(Vec::new());
        }
        self.state.lock().blobs.get(digest).cloned()
    }

    /// Makes reads of a blob block until it is called with `None`.
    pub fn withhold(&self, digest: Option<Digest>) {
        self.state.lock().withheld = digest;
    }

    async fn given(&self, digest: &Digest) {
        while self.state.lock().withheld.as_ref() == Some(digest) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    pub fn remove(&self, digest: &Digest) {
        self.state.lock().blobs.remove(digest);
    }

    /// Number of reads of a blob.
    pub fn reads(&self, digest: &Digest) -> u64 {
        self.state.lock().reads.get(digest).copied().unwrap_or(0)
    }

    pub fn largest_batch(&self) -> usize {
        self.state.lock().largest_batch
    }

    pub fn all_writes(&self) -> u64 {
        self.state.lock().writes.values().sum()
    }

    pub fn all_reads(&self) -> u64 {
        self.state.lock().reads.values().sum()
    }

    /// Number of writes of a blob.
    pub fn writes(&self, digest: &Digest) -> u64 {
        self.state.lock().writes.get(digest).copied().unwrap_or(0)
    }

    fn read_blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        *self.state.lock().reads.entry(*digest).or_default() += 1;
        self.get(digest)
    }

    fn write_blob(&self, digest: Digest, data: Vec<u8>) -> Result<(), Status> {
        if F.digest(&data) != digest {
            return Err(Status::invalid_argument(format!("the content is not `{digest}`")));
        }
        let mut state = self.state.lock();
        *state.writes.entry(digest).or_default() += 1;
        state.blobs.insert(digest, data);
        Ok(())
    }
}

fn digest(wire: Option<&reapi::Digest>) -> Result<Digest, Status> {
    Digest::required(F, wire).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn code(code: tonic::Code) -> Option<rpc::Status> {
    Some(rpc::Status { code: code as i32, ..Default::default() })
}

#[tonic::async_trait]
impl ContentAddressableStorage for Cas {
    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        let mut missing_blob_digests = request.into_inner().blob_digests;
        missing_blob_digests.retain(|wire| digest(Some(wire)).is_ok_and(|digest| self.get(&digest).is_none()));
        Ok(Response::new(reapi::FindMissingBlobsResponse { missing_blob_digests }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        let mut responses = Vec::new();
        for blob in request.into_inner().requests {
            self.write_blob(digest(blob.digest.as_ref())?, blob.data)?;
            let response = batch_update_blobs_response::Response { digest: blob.digest, status: code(tonic::Code::Ok) };
            responses.push(response);
        }
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let mut responses = Vec::new();
        let wires = request.into_inner().digests;
        {
            let mut state = self.state.lock();
            state.largest_batch = state.largest_batch.max(wires.len());
        }
        for wire in wires {
            let digest = digest(Some(&wire))?;
            let found = self.read_blob(&digest);
            self.given(&digest).await;
            let status = code(if found.is_some() { tonic::Code::Ok } else { tonic::Code::NotFound });
            responses.push(batch_read_blobs_response::Response {
                digest: Some(wire),
                data: found.unwrap_or_default(),
                status,
                ..Default::default()
            });
        }
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = tokio_stream::Empty<Result<reapi::GetTreeResponse, Status>>;

    async fn get_tree(&self, _: Request<reapi::GetTreeRequest>) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented("no trees here"))
    }

    async fn split_blob(
        &self,
        _: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        Err(Status::unimplemented("no chunks here"))
    }

    async fn splice_blob(
        &self,
        _: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("no chunks here"))
    }

    type GetChunkMappingStream = tokio_stream::Empty<Result<reapi::GetChunkMappingResponse, Status>>;

    async fn get_chunk_mapping(
        &self,
        _: Request<reapi::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(Status::unimplemented("no chunks here"))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Result<Response<reapi::RegisterChunkMappingResponse>, Status> {
        Err(Status::unimplemented("no chunks here"))
    }
}

#[tonic::async_trait]
impl ByteStream for Cas {
    type ReadStream = tokio_stream::Iter<std::vec::IntoIter<Result<ReadResponse, Status>>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let name = ReadName::parse(&request.into_inner().resource_name)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let data = self.read_blob(&name.digest).ok_or_else(|| Status::not_found("no such blob"))?;
        self.given(&name.digest).await;
        let chunks: Vec<_> = data.chunks(256 * 1024).map(|data| Ok(ReadResponse { data: data.to_vec() })).collect();
        Ok(Response::new(tokio_stream::iter(chunks)))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.ok_or_else(|| Status::invalid_argument("nothing came"))?;
        let name =
            WriteName::parse(&first.resource_name).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut data = first.data;
        while let Some(message) = messages.message().await? {
            data.extend_from_slice(&message.data);
        }
        let committed_size = data.len() as i64;
        self.write_blob(name.digest, data)?;
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented("nothing to resume here"))
    }
}
