//! Hits in the action cache: results of distinct actions, each with an output file and standard output.

use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::channel::Channel;
use kiln_proto::channel::MAX_MESSAGE_BYTES;
use kiln_proto::digest::Digest;
use kiln_proto::reapi::action_cache_client::ActionCacheClient;
use kiln_proto::reapi::{self, OutputFile};
use tonic::Status;

use super::case::Load;
use super::endpoint::{Endpoint, status};
use super::random::Random;
use crate::actions::{self, FUNCTION, Recipe};

/// Number of distinct results.
const RESULTS: usize = 1_000;
/// Size of each output file and standard output.
const BYTES: u64 = 1 << 10;
/// Maximum concurrent uploads of results.
const STORING: usize = 16;

/// Lookups of existing results.
#[derive(Debug, Default)]
pub struct Hits {
    /// Actions with the digests of their output file and standard output.
    stored: Vec<(Digest, Named)>,
}

/// The blobs that a result names.
pub type Named = (reapi::Digest, reapi::Digest);

fn client(endpoint: &Endpoint) -> ActionCacheClient<Channel> {
    ActionCacheClient::new(endpoint.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

impl Load for Hits {
    type Ask = (Digest, Named);
    type Answer = (Named, reapi::ActionResult);

    fn name(&self) -> String {
        "action-cache-hit".to_owned()
    }

    fn checked(&self) -> &'static str {
        "each result names the output file and standard output that were stored with its action"
    }

    fn round(&self, lanes: usize) -> usize {
        8192.max(lanes)
    }

    async fn set_up(&mut self, endpoint: &Endpoint, random: &mut Random) -> Result<(), Status> {
        endpoint.must_take_results()?;
        // The empty directory is the empty blob, which every endpoint has.
        let mut recipe = Recipe::noop(Digest::empty(FUNCTION), endpoint.platform.clone());
        recipe.outputs = vec!["out".to_owned()];
        let mut blobs = Vec::new();
        let mut updates = Vec::new();
        for _ in 0..RESULTS {
            let (file, stdout) = (actions::bytes_blob(random.bytes(BYTES)), actions::bytes_blob(random.bytes(BYTES)));
            let (action, uploads) = recipe.action(&random.word());
            let named = (file.0.to_wire(), stdout.0.to_wire());
            blobs.extend([file, stdout]);
            blobs.extend(uploads);
            let result = reapi::ActionResult {
                output_files: vec![OutputFile {
                    path: "out".to_owned(),
                    digest: Some(named.0.clone()),
                    ..OutputFile::default()
                }],
                stdout_digest: Some(named.1.clone()),
                ..Default::default()
            };
            updates.push(reapi::UpdateActionResultRequest {
                instance_name: endpoint.instance.clone(),
                action_digest: Some(action.to_wire()),
                action_result: Some(result),
                digest_function: FUNCTION.to_wire(),
                ..Default::default()
            });
            self.stored.push((action, named));
        }
        endpoint.client().send(blobs).await.map_err(status)?;
        let updates: Vec<_> = updates
            .into_iter()
            .map(|update| {
                let mut client = client(endpoint);
                async move { client.update_action_result(update).await.map(drop) }
            })
            .collect();
        stream::iter(updates).buffer_unordered(STORING).try_collect::<()>().await
    }

    async fn prepare(&self, _endpoint: &Endpoint, random: &mut Random, count: usize) -> Result<Vec<Self::Ask>, Status> {
        Ok((0..count).map(|_| self.stored[random.below(self.stored.len())].clone()).collect())
    }

    async fn call(&self, endpoint: &Endpoint, (action, named): Self::Ask) -> Result<Self::Answer, Status> {
        let request = reapi::GetActionResultRequest {
            instance_name: endpoint.instance.clone(),
            action_digest: Some(action.to_wire()),
            digest_function: FUNCTION.to_wire(),
            ..Default::default()
        };
        Ok((named, client(endpoint).get_action_result(request).await?.into_inner()))
    }

    async fn check(&self, _endpoint: &Endpoint, answers: Vec<Self::Answer>) -> Vec<Result<u64, Status>> {
        let one = |((file, stdout), result): Self::Answer| {
            let found = result.output_files.first().and_then(|file| file.digest.as_ref());
            if found == Some(&file) && result.stdout_digest.as_ref() == Some(&stdout) {
                return Ok(0);
            }
            Err(Status::data_loss("a result came back that was not stored with its action"))
        };
        answers.into_iter().map(one).collect()
    }
}
