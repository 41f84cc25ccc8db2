//! Uploads of blobs: individually and in batches, large ones as streams. Every blob is new to the endpoint.

use bytes::Bytes;
use kiln_proto::digest::Digest;
use kiln_proto::reapi::batch_update_blobs_request::Request;
use kiln_proto::reapi::{self, compressor};
use kiln_proto::transfer::Blob;
use tonic::Status;

use super::case::Load;
use super::endpoint::{Endpoint, status};
use super::random::Random;
use super::sizes::{self, Class};
use crate::actions::FUNCTION;

/// Maximum bytes to upload in a case, so that a fast endpoint's disk does not fill up.
const MAX_BYTES: u64 = 2 << 30;

/// Uploads of blobs of one size.
#[derive(Debug)]
pub struct Upload {
    class: Class,
    blobs_per_call: usize,
}

/// A prepared call.
#[derive(Debug)]
pub enum Ask {
    /// One blob, in a batch or as a stream, like the transfer client does.
    One(Digest, Bytes),
    /// A full batch.
    Batch(Vec<Digest>, Box<reapi::BatchUpdateBlobsRequest>),
}

impl Upload {
    /// For a class of sizes.
    pub fn new(class: Class) -> Self {
        Self { class, blobs_per_call: 1 }
    }
}

impl Load for Upload {
    type Ask = Ask;
    type Answer = Vec<Digest>;

    fn name(&self) -> String {
        self.class.name("upload")
    }

    fn checked(&self) -> &'static str {
        "after each round no blob is missing, and one that is read back has its digest"
    }

    fn lanes(&self, concurrency: usize) -> usize {
        self.class.lanes(concurrency)
    }

    fn round(&self, lanes: usize) -> usize {
        self.class.round(self.blobs_per_call, lanes)
    }

    fn most(&self) -> u64 {
        (MAX_BYTES / (self.class.size * self.blobs_per_call as u64)).max(1)
    }

    async fn set_up(&mut self, endpoint: &Endpoint, _random: &mut Random) -> Result<(), Status> {
        self.blobs_per_call = self.class.blobs_per_call(endpoint);
        Ok(())
    }

    async fn prepare(&self, endpoint: &Endpoint, random: &mut Random, count: usize) -> Result<Vec<Ask>, Status> {
        let ask = |random: &mut Random| {
            if !self.class.batched {
                let (digest, data) = random.blob(self.class.size);
                return Ask::One(digest, data);
            }
            let blobs: Vec<_> = (0..self.blobs_per_call).map(|_| random.blob(self.class.size)).collect();
            let digests = blobs.iter().map(|(digest, _)| *digest).collect();
            let requests = blobs.into_iter().map(|(digest, data)| Request {
                digest: Some(digest.to_wire()),
                data: data.into(),
                compressor: compressor::Value::Identity as i32,
            });
            let request = reapi::BatchUpdateBlobsRequest {
                instance_name: endpoint.instance.clone(),
                requests: requests.collect(),
                digest_function: FUNCTION.to_wire(),
            };
            Ask::Batch(digests, Box::new(request))
        };
        Ok((0..count).map(|_| ask(random)).collect())
    }

    async fn call(&self, endpoint: &Endpoint, ask: Ask) -> Result<Vec<Digest>, Status> {
        match ask {
            Ask::One(digest, data) => {
                endpoint.client().send(vec![(digest, Blob::Bytes(data))]).await.map_err(status)?;
                Ok(vec![digest])
            }
            Ask::Batch(digests, request) => {
                let answer = endpoint.cas().batch_update_blobs(*request).await?.into_inner();
                let refused = answer.responses.into_iter().filter_map(|one| one.status).find(|one| one.code != 0);
                match refused {
                    Some(one) => Err(Status::new(one.code.into(), one.message)),
                    None => Ok(digests),
                }
            }
        }
    }

    async fn check(&self, endpoint: &Endpoint, answers: Vec<Vec<Digest>>) -> Vec<Result<u64, Status>> {
        let digests: Vec<Digest> = answers.iter().flatten().copied().collect();
        let found = async {
            let missing = endpoint.client().find_missing(&digests).await.map_err(status)?;
            if let Some(digest) = digests.first() {
                endpoint.client().get(digest).await.map_err(status)?;
            }
            Ok::<_, Status>(missing)
        };
        match found.await {
            Ok(missing) => answers.iter().map(|sent| sizes::none_missing(sent, &missing)).collect(),
            Err(status) => answers.iter().map(|_| Err(status.clone())).collect(),
        }
    }
}
