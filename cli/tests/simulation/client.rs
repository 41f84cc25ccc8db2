//! Clients that submit builds and follow them despite faults, as `kiln build` does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_proto::channel::Channel;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::longrunning::operation::Result as OperationResult;
use kiln_proto::reapi::execution_client::ExecutionClient;
use kiln_proto::reapi::{self, ExecuteRequest};
use kiln_proto::transfer::{Blob, Client};
use kiln_proto::v1::builds_client::BuildsClient;
use kiln_proto::v1::event::Event;
use kiln_proto::v1::{self, Status as BuildStatus};
use kiln_trees::tree::{Entry, Tree};
use prost::Message;
use tonic::{Code, Status};

use crate::machine::made;
use crate::network::dial;

const SHA256: DigestFunction = DigestFunction::Sha256;
/// Pause before a retry.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a response may take before the connection counts as broken.
const SILENCE: Duration = Duration::from_secs(30);

/// What clients observed: for each request, every result that was ever reported.
pub type Seen = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

type Attempt<T> = Result<T, Status>;

async fn connect() -> Attempt<Channel> {
    let connecting = tokio::time::timeout(SILENCE, dial().connect()).await;
    let connected = connecting.map_err(|_| Status::unavailable("nobody answers"))?;
    connected.map_err(|error| Status::unavailable(error.to_string()))
}

fn transfer(error: kiln_proto::transfer::Error) -> Status {
    match error {
        kiln_proto::transfer::Error::Status(status) => *status,
        other => Status::unavailable(other.to_string()),
    }
}

/// Errors that a client does not retry: the farm's own response to the request.
fn is_final(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::NotFound | Code::PermissionDenied | Code::Unimplemented)
}

