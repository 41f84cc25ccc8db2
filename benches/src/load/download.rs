//! Downloads of blobs: individually and in batches, large ones as streams.

use bytes::Bytes;
use kiln_proto::bytestream::ReadRequest;
use kiln_proto::bytestream::byte_stream_client::ByteStreamClient;
use kiln_proto::channel::MAX_MESSAGE_BYTES;
use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use kiln_proto::resource_name::{Compression, ReadName};
use kiln_proto::transfer::Blob;
use tonic::Status;

use super::case::Load;
use super::endpoint::{Endpoint, status};
use super::random::Random;
use super::sizes::Class;
use crate::actions::FUNCTION;

/// Bytes of blobs that are stored, to be read repeatedly in any order.
const STORED_BYTES: u64 = 128 << 20;
/// Maximum number of stored blobs.
const STORED_BLOBS: u64 = 16_384;

/// Downloads of blobs of one size.
#[derive(Debug)]
pub struct Download {
    class: Class,
    calls: Option<u64>,
    blobs_per_call: usize,
    stored: Vec<Digest>,
}

/// A downloaded blob: its digest, and its bytes in pieces as received.
pub type Read = (Digest, Vec<Vec<u8>>);

impl Download {
    /// For a class of sizes; if the number of calls is given, no more blobs are stored than they read.
    pub fn new(class: Class, calls: Option<u64>) -> Self {
        Self { class, calls, blobs_per_call: 1, stored: Vec::new() }
    }
}

/// Stores new blobs; returns their digests.
pub async fn store(endpoint: &Endpoint, random: &mut Random, count: u64, size: u64) -> Result<Vec<Digest>, Status> {
    let mut stored = Vec::new();
    while (stored.len() as u64) < count {
        let some = (count - stored.len() as u64).min((STORED_BYTES / size).max(1));
        let blobs: Vec<(Digest, Bytes)> = (0..some).map(|_| random.blob(size)).collect();
        stored.extend(blobs.iter().map(|(digest, _)| *digest));
        let blobs = blobs.into_iter().map(|(digest, data)| (digest, Blob::Bytes(data))).collect();
        endpoint.client().send(blobs).await.map_err(status)?;
    }
    Ok(stored)
}

/// Reads blobs in one batch call, without checking them.
pub async fn read_batch(endpoint: &Endpoint, digests: &[Digest]) -> Result<Vec<Read>, Status> {
    let request = reapi::BatchReadBlobsRequest {
        instance_name: endpoint.instance.clone(),
        digests: digests.iter().map(Digest::to_wire).collect(),
        acceptable_compressors: Vec::new(),
        digest_function: FUNCTION.to_wire(),
    };
    let answer = endpoint.cas().batch_read_blobs(request).await?.into_inner();
    let found = answer.responses.into_iter().map(|one| {
        if let Some(status) = one.status.filter(|status| status.code != 0) {
            return Err(Status::new(status.code.into(), status.message));
        }
        let digest = Digest::required(FUNCTION, one.digest.as_ref())
            .map_err(|error| Status::internal(format!("an answer is malformed: {error}")))?;
        Ok((digest, vec![one.data]))
    });
    let found: Vec<Read> = found.collect::<Result<_, _>>()?;
    if found.len() == digests.len() {
        return Ok(found);
    }
    Err(Status::data_loss(format!("{} of {} blobs of a batch came back", found.len(), digests.len())))
}

async fn read_stream(endpoint: &Endpoint, digest: Digest) -> Result<Read, Status> {
    let name = ReadName { instance: endpoint.instance.clone(), digest, compression: Compression::Identity };
    let request = ReadRequest { resource_name: name.to_string(), read_offset: 0, read_limit: 0 };
    let mut streams = ByteStreamClient::new(endpoint.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut chunks = streams.read(request).await?.into_inner();
    let mut pieces = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        pieces.push(chunk.data);
    }
    Ok((digest, pieces))
}

/// The total bytes of blobs that were read, after checking their hashes.
pub fn hashed(read: &[Read]) -> Result<u64, Status> {
    for (digest, pieces) in read {
        let mut hasher = FUNCTION.hasher();
        pieces.iter().for_each(|piece| hasher.update(piece));
        let found = hasher.finish();
        if found != *digest {
            return Err(Status::data_loss(format!("blob `{digest}` came back as `{found}`")));
        }
    }
    Ok(read.iter().map(|(digest, _)| digest.size).sum())
}

impl Load for Download {
    type Ask = Vec<Digest>;
    type Answer = Vec<Read>;

    fn name(&self) -> String {
        self.class.name("download")
    }

    fn checked(&self) -> &'static str {
        "every blob that comes back has its digest"
    }

    fn lanes(&self, concurrency: usize) -> usize {
        self.class.lanes(concurrency)
    }

    fn round(&self, lanes: usize) -> usize {
        self.class.round(self.blobs_per_call, lanes)
    }

    async fn set_up(&mut self, endpoint: &Endpoint, random: &mut Random) -> Result<(), Status> {
        self.blobs_per_call = self.class.blobs_per_call(endpoint);
        let read = self.calls.map_or(u64::MAX, |calls| calls.max(self.blobs_per_call as u64));
        let count = (STORED_BYTES / self.class.size).clamp(1, STORED_BLOBS).min(read);
        self.stored = store(endpoint, random, count, self.class.size).await?;
        Ok(())
    }

    async fn prepare(
        &self,
        _endpoint: &Endpoint,
        random: &mut Random,
        count: usize,
    ) -> Result<Vec<Vec<Digest>>, Status> {
        // A batch is a run of neighbours, so it contains no blob twice.
        let ask = |random: &mut Random| {
            let from = random.below(self.stored.len());
            let run = self.stored.iter().cycle().skip(from).take(self.blobs_per_call.min(self.stored.len()));
            run.copied().collect()
        };
        Ok((0..count).map(|_| ask(random)).collect())
    }

    async fn call(&self, endpoint: &Endpoint, ask: Vec<Digest>) -> Result<Vec<Read>, Status> {
        match ask.as_slice() {
            [digest] if self.class.is_streamed() => Ok(vec![read_stream(endpoint, *digest).await?]),
            digests => read_batch(endpoint, digests).await,
        }
    }

    async fn check(&self, _endpoint: &Endpoint, answers: Vec<Vec<Read>>) -> Vec<Result<u64, Status>> {
        answers.iter().map(|read| hashed(read)).collect()
    }
}
