//! `ContentAddressableStorage`: missing blobs, small blobs in batches, and whole trees.

use std::collections::HashSet;

use bytes::Bytes;
use futures::stream::BoxStream;
use kiln_proto::channel::MAX_MESSAGE_BYTES;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi::compressor;
use kiln_proto::reapi::content_addressable_storage_server::{self, ContentAddressableStorageServer};
use kiln_proto::reapi::{self, batch_read_blobs_response, batch_update_blobs_request, batch_update_blobs_response};
use kiln_proto::rpc;
use tonic::{Request, Response, Status, Streaming};

use super::MAX_BATCH_BYTES;
use super::chunks;
use super::compression::{blocking, compress, decompress};
use super::leased::Leased;
use super::oversized::Oversized;
use super::tree;
use crate::status::bad_digest;
use kiln_store::{BlobStore, Error, Stores};

/// Smaller blobs are not compressed.
const COMPRESS_FROM_BYTES: usize = 256;

/// Serves the content-addressed store.
#[derive(Debug, Clone)]
pub struct ContentAddressableStorage {
    stores: Stores,
}

impl ContentAddressableStorage {
    /// Serves these stores.
    pub fn new(stores: Stores) -> Self {
        Self { stores }
    }

    /// The service, with its limits on messages.
    pub fn server(stores: Stores) -> Oversized<ContentAddressableStorageServer<Self>> {
        let server = ContentAddressableStorageServer::new(Self::new(stores));
        Oversized(server.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
    }
}

/// The digest and the bytes of one blob of a batch.
async fn unpack(
    function: DigestFunction,
    digest: Option<&reapi::Digest>,
    request: batch_update_blobs_request::Request,
) -> Result<(Digest, Bytes), Status> {
    let digest = Digest::required(function, digest).map_err(bad_digest)?;
    match compressor::Value::try_from(request.compressor) {
        Ok(compressor::Value::Identity) => Ok((digest, request.data.into())),
        Ok(compressor::Value::Zstd) if digest.size > MAX_BATCH_BYTES => {
            let text = format!("blob `{digest}` is too large for a batch; send it by `ByteStream.Write`");
            Err(Status::invalid_argument(text))
        }
        Ok(compressor::Value::Zstd) => {
            let data = blocking(move || decompress(&request.data, digest.size as usize)).await??;
            Ok((digest, data.into()))
        }
        _ => {
            let text = format!("compressor {} is not supported; use IDENTITY or ZSTD", request.compressor);
            Err(Status::invalid_argument(text))
        }
    }
}

/// Blobs of a request that are stored together.
#[derive(Default)]
struct Batch {
    /// Where their responses are.
    places: Vec<usize>,
    blobs: Vec<(Digest, Bytes)>,
    bytes: u64,
}

impl Batch {
    /// Adds a blob. Its response has no status until it is stored.
    fn add(&mut self, at: usize, blob: (Digest, Bytes)) -> Option<rpc::Status> {
        self.bytes += blob.1.len() as u64;
        self.places.push(at);
        self.blobs.push(blob);
        None
    }

    async fn store(
        &mut self,
        store: &dyn BlobStore,
        leased: &Leased,
        responses: &mut [batch_update_blobs_response::Response],
    ) {
        let Self { places, blobs, .. } = std::mem::take(self);
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        for ((at, digest), stored) in places.into_iter().zip(&digests).zip(store.put_many(blobs).await) {
            if stored.is_ok() {
                leased.sent(digest);
            }
            responses[at].status = Some(status_of(stored.map_err(Status::from)));
        }
    }
}

/// A blob for a batch: compressed if the client accepts that and it is smaller.
async fn pack(data: Bytes, zstd: bool) -> Result<(Vec<u8>, compressor::Value), Status> {
    if zstd && data.len() >= COMPRESS_FROM_BYTES {
        let plain = data.clone();
        let encoded = blocking(move || compress(&plain)).await??;
        if encoded.len() < data.len() {
            return Ok((encoded, compressor::Value::Zstd));
        }
    }
    Ok((data.into(), compressor::Value::Identity))
}

fn function(value: i32) -> Result<DigestFunction, Status> {
    DigestFunction::from_wire(value).map_err(bad_digest)
}

fn status_of(result: Result<(), Status>) -> rpc::Status {
    match result {
        Ok(()) => rpc::Status::default(),
        Err(status) => {
            rpc::Status { code: status.code() as i32, message: status.message().to_owned(), details: Vec::new() }
        }
    }
}

fn check_batch(bytes: u64) -> Result<(), Status> {
    if bytes <= MAX_BATCH_BYTES {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "a batch of {bytes} bytes is larger than `max_batch_total_size_bytes`, which is {MAX_BATCH_BYTES}: split it, or use \
         `ByteStream`"
    )))
}

