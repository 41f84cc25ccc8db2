//! Execute: latency of one action after another, and throughput of many distinct ones at once.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::{StreamExt, stream};
use kiln_proto::digest::DigestFunction;
use kiln_proto::longrunning::operation::Result as OperationResult;
use kiln_proto::reapi;
use kiln_proto::reapi::execution_client::ExecutionClient;
use kiln_proto::transfer::{Blob, Client};
use prost::Message;
use tonic::transport::Channel;

use crate::report::{Figure, Latencies};

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// Runs `count` distinct actions of `/bin/true`, `concurrency` at once.
pub async fn noop(channel: &Channel, count: u32, concurrency: usize) -> anyhow::Result<Vec<Figure>> {
    let salt: u64 = rand::random();
    let mut blobs = vec![blob(&reapi::Directory::default())];
    let mut actions = Vec::new();
    for index in 0..count {
        let command = reapi::Command { arguments: vec!["/bin/true".into()], ..Default::default() };
        let action = reapi::Action {
            command_digest: Some(FUNCTION.digest_message(&command).to_wire()),
            input_root_digest: Some(FUNCTION.digest_message(&reapi::Directory::default()).to_wire()),
            salt: [salt.to_le_bytes().as_slice(), &index.to_le_bytes()].concat(),
            ..Default::default()
        };
        blobs.push(blob(&command));
        blobs.push(blob(&action));
        actions.push(FUNCTION.digest_message(&action));
    }
    Client::new(channel.clone(), "", FUNCTION).upload(blobs).await?;

    let began = Instant::now();
    let took: Vec<Duration> = stream::iter(actions)
        .map(|digest| execute(channel.clone(), digest))
        .buffer_unordered(concurrency)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<anyhow::Result<_>>()?;
    let wall = began.elapsed();
    let mut latencies = Latencies::default();
    took.into_iter().for_each(|took| latencies.record(took));
    let name = format!("/bin/true, {concurrency} at once");
    let mut figures = latencies.figures(&name);
    figures.push(Figure::new(format!("{name}, throughput"), f64::from(count) / wall.as_secs_f64(), "actions/s"));
    Ok(figures)
}

fn blob(message: &impl Message) -> (kiln_proto::digest::Digest, Blob) {
    (FUNCTION.digest_message(message), Blob::Bytes(message.encode_to_vec().into()))
}

async fn execute(channel: Channel, action: kiln_proto::digest::Digest) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let request = reapi::ExecuteRequest {
        action_digest: Some(action.to_wire()),
        digest_function: FUNCTION.to_wire(),
        ..Default::default()
    };
    let mut operations = ExecutionClient::new(channel).execute(request).await?.into_inner();
    while let Some(operation) = operations.message().await? {
        if !operation.done {
            continue;
        }
        let Some(OperationResult::Response(any)) = operation.result else {
            bail!("an operation ended without response")
        };
        let response = reapi::ExecuteResponse::decode(any.value.as_slice())?;
        let result = response.result.context("a response without result")?;
        if result.exit_code != 0 || response.cached_result {
            bail!("expected a fresh exit 0, found {} (cached: {})", result.exit_code, response.cached_result);
        }
        return Ok(began.elapsed());
    }
    bail!("the stream of an operation ended before it was done")
}
