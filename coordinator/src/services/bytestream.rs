//! `google.bytestream.ByteStream`: blobs of any size in pieces, and the live output of running actions.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use kiln_proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
    byte_stream_server,
};
use kiln_proto::digest::Digest;
use kiln_proto::resource_name::{Compression, ReadName, WriteName};
use tonic::{Request, Response, Status, Streaming};

use super::compression::{Decompressor, blocking, compressed};
use super::leased::Leased;
use super::uploads::{Hold, Uploads};
use crate::status::bad_resource_name;
use kiln_execution::log::ReadLogs;
use kiln_store::Stores;

/// Reads and writes blobs as streams.
#[derive(Clone)]
pub struct ByteStream {
    stores: Stores,
    logs: Arc<dyn ReadLogs>,
    uploads: Arc<Uploads>,
    idle_timeout: Duration,
}

/// Time limit for the next message of an upload.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Maximum number of messages without data in one upload.
const MAX_EMPTY_MESSAGES: u32 = 10_000;

/// Maximum bytes to receive for a blob: zstd's frame and block headers add little.
fn most_on_the_wire(name: &WriteName) -> u64 {
    match name.compression {
        // The store knows the blob's size.
        Compression::Identity => u64::MAX,
        Compression::Zstd => name.digest.size.saturating_mul(4).saturating_add(1 << 20),
    }
}

impl ByteStream {
    /// Serves these stores and logs.
    pub fn new(stores: Stores, logs: Arc<dyn ReadLogs>) -> Self {
        Self { stores, logs, uploads: Arc::default(), idle_timeout: IDLE_TIMEOUT }
    }

    /// Sets how long an upload's stream may be silent; the default is 10 minutes.
    #[must_use]
    pub fn with_idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout, ..self }
    }

    /// Sets the maximum number of uploads, including those that wait for their client.
    #[must_use]
    pub fn with_uploads(self, most: usize) -> Self {
        Self { uploads: Arc::new(Uploads::at_most(most)), ..self }
    }

    async fn is_stored(&self, digest: &Digest) -> Result<bool, Status> {
        Ok(self.stores.blobs.find_missing(std::slice::from_ref(digest)).await?.is_empty())
    }

    async fn read_blob(&self, request: &ReadRequest, leased: &Leased) -> Result<ReadStream, Status> {
        let ReadName { digest, compression, .. } =
            ReadName::parse(&request.resource_name).map_err(bad_resource_name)?;
        leased.may_read(&digest).await?;
        let offset = offset(request.read_offset)?;
        let limit = match u64::try_from(request.read_limit) {
            Ok(0) => None,
            Ok(limit) => Some(limit),
            Err(_) => {
                let text = format!("read limit {} is negative; expected 0 (none) or more", request.read_limit);
                return Err(Status::invalid_argument(text));
            }
        };
        match compression {
            Compression::Identity => {
                let pieces = self.stores.blobs.read(&digest, offset, limit).await?;
                Ok(pieces.map(|piece| piece.map(response).map_err(Status::from)).boxed())
            }
            Compression::Zstd if limit.is_some() => {
                Err(Status::invalid_argument("a compressed read has no limit; leave `read_limit` at 0"))
            }
            Compression::Zstd => {
                let pieces = compressed(self.stores.blobs.read(&digest, offset, None).await?)?;
                Ok(pieces.map(|piece| piece.map(response)).boxed())
            }
        }
    }

    fn read_log(&self, request: &ReadRequest) -> Result<ReadStream, Status> {
        let name = &request.resource_name;
        let pieces = self
            .logs
            .open(name)
            .ok_or_else(|| Status::not_found(format!("no running action has the output `{name}`; see its result")))?;
        let mut skip = offset(request.read_offset)?;
        let rest = pieces.filter_map(move |mut piece| {
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            let _ = piece.split_to(skipped as usize);
            std::future::ready((!piece.is_empty()).then(|| Ok(response(piece))))
        });
        Ok(rest.boxed())
    }

    /// The next message, within the time limit. A client that is silent for too long keeps what was committed, and may
    /// continue with another stream.
    async fn next(&self, messages: &mut Streaming<WriteRequest>) -> Result<Option<WriteRequest>, Status> {
        let silent = |_| {
            let seconds = self.idle_timeout.as_secs_f32();
            Status::deadline_exceeded(format!("no message of this upload for {seconds} s; continue with a new stream"))
        };
        tokio::time::timeout(self.idle_timeout, messages.message()).await.map_err(silent)?
    }

    /// Receives a stream's messages until the upload is complete or the stream ends.
    async fn receive(
        &self,
        first: WriteRequest,
        name: &WriteName,
        mut messages: Streaming<WriteRequest>,
        leased: &Leased,
    ) -> Result<WriteResponse, Status> {
        let mut sink = Sink::begin(&self.uploads, &self.stores, &first, name).await?;
        let begun = offset(first.write_offset)?;
        let resource = first.resource_name.clone();
        let mut received = 0_u64;
        let mut empty = 0_u32;
        let mut finished = false;
        let mut next = Some(first);
        while let Some(message) = next {
            if finished {
                return Err(Status::invalid_argument("a message came after `finish_write`; nothing was stored"));
            }
            if !message.resource_name.is_empty() && message.resource_name != resource {
                return Err(Status::invalid_argument("the resource name changed within one upload"));
            }
            let expected = begun + received;
            if offset(message.write_offset)? != expected {
                let text = format!("write offset {} is wrong; expected {expected}", message.write_offset);
                return Err(Status::invalid_argument(text));
            }
            received += message.data.len() as u64;
            finished = message.finish_write;
            empty += u32::from(message.data.is_empty());
            if empty > MAX_EMPTY_MESSAGES || received > most_on_the_wire(name) {
                return Err(Status::invalid_argument(format!(
                    "this upload does not end: {received} bytes and {empty} empty messages came for blob `{}`",
                    name.digest
                )));
            }
            sink.write(message.data.into()).await?;
            next = self.next(&mut messages).await?;
        }
        let covered = sink.hold.committed();
        if !finished && covered < name.digest.size {
            // The client stopped deliberately and may continue later.
            return Ok(WriteResponse { committed_size: covered as i64 });
        }
        let is_whole = sink.hold.is_whole();
        sink.hold.commit().await?;
        if is_whole {
            leased.sent(&name.digest);
        }
        let committed_size = match name.compression {
            Compression::Identity => name.digest.size as i64,
            Compression::Zstd if begun == 0 => received as i64,
            Compression::Zstd => -1,
        };
        Ok(WriteResponse { committed_size })
    }
}

