//! Uploads: missing blobs are sent, small ones in batches, large ones as streams or in chunks.

use std::collections::HashMap;
use std::io::{Read, SeekFrom};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::{
    Blob, CHUNK_BYTES, CHUNKED_FROM_BYTES, CONCURRENCY, Client, Error, Moved, STREAM_FROM_BYTES, batches, check, total,
    upload_id,
};
use crate::bytestream::WriteRequest;
use crate::digest::{Digest, DigestFunction};
use crate::meter::Meter;
use crate::reapi;
use crate::resource_name::{Compression, WriteName};

impl Client {
    /// Uploads the blobs that the farm lacks. Duplicates are allowed.
    pub async fn upload(&self, blobs: Vec<(Digest, Blob)>) -> Result<Moved, Error> {
        let unique: HashMap<Digest, Blob> = blobs.into_iter().filter(|(digest, _)| !digest.is_empty()).collect();
        let digests: Vec<Digest> = unique.keys().copied().collect();
        let missing = self.find_missing(&digests).await?;
        let (wanted, there): (Vec<_>, Vec<_>) = unique.into_iter().partition(|(digest, _)| missing.contains(digest));
        self.meter.restart(0);
        let mut moved = self.send(wanted).await?;
        moved.reused_bytes = moved.reused_bytes.saturating_add(total(there.iter().map(|(digest, _)| digest.size)));
        Ok(moved)
    }

    /// Uploads blobs whole, also those that the farm has: it learns that the caller has them. Duplicates are allowed.
    pub async fn send_whole(&self, blobs: Vec<(Digest, Blob)>) -> Result<(), Error> {
        let unique: HashMap<Digest, Blob> = blobs.into_iter().filter(|(digest, _)| !digest.is_empty()).collect();
        let (large, small): (Vec<_>, Vec<_>) =
            unique.into_iter().partition(|(digest, _)| digest.size >= STREAM_FROM_BYTES);
        let batches: Vec<_> = batches(small).into_iter().map(|batch| self.send_batch(batch)).collect();
        let batches = stream::iter(batches).buffer_unordered(CONCURRENCY);
        let larges: Vec<_> = large.into_iter().map(|(digest, blob)| self.send_stream(digest, blob)).collect();
        let larges = stream::iter(larges).buffer_unordered(CONCURRENCY);
        futures::try_join!(batches.try_collect::<()>(), larges.try_collect::<()>()).map(drop)
    }

    /// Uploads blobs without asking which are missing.
    pub async fn send(&self, blobs: Vec<(Digest, Blob)>) -> Result<Moved, Error> {
        Ok(self.send_noting(blobs).await?.0)
    }

    /// The same, and which blobs were sent as chunks, some of which the farm had.
    pub(super) async fn send_noting(&self, blobs: Vec<(Digest, Blob)>) -> Result<(Moved, Vec<Digest>), Error> {
        let blob_count = blobs.len() as u64;
        let bytes = total(blobs.iter().map(|(digest, _)| digest.size));
        self.meter.expect(bytes);
        let (large, small): (Vec<_>, Vec<_>) =
            blobs.into_iter().partition(|(digest, _)| digest.size >= STREAM_FROM_BYTES);
        let batches: Vec<_> = batches(small).into_iter().map(|batch| self.send_batch(batch)).collect();
        let batches = stream::iter(batches).buffer_unordered(CONCURRENCY);
        let larges: Vec<_> = large.into_iter().map(|(digest, blob)| self.send_large(digest, blob)).collect();
        let larges = stream::iter(larges).buffer_unordered(CONCURRENCY);
        let spared = larges.try_fold((0_u64, Vec::new()), |(sum, mut chunked), spared| async move {
            let Some((digest, spared)) = spared else { return Ok((sum, chunked)) };
            chunked.push(digest);
            Ok((sum.saturating_add(spared), chunked))
        });
        let ((), (spared, chunked)) = futures::try_join!(batches.try_collect::<()>(), spared)?;
        let moved = Moved { blobs: blob_count, bytes: bytes.saturating_sub(spared), reused_bytes: spared };
        Ok((moved, chunked))
    }

    /// Uploads a large blob, in chunks if the farm has a similar one: then it is returned, with the bytes that were not sent.
    async fn send_large(&self, digest: Digest, blob: Blob) -> Result<Option<(Digest, u64)>, Error> {
        if digest.size < CHUNKED_FROM_BYTES {
            self.send_stream(digest, blob).await?;
            return Ok(None);
        }
        if let Some(sent) = self.send_chunks(&digest, &blob).await? {
            let spared = digest.size.saturating_sub(sent);
            self.meter.advance(spared);
            return Ok(Some((digest, spared)));
        }
        self.send_stream(digest, blob).await?;
        self.have_split(&digest);
        Ok(None)
    }

