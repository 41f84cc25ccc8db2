//! `FindMissingBlobs`: batches of which half are missing.

use std::collections::HashSet;

use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use tonic::Status;

use super::case::Load;
use super::download::store;
use super::endpoint::Endpoint;
use super::random::Random;
use crate::actions::FUNCTION;

/// Number of stored blobs.
const STORED: u64 = 5_000;
/// Size of each.
const BYTES: u64 = 64;

/// Numbers of digests in a call.
pub const BATCHES: [usize; 3] = [1, 100, 10_000];

/// Calls with a fixed number of digests.
#[derive(Debug)]
pub struct FindMissing {
    digests: usize,
    stored: Vec<Digest>,
}

/// The missing digests, with the call or the answer.
pub type Missing<T> = (HashSet<String>, T);

impl FindMissing {
    /// With this many digests in each call.
    pub fn new(digests: usize) -> Self {
        Self { digests, stored: Vec::new() }
    }
}

impl Load for FindMissing {
    type Ask = Missing<reapi::FindMissingBlobsRequest>;
    type Answer = Missing<reapi::FindMissingBlobsResponse>;

    fn name(&self) -> String {
        format!("find-missing-{}", self.digests)
    }

    fn checked(&self) -> &'static str {
        "exactly the half that nobody stored is missing"
    }

    fn round(&self, lanes: usize) -> usize {
        (200_000 / self.digests).clamp(lanes * 2, 4096.max(lanes * 2))
    }

    async fn set_up(&mut self, endpoint: &Endpoint, random: &mut Random) -> Result<(), Status> {
        self.stored = store(endpoint, random, STORED, BYTES).await?;
        Ok(())
    }

    async fn prepare(&self, endpoint: &Endpoint, random: &mut Random, count: usize) -> Result<Vec<Self::Ask>, Status> {
        let ask = |number: usize| {
            let from = random.below(self.stored.len());
            let mut there = self.stored.iter().cycle().skip(from);
            let mut missing = HashSet::new();
            let digests = (0..self.digests).map(|place| {
                // Alternates, including calls with a single digest.
                if let (0, Some(digest)) = ((number + place) % 2, there.next()) {
                    return digest.to_wire();
                }
                let digest = random.digest(BYTES).to_wire();
                missing.insert(digest.hash.clone());
                digest
            });
            let request = reapi::FindMissingBlobsRequest {
                instance_name: endpoint.instance.clone(),
                blob_digests: digests.collect(),
                digest_function: FUNCTION.to_wire(),
            };
            (missing, request)
        };
        Ok((0..count).map(ask).collect())
    }

    async fn call(&self, endpoint: &Endpoint, (missing, request): Self::Ask) -> Result<Self::Answer, Status> {
        Ok((missing, endpoint.cas().find_missing_blobs(request).await?.into_inner()))
    }

    async fn check(&self, _endpoint: &Endpoint, answers: Vec<Self::Answer>) -> Vec<Result<u64, Status>> {
        let one = |(expected, answer): Self::Answer| {
            let found: HashSet<String> = answer.missing_blob_digests.into_iter().map(|digest| digest.hash).collect();
            if found == expected {
                return Ok(0);
            }
            let words = format!("expected {} blobs to be missing, found {}", expected.len(), found.len());
            Err(Status::data_loss(words))
        };
        answers.into_iter().map(one).collect()
    }
}
