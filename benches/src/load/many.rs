//! Many small blobs, as when a worker or a client reads a dependency layer: 30,000 of 2 KiB, in batches.

use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::digest::Digest;
use tonic::Status;

use super::case::Load;
use super::download::{Read, hashed, read_batch, store};
use super::endpoint::Endpoint;
use super::random::Random;

/// Number of blobs.
const BLOBS: u64 = 30_000;
/// Size of each.
const BYTES: u64 = 2 << 10;

/// Each call of this case reads all blobs once: its latency is the total time.
#[derive(Debug)]
pub struct ReadMany {
    concurrency: usize,
    stored: Vec<Digest>,
}

impl ReadMany {
    /// With this many concurrent batches.
    pub fn new(concurrency: usize) -> Self {
        Self { concurrency, stored: Vec::new() }
    }
}

impl Load for ReadMany {
    type Ask = Vec<Vec<Digest>>;
    type Answer = Vec<Read>;

    fn name(&self) -> String {
        "read-30000-of-2KiB".to_owned()
    }

    fn checked(&self) -> &'static str {
        "each operation is one pass over all 30,000; every blob that comes back has its digest"
    }

    fn lanes(&self, _concurrency: usize) -> usize {
        1
    }

    fn calls_at_once(&self, _concurrency: usize) -> usize {
        self.concurrency
    }

    fn round(&self, _lanes: usize) -> usize {
        1
    }

    async fn set_up(&mut self, endpoint: &Endpoint, random: &mut Random) -> Result<(), Status> {
        self.stored = store(endpoint, random, BLOBS, BYTES).await?;
        Ok(())
    }

    async fn prepare(
        &self,
        endpoint: &Endpoint,
        _random: &mut Random,
        count: usize,
    ) -> Result<Vec<Vec<Vec<Digest>>>, Status> {
        let per_batch = usize::try_from(endpoint.batch_bytes / BYTES).unwrap_or(1).max(1);
        let batches: Vec<Vec<Digest>> = self.stored.chunks(per_batch).map(<[Digest]>::to_vec).collect();
        Ok(vec![batches; count])
    }

    async fn call(&self, endpoint: &Endpoint, batches: Vec<Vec<Digest>>) -> Result<Vec<Read>, Status> {
        let calls: Vec<_> = batches
            .into_iter()
            .enumerate()
            .map(|(number, batch)| {
                let endpoint = endpoint.lane(number);
                async move { read_batch(&endpoint, &batch).await }
            })
            .collect();
        let read: Vec<Vec<Read>> = stream::iter(calls).buffer_unordered(self.concurrency).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }

    async fn check(&self, _endpoint: &Endpoint, answers: Vec<Vec<Read>>) -> Vec<Result<u64, Status>> {
        answers.iter().map(|read| hashed(read)).collect()
    }
}