/// The destination of a stream's bytes, which decompresses them if necessary.
struct Sink {
    hold: Hold,
    decompressor: Option<Decompressor>,
}

impl Sink {
    async fn begin(
        uploads: &Arc<Uploads>,
        stores: &Stores,
        first: &WriteRequest,
        name: &WriteName,
    ) -> Result<Self, Status> {
        let decompressor = match name.compression {
            Compression::Identity => None,
            Compression::Zstd => Some(Decompressor::new()?),
        };
        let at = offset(first.write_offset)?;
        Ok(Self { hold: uploads.begin(stores, &first.resource_name, &name.digest, at).await?, decompressor })
    }

    async fn write(&mut self, data: Bytes) -> Result<(), Status> {
        let Some(mut decompressor) = self.decompressor.take() else { return self.hold.write(data).await };
        decompressor.feed(data);
        loop {
            let (back, piece) = blocking(move || {
                let piece = decompressor.step();
                (decompressor, piece)
            })
            .await?;
            decompressor = back;
            match piece? {
                Some(piece) => self.hold.write(piece).await?,
                None => break,
            }
        }
        self.decompressor = Some(decompressor);
        Ok(())
    }
}

type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

fn response(data: Bytes) -> ReadResponse {
    ReadResponse { data: data.into() }
}

fn offset(value: i64) -> Result<u64, Status> {
    u64::try_from(value).map_err(|_| Status::out_of_range(format!("offset {value} is negative")))
}

fn is_log(name: &str) -> bool {
    let mut segments = name.rsplit('/');
    matches!((segments.next(), segments.next(), segments.next()), (Some("stdout" | "stderr"), Some(_), Some("logs")))
}

#[tonic::async_trait]
impl byte_stream_server::ByteStream for ByteStream {
    type ReadStream = ReadStream;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadStream>, Status> {
        let leased = Leased::of(&request);
        let request = request.into_inner();
        let pieces = match is_log(&request.resource_name) {
            // A worker has no reason to read a command's output.
            true if leased.is_some() => return Err(Status::permission_denied("a worker may not read logs")),
            true => self.read_log(&request)?,
            false => self.read_blob(&request, &leased).await?,
        };
        Ok(Response::new(pieces))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let leased = Leased::of(&request);
        let mut messages = request.into_inner();
        let first = self
            .next(&mut messages)
            .await?
            .ok_or_else(|| Status::invalid_argument("an upload without a message; expected at least one"))?;
        let name = WriteName::parse(&first.resource_name).map_err(bad_resource_name)?;
        if !leased.must_send(&name.digest) && self.is_stored(&name.digest).await? {
            let committed_size = match name.compression {
                Compression::Identity => name.digest.size as i64,
                Compression::Zstd => -1,
            };
            return Ok(Response::new(WriteResponse { committed_size }));
        }
        Ok(Response::new(self.receive(first, &name, messages, &leased).await?))
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let resource = request.into_inner().resource_name;
        let name = WriteName::parse(&resource).map_err(bad_resource_name)?;
        let complete = self.is_stored(&name.digest).await?;
        let committed = if complete { name.digest.size } else { self.uploads.committed(&resource).unwrap_or(0) };
        Ok(Response::new(QueryWriteStatusResponse { committed_size: committed as i64, complete }))
    }
}