/// Retries an operation until it succeeds.
async fn patiently<T>(what: &str, attempt: impl AsyncFn() -> Attempt<T>) -> Result<T, String> {
    loop {
        match tokio::time::timeout(SILENCE * 4, attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(status)) if is_final(&status) => return Err(format!("{what}: {status}")),
            Ok(Err(_)) | Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn tree(files: &[(&str, &str)]) -> (Digest, Vec<(Digest, Blob)>) {
    let mut tree = Tree::default();
    let mut blobs = Vec::new();
    for (path, content) in files {
        let digest = SHA256.digest(content.as_bytes());
        tree.insert(path, Entry::file(digest, false)).unwrap();
        blobs.push((digest, Blob::Bytes(content.as_bytes().to_vec().into())));
    }
    let root = tree.encode(SHA256, &mut |encoded| blobs.push((encoded.digest, Blob::Bytes(encoded.data.into()))));
    (root, blobs)
}

/// The farm's message after workers were lost during each attempt of an action.
const GAVE_UP: &str = "gave up after";

/// Builds a project of two steps; its artifact must be what they make of its word.
pub async fn build(name: String, word: String, seen: Seen) -> turmoil::Result {
    let config = "name = \"simulated\"\nversion = \"1\"\n\
        [steps.first]\ninputs = [\"in\"]\nrun = \"make in one\"\noutputs = [\"one\"]\n\
        [steps.second]\ninputs = [\"in\"]\nneeds = [\"first\"]\nrun = \"make one two\"\noutputs = [\"two\"]\n\
        [artifacts.two]\nfrom = \"second\"\nfiles = [\"two\"]\nkind = \"binary\"\ncheck_elf = false\n";
    let (root, blobs) = tree(&[("kiln.toml", config), ("in", &word)]);
    let request = v1::SubmitRequest {
        digest_function: SHA256.to_wire(),
        source: Some(v1::Source { root: Some(root.to_wire()), ..Default::default() }),
        platforms: vec!["linux/amd64".to_owned()],
        user: name.clone(),
        ..Default::default()
    };
    let mut attempt = 0;
    let ended = loop {
        let submitted = patiently("submit", async || {
            let channel = connect().await?;
            Client::new(channel.clone(), "", SHA256).upload(blobs.clone()).await.map_err(transfer)?;
            BuildsClient::new(channel)
                .submit(v1::SubmitRequest { request_id: format!("{name}-{attempt}"), ..request.clone() })
                .await
        });
        let id = submitted.await?.into_inner().id;
        let ended = patiently("follow", async || {
            let mut builds = BuildsClient::new(connect().await?);
            let watched = v1::WatchRequest { build: id.clone(), offset: 0, ..v1::WatchRequest::default() };
            let mut events = builds.watch(watched).await?.into_inner();
            let next = async |events: &mut tonic::Streaming<v1::Event>| {
                let silent = |_| Status::unavailable("the farm says nothing");
                tokio::time::timeout(SILENCE, events.message()).await.map_err(silent)?
            };
            while let Some(event) = next(&mut events).await? {
                if let Some(Event::BuildFinished(_)) = event.event {
                    return Ok(builds
                        .get(v1::GetRequest { build: id.clone(), ..Default::default() })
                        .await?
                        .into_inner());
                }
            }
            Err(Status::unavailable("the events ended before the build"))
        });
        let ended = ended.await?;
        if !ended.message.contains(GAVE_UP) {
            break ended;
        }
        attempt += 1;
    };
    if ended.status() != BuildStatus::Succeeded {
        return Err(format!("build `{name}` of `{word}` ended as {:?}: {}", ended.status(), ended.message).into());
    }
    let artifact = ended.artifacts.first().and_then(|artifact| artifact.digest.clone());
    let digest = Digest::required(SHA256, artifact.as_ref())?;
    let content =
        patiently("fetch", async || Client::new(connect().await?, "", SHA256).get(&digest).await.map_err(transfer));
    let content = String::from_utf8(content.await?.to_vec())?;
    let expected = made("make one two", &made("make in one", &word));
    if content != expected {
        return Err(format!("build `{name}`: expected `{expected}`, found `{content}`").into());
    }
    seen.lock().unwrap().entry(format!("build of {word}")).or_default().push(content);
    Ok(())
}

/// Executes an action as a Remote Execution client does, and retries if there was no response.
pub async fn execute(word: String, seen: Seen) -> turmoil::Result {
    let (root, mut blobs) = tree(&[("in", &word)]);
    let run = format!("make in out {word}");
    let command = reapi::Command {
        arguments: vec!["simulated".to_owned(), run.clone()],
        output_paths: vec!["out".to_owned()],
        ..Default::default()
    };
    let command = command.encode_to_vec();
    let command_digest = SHA256.digest(&command);
    let action = reapi::Action {
        command_digest: Some(command_digest.to_wire()),
        input_root_digest: Some(root.to_wire()),
        ..Default::default()
    };
    let action = action.encode_to_vec();
    let digest = SHA256.digest(&action);
    blobs.push((command_digest, Blob::Bytes(command.into())));
    blobs.push((digest, Blob::Bytes(action.into())));
    let executed = patiently("execute", async || {
        let channel = connect().await?;
        Client::new(channel.clone(), "", SHA256).upload(blobs.clone()).await.map_err(transfer)?;
        let request = ExecuteRequest { action_digest: Some(digest.to_wire()), ..Default::default() };
        let mut operations = ExecutionClient::new(channel).execute(request).await?.into_inner();
        loop {
            let silent = |_| Status::unavailable("the farm says nothing");
            let next = tokio::time::timeout(SILENCE, operations.message()).await.map_err(silent)??;
            let operation = next.ok_or_else(|| Status::unavailable("the stream ended"))?;
            if let Some(OperationResult::Response(any)) = operation.result {
                let response = reapi::ExecuteResponse::decode(any.value.as_slice())
                    .map_err(|error| Status::internal(error.to_string()))?;
                let words = response.status.as_ref().map_or("", |status| status.message.as_str());
                // Three workers crashed while running it: the caller asks once more.
                if words.starts_with(GAVE_UP) {
                    return Err(Status::unavailable(words));
                }
                return Ok(response);
            }
        }
    });
    let response = executed.await?;
    let (code, words) = response.status.as_ref().map_or((0, ""), |status| (status.code, status.message.as_str()));
    let result = response.result.unwrap_or_default();
    let file = result.output_files.first().and_then(|file| file.digest.clone());
    if code != 0 || result.exit_code != 0 || file.is_none() {
        return Err(format!(
            "action `{word}` ended as {code} ({words}), exit code {}: {:?}",
            result.exit_code, response.message
        )
        .into());
    }
    let expected = SHA256.digest(made(&run, &word).as_bytes()).to_string();
    let found = Digest::required(SHA256, file.as_ref())?.to_string();
    if found != expected {
        return Err(format!("action `{word}`: expected the output {expected}, found {found}").into());
    }
    seen.lock().unwrap().entry(format!("action {word}")).or_default().push(found);
    Ok(())
}