#[tonic::async_trait]
impl content_addressable_storage_server::ContentAddressableStorage for ContentAddressableStorage {
    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        let leased = Leased::of(&request);
        let request = request.into_inner();
        let function = function(request.digest_function)?;
        let digests: Vec<Digest> = request
            .blob_digests
            .iter()
            .map(|digest| Digest::from_wire(function, digest))
            .collect::<Result<_, _>>()
            .map_err(bad_digest)?;
        let mut missing = self.stores.blobs.find_missing(&digests).await?;
        let known: HashSet<Digest> = missing.iter().copied().collect();
        missing.extend(leased.only_by_sending(&digests).await?.into_iter().filter(|digest| !known.contains(digest)));
        let missing_blob_digests = missing.iter().map(Digest::to_wire).collect();
        Ok(Response::new(reapi::FindMissingBlobsResponse { missing_blob_digests }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        let leased = Leased::of(&request);
        let request = request.into_inner();
        let function = function(request.digest_function)?;
        check_batch(request.requests.iter().map(|one| one.data.len() as u64).sum())?;
        let mut batch = Batch::default();
        let mut responses = Vec::with_capacity(request.requests.len());
        for (at, mut one) in request.requests.into_iter().enumerate() {
            let digest = one.digest.take();
            let status = match unpack(function, digest.as_ref(), one).await {
                Ok(blob) => batch.add(at, blob),
                Err(status) => Some(status_of(Err(status))),
            };
            responses.push(batch_update_blobs_response::Response { digest, status });
            // What zstd unpacks to can be many times the size of the message.
            if batch.bytes >= MAX_BATCH_BYTES {
                batch.store(&*self.stores.blobs, &leased, &mut responses).await;
            }
        }
        batch.store(&*self.stores.blobs, &leased, &mut responses).await;
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let leased = Leased::of(&request);
        let request = request.into_inner();
        let function = function(request.digest_function)?;
        let sizes = request.digests.iter().map(|digest| u64::try_from(digest.size_bytes).unwrap_or(0));
        check_batch(sizes.fold(0, u64::saturating_add))?;
        let zstd = request.acceptable_compressors.contains(&(compressor::Value::Zstd as i32));
        let mut asked: Vec<Result<Digest, Status>> = Vec::with_capacity(request.digests.len());
        for digest in &request.digests {
            let digest = Digest::from_wire(function, digest).map_err(bad_digest);
            asked.push(match digest {
                Ok(digest) => leased.may_read(&digest).await.map(|()| digest),
                Err(status) => Err(status),
            });
        }
        let wanted: Vec<Digest> = asked.iter().flatten().copied().collect();
        let found = self.stores.blobs.get_many(&wanted).await;
        if leased.is_elsewhere() && (wanted.len() < asked.len() || found.iter().any(Result::is_err)) {
            return Err(Status::not_found("not all of these blobs can be read here"));
        }
        let mut found = found.into_iter();
        let mut responses = Vec::with_capacity(asked.len());
        for (wire, digest) in request.digests.into_iter().zip(asked) {
            let data = match digest {
                Ok(digest) => found.next().unwrap_or(Err(Error::NotFound { digest })).map_err(Status::from),
                Err(status) => Err(status),
            };
            let packed = match data {
                Ok(data) => pack(data, zstd).await,
                Err(status) => Err(status),
            };
            let mut response = batch_read_blobs_response::Response { digest: Some(wire), ..Default::default() };
            let status = packed.map(|(data, compressor)| {
                response.data = data;
                response.compressor = compressor as i32;
            });
            response.status = Some(status_of(status));
            responses.push(response);
        }
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = BoxStream<'static, Result<reapi::GetTreeResponse, Status>>;

    async fn get_tree(&self, request: Request<reapi::GetTreeRequest>) -> Result<Response<Self::GetTreeStream>, Status> {
        if Leased::of(&request).is_some() {
            // What a worker may read can have the form of a directory that names anything.
            return Err(Status::permission_denied("a worker reads each directory of its inputs by itself"));
        }
        let request = request.into_inner();
        let function = function(request.digest_function)?;
        let root = Digest::required(function, request.root_digest.as_ref()).map_err(bad_digest)?;
        let page = tree::Page::from_wire(request.page_size, &request.page_token)?;
        Ok(Response::new(tree::pages(self.stores.blobs.clone(), root, page).await?))
    }

    async fn split_blob(
        &self,
        request: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        let leased = Leased::of(&request);
        Ok(Response::new(chunks::split_blob(&self.stores, &request.into_inner(), &leased).await?))
    }

    type GetChunkMappingStream = chunks::Mapping;

    async fn get_chunk_mapping(
        &self,
        request: Request<reapi::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        let leased = Leased::of(&request);
        Ok(Response::new(chunks::chunk_mapping(&self.stores, &request.into_inner(), &leased).await?))
    }

    async fn splice_blob(
        &self,
        request: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        let blob = chunks::splice_blob(&self.stores, request.into_inner()).await?;
        Ok(Response::new(reapi::SpliceBlobResponse { blob_digest: Some(blob.to_wire()) }))
    }

    async fn register_chunk_mapping(
        &self,
        request: Request<Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Result<Response<reapi::RegisterChunkMappingResponse>, Status> {
        let blob = chunks::register_mapping(&self.stores, request.into_inner()).await?;
        Ok(Response::new(reapi::RegisterChunkMappingResponse { blob_digest: Some(blob.to_wire()) }))
    }
}
