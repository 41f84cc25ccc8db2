//! Blobs in chunks on the wire: `SplitBlob`, `SpliceBlob` and their streaming forms.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi::{self, chunking_function};
use tokio::sync::Semaphore;
use tonic::{Status, Streaming};

use super::leased::Leased;
use crate::status::bad_digest;
use kiln_store::{Error, Stores};

/// Maximum number of chunks in one message: about 75 bytes each, below gRPC's usual message limit.
const MAX_IN_MESSAGE: usize = 40_000;
/// Maximum number of chunks of one blob.
const MAX_CHUNKS: usize = 1_000_000;
/// Maximum concurrent mappings, each up to about 50 MB.
static MAPPINGS: Semaphore = Semaphore::const_new(16);
/// Time limit for the next message of a mapping.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

fn digest(function: i32, wire: Option<&reapi::Digest>) -> Result<Digest, Status> {
    let function = DigestFunction::from_wire(function).map_err(bad_digest)?;
    Digest::required(function, wire).map_err(bad_digest)
}

async fn split(stores: &Stores, blob: &Digest, leased: &Leased) -> Result<Vec<reapi::Digest>, Status> {
    leased.may_read(blob).await?;
    let chunks = stores.chunks.split(blob).await?;
    leased.may_read_chunks(&chunks).await?;
    Ok(chunks.iter().map(Digest::to_wire).collect())
}

pub(super) async fn split_blob(
    stores: &Stores,
    request: &reapi::SplitBlobRequest,
    leased: &Leased,
) -> Result<reapi::SplitBlobResponse, Status> {
    let blob = digest(request.digest_function, request.blob_digest.as_ref())?;
    let chunk_digests = split(stores, &blob, leased).await?;
    if chunk_digests.len() > MAX_IN_MESSAGE {
        let text = format!(
            "blob `{blob}` has {} chunks, too many for one message; use `GetChunkMapping`",
            chunk_digests.len()
        );
        return Err(Status::resource_exhausted(text));
    }
    Ok(reapi::SplitBlobResponse { chunk_digests, chunking_function: chunking_function::Value::FastCdc2020 as i32 })
}

pub(super) type Mapping = BoxStream<'static, Result<reapi::GetChunkMappingResponse, Status>>;

pub(super) async fn chunk_mapping(
    stores: &Stores,
    request: &reapi::GetChunkMappingRequest,
    leased: &Leased,
) -> Result<Mapping, Status> {
    let blob = digest(request.digest_function, request.blob_digest.as_ref())?;
    let chunks = split(stores, &blob, leased).await?;
    let pages: Vec<_> = chunks
        .chunks(MAX_IN_MESSAGE)
        .map(|page| {
            Ok(reapi::GetChunkMappingResponse {
                chunk_digests: page.to_vec(),
                chunking_function: chunking_function::Value::FastCdc2020 as i32,
            })
        })
        .collect();
    Ok(stream::iter(pages).boxed())
}

pub(super) async fn splice_blob(stores: &Stores, request: reapi::SpliceBlobRequest) -> Result<Digest, Status> {
    let blob = digest(request.digest_function, request.blob_digest.as_ref())?;
    let chunks = read(&blob, &request.chunk_digests)?;
    splice(stores, &blob, &chunks).await
}

pub(super) async fn register_mapping(
    stores: &Stores,
    mut requests: Streaming<reapi::RegisterChunkMappingRequest>,
) -> Result<Digest, Status> {
    let _place = MAPPINGS
        .try_acquire()
        .map_err(|_| Status::resource_exhausted("too many chunk mappings are in progress; try again"))?;
    let first = next(&mut requests).await?;
    let first = first.ok_or_else(|| Status::invalid_argument("a mapping without a message; expected at least one"))?;
    let blob = digest(first.digest_function, first.blob_digest.as_ref())?;
    let mut chunks = read(&blob, &first.chunk_digests)?;
    while let Some(more) = next(&mut requests).await? {
        if chunks.len() + more.chunk_digests.len() > MAX_CHUNKS {
            return Err(too_many());
        }
        chunks.extend(read(&blob, &more.chunk_digests)?);
    }
    splice(stores, &blob, &chunks).await
}

async fn next(
    requests: &mut Streaming<reapi::RegisterChunkMappingRequest>,
) -> Result<Option<reapi::RegisterChunkMappingRequest>, Status> {
    let silent = |_| Status::deadline_exceeded(format!("no message of this mapping for {} s", IDLE_TIMEOUT.as_secs()));
    tokio::time::timeout(IDLE_TIMEOUT, requests.message()).await.map_err(silent)?
}

fn read(blob: &Digest, chunks: &[reapi::Digest]) -> Result<Vec<Digest>, Status> {
    if chunks.len() > MAX_CHUNKS {
        return Err(too_many());
    }
    chunks.iter().map(|wire| Digest::from_wire(blob.function, wire).map_err(bad_digest)).collect()
}

fn too_many() -> Status {
    Status::invalid_argument(format!(
        "a blob of more than {MAX_CHUNKS} chunks is not accepted; send it by `ByteStream.Write`"
    ))
}

async fn splice(stores: &Stores, blob: &Digest, chunks: &[Digest]) -> Result<Digest, Status> {
    let total = chunks.iter().map(|chunk| chunk.size).fold(0_u64, u64::saturating_add);
    if total != blob.size {
        let text = format!(
            "the chunks have {total} bytes in total, which is not the size of blob `{blob}`; nothing was stored"
        );
        return Err(Status::invalid_argument(text));
    }
    if stores.blobs.find_missing(&[*blob]).await?.is_empty() {
        return Err(Status::already_exists(format!("blob `{blob}` is in the store already")));
    }
    let missing = stores.blobs.find_missing(chunks).await?;
    if let Some(chunk) = missing.first() {
        return Err(Error::NotFound { digest: *chunk }.into());
    }
    stores.chunks.splice(blob, chunks).await?;
    Ok(*blob)
}