    pub(super) async fn send_batch(&self, batch: Vec<(Digest, Blob)>) -> Result<(), Error> {
        let function = self.function;
        let bytes = batch.iter().map(|(digest, _)| digest.size).sum();
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
        self.meter.advance(bytes);
        Ok(())
    }

    async fn send_stream(&self, digest: Digest, blob: Blob) -> Result<(), Error> {
        // Of several coordinators, the next one is called after one that was gone.
        for _ in 1..self.source_count() {
            match self.send_stream_once(digest, blob.clone()).await {
                Err(error) if error.is_connection() => {
                    tracing::debug!(%error, %digest, "sending a blob to the next coordinator");
                }
                ended => return ended,
            }
        }
        self.send_stream_once(digest, blob).await
    }

    async fn send_stream_once(&self, digest: Digest, blob: Blob) -> Result<(), Error> {
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
        let feed = feed(name, digest, blob, sender, &self.meter);
        let (answer, fed) = tokio::join!(call, feed);
        fed?;
        let committed = answer?.into_inner().committed_size;
        if committed == digest.size as i64 || committed == -1 {
            Ok(())
        } else {
            let text = format!("the farm stored {committed} of {} bytes of `{digest}`", digest.size);
            Err(tonic::Status::data_loss(text).into())
        }
    }
}

/// Feeds a write stream. A closed receiver is not an error here: the call's own result explains it.
async fn feed(
    name: String,
    digest: Digest,
    blob: Blob,
    sender: tokio::sync::mpsc::Sender<WriteRequest>,
    meter: &Meter,
) -> Result<(), Error> {
    let mut offset = 0_u64;
    let mut name = Some(name);
    let mut message = |data: Vec<u8>| {
        let request = WriteRequest {
            resource_name: name.take().unwrap_or_default(),
            write_offset: offset as i64,
            finish_write: offset.saturating_add(data.len() as u64) == digest.size,
            data,
        };
        offset = offset.saturating_add(request.data.len() as u64);
        request
    };
    match &blob {
        Blob::Bytes(bytes) => {
            for chunk in bytes.chunks(CHUNK_BYTES) {
                if sender.send(message(chunk.to_vec())).await.is_err() {
                    return Ok(());
                }
                meter.advance(chunk.len() as u64);
            }
        }
        Blob::File(path) | Blob::Part(path, _) => {
            let failed = |source| Error::File { path: path.clone(), source };
            let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
            file.set_max_buf_size(CHUNK_BYTES);
            if let Blob::Part(_, start) = &blob {
                file.seek(SeekFrom::Start(*start)).await.map_err(failed)?;
            }
            let mut left = digest.size;
            while left > 0 {
                let mut data = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES)];
                if let Err(source) = file.read_exact(&mut data).await {
                    if source.kind() != std::io::ErrorKind::UnexpectedEof {
                        return Err(failed(source));
                    }
                    let found = Digest { size: digest.size.saturating_sub(left), ..digest };
                    return Err(Error::Changed { path: path.clone(), expected: digest, found });
                }
                let count = data.len() as u64;
                left = left.saturating_sub(count);
                if sender.send(message(data)).await.is_err() {
                    return Ok(());
                }
                meter.advance(count);
            }
        }
    }
    Ok(())
}
fn read_small(
    function: DigestFunction,
    digest: Digest,
    blob: Blob,
) -> Result<reapi::batch_update_blobs_request::Request, Error> {
    let mut data = Vec::with_capacity(usize::try_from(digest.size).unwrap_or(0));
    // One byte more than a complete file has, to detect one that has grown.
    let limit = if matches!(blob, Blob::Part(..)) { digest.size } else { digest.size.saturating_add(1) };
    blob.reader(0, limit)?.read_to_end(&mut data).map_err(|source| blob.failed(source))?;
    if let Blob::File(path) | Blob::Part(path, _) = blob {
        let found = function.digest(&data);
        if found != digest {
            return Err(Error::Changed { path, expected: digest, found });
        }
    }
    Ok(reapi::batch_update_blobs_request::Request {
        digest: Some(digest.to_wire()),
        data,
        compressor: reapi::compressor::Value::Identity as i32,
    })
}
