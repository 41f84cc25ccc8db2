//! Coordinators that behave well or badly, as real servers.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
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
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

pub const F: DigestFunction = DigestFunction::Sha256;

/// How a coordinator answers reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Right,
    /// Other bytes of the same length.
    Wrong,
    /// More bytes than the blob has, without an end.
    Endless,
    /// Nothing, ever.
    Silent,
    /// Nothing to the first question about a blob.
    SilentAtFirst,
    /// A byte a second.
    Trickling,
    /// Nothing is there.
    Lacking,
    /// The half, and then the connection is lost.
    Breaking,
    /// The half, as if that were all.
    Short,
    Unavailable,
}

/// All manners but the right one.
pub const BAD: [Manner; 8] = [
    Manner::Wrong,
    Manner::Endless,
    Manner::Silent,
    Manner::Trickling,
    Manner::Lacking,
    Manner::Breaking,
    Manner::Short,
    Manner::Unavailable,
];

/// A coordinator.
#[derive(Clone)]
pub struct Coordinator {
    pub url: String,
    pub port: u16,
    state: Arc<State>,
}

struct State {
    manner: Manner,
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Digests of all reads.
    reads: Mutex<Vec<String>>,
    calls: Mutex<Vec<(String, Option<String>)>>,
    asked: Mutex<HashSet<String>>,
}

impl Coordinator {
    pub async fn start(manner: Manner, blobs: &[&[u8]]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let blobs = blobs.iter().map(|blob| (F.digest(blob).hex(), blob.to_vec())).collect();
        let state = Arc::new(State {
            manner,
            blobs: Mutex::new(blobs),
            reads: Mutex::default(),
            calls: Mutex::default(),
            asked: Mutex::default(),
        });
        let coordinator = Self { url: format!("http://127.0.0.1:{port}"), port, state };
        let (cas, streams) = (Cas(coordinator.clone()), Cas(coordinator.clone()));
        let server = tonic::transport::Server::builder()
            .add_service(ContentAddressableStorageServer::new(cas).max_encoding_message_size(64 << 20))
            .add_service(ByteStreamServer::new(streams))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        coordinator
    }

    /// The digests of all reads so far.
    pub fn reads(&self) -> Vec<String> {
        self.state.reads.lock().unwrap().clone()
    }

    /// The names and tokens of all other calls so far.
    pub fn calls(&self) -> Vec<(String, Option<String>)> {
        self.state.calls.lock().unwrap().clone()
    }

    pub fn has(&self, digest: &Digest) -> bool {
        self.state.blobs.lock().unwrap().contains_key(&digest.hex())
    }

    fn called<T>(&self, name: &str, request: &Request<T>) -> Result<(), Status> {
        let token = request.metadata().get("authorization").map(|token| token.to_str().unwrap().to_owned());
        self.state.calls.lock().unwrap().push((name.to_owned(), token));
        match self.state.manner {
            Manner::Unavailable => Err(Status::unavailable("it is shutting down")),
            _ => Ok(()),
        }
    }

    /// What it sends for a blob.
    async fn read(&self, digest: &str) -> Result<Vec<u8>, Status> {
        self.state.reads.lock().unwrap().push(digest.to_owned());
        let data = self.state.blobs.lock().unwrap().get(digest).cloned().ok_or_else(|| Status::not_found("no blob"))?;
        let is_first = self.state.asked.lock().unwrap().insert(digest.to_owned());
        match self.state.manner {
            Manner::Lacking => Err(Status::not_found("no blob")),
            Manner::Unavailable => Err(Status::unavailable("it is shutting down")),
            Manner::Wrong => Ok(data.iter().map(|byte| !byte).collect()),
            Manner::Silent => std::future::pending().await,
            Manner::SilentAtFirst if is_first => std::future::pending().await,
            _ => Ok(data),
        }
    }
}

/// An address that accepts connections and never answers.
pub async fn black_hole() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    url
}

/// An address at which nobody listens.
pub async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

struct Cas(Coordinator);

#[tonic::async_trait]
impl ContentAddressableStorage for Cas {
    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        self.0.called("find", &request)?;
        let mut missing = request.into_inner().blob_digests;
        missing.retain(|digest| !self.0.state.blobs.lock().unwrap().contains_key(&digest.hash));
        Ok(Response::new(reapi::FindMissingBlobsResponse { missing_blob_digests: missing }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        self.0.called("update", &request)?;
        let mut responses = Vec::new();
        for blob in request.into_inner().requests {
            self.0.state.blobs.lock().unwrap().insert(blob.digest.clone().unwrap().hash, blob.data);
            let status = Some(rpc::Status::default());
            responses.push(batch_update_blobs_response::Response { digest: blob.digest, status });
        }
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let mut responses = Vec::new();
        for digest in request.into_inner().digests {
            let found = self.0.read(&digest.hash).await;
            let code = found.as_ref().err().map_or(tonic::Code::Ok, Status::code);
            let mut data = match code {
                tonic::Code::Ok | tonic::Code::NotFound => found.unwrap_or_default(),
                _ => found?,
            };
            match self.0.state.manner {
                // An answer to one question comes as a whole or not at all.
                Manner::Trickling => std::future::pending().await,
                Manner::Breaking => return Err(Status::unavailable("the connection is lost")),
                Manner::Short => continue,
                Manner::Endless => data.push(0),
                _ => {}
            }
            let status = Some(rpc::Status { code: code.into(), ..Default::default() });
            responses.push(batch_read_blobs_response::Response {
                digest: Some(digest),
                data,
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
    type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let name = ReadName::parse(&request.resource_name).unwrap();
        let data = self.0.read(&name.digest.hex()).await?;
        let offset = usize::try_from(request.read_offset).unwrap();
        let half = data.len() / 2;
        let end =
            if matches!(self.0.state.manner, Manner::Breaking | Manner::Short) { half.max(offset) } else { data.len() };
        let piece = if self.0.state.manner == Manner::Trickling { 1 } else { 256 << 10 };
        let pieces: Vec<Vec<u8>> = data[offset..end].chunks(piece).map(<[u8]>::to_vec).collect();
        let pieces = stream::iter(pieces).map(|data| Ok(ReadResponse { data }));
        Ok(Response::new(match self.0.state.manner {
            Manner::Trickling => pieces
                .then(|piece| async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    piece
                })
                .boxed(),
            Manner::Breaking => {
                pieces.chain(stream::iter([Err(Status::unavailable("the connection is lost"))])).boxed()
            }
            Manner::Endless => {
                let more = stream::repeat_with(|| Ok(ReadResponse { data: vec![0; 1 << 10] }));
                pieces.chain(more).boxed()
            }
            _ => pieces.boxed(),
        }))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        self.0.called("write", &request)?;
        let mut messages = request.into_inner();
        let first = messages.message().await?.unwrap();
        let name = WriteName::parse(&first.resource_name).unwrap();
        let mut data = first.data;
        while let Some(message) = messages.message().await? {
            data.extend_from_slice(&message.data);
        }
        let committed_size = data.len() as i64;
        self.0.state.blobs.lock().unwrap().insert(name.digest.hex(), data);
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented("nothing to resume here"))
    }
}
