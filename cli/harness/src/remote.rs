//! A minimal client of Remote Execution v2.

use kiln_proto::channel::Channel;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::longrunning::{Operation, operation};
use kiln_proto::reapi::execution_client::ExecutionClient;
use kiln_proto::reapi::{self, command::EnvironmentVariable};
use kiln_proto::transfer::{Blob, Client};
use kiln_trees::tree::{Entry, Tree};
use prost::Message;
use tonic::{Code, Status};

use crate::Farm;

pub struct Caller {
    pub function: DigestFunction,
    pub channel: Channel,
    pub blobs: Client,
}

pub async fn caller() -> Caller {
    caller_with(DigestFunction::Sha256).await
}

pub async fn caller_with(function: DigestFunction) -> Caller {
    let url = tokio::task::spawn_blocking(|| Farm::shared().url.clone()).await.unwrap();
    caller_of(&url, function).await
}

/// A client of a farm for one test.
pub async fn caller_of(url: &str, function: DigestFunction) -> Caller {
    let channel = kiln_proto::channel::connect(url, &Default::default()).await.unwrap();
    Caller { function, blobs: Client::new(channel.clone(), "", function), channel }
}

/// A number that no other action of this run uses.
pub fn salt() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn shell(script: &str, outputs: &[&str]) -> reapi::Command {
    reapi::Command {
        arguments: vec!["/bin/sh".into(), "-c".into(), script.into()],
        environment_variables: vec![EnvironmentVariable { name: "SALT".into(), value: salt() }],
        output_paths: outputs.iter().map(|path| (*path).to_owned()).collect(),
        ..Default::default()
    }
}

pub type Stream = tonic::Streaming<Operation>;

impl Caller {
    pub async fn put(&self, data: Vec<u8>) -> Digest {
        let digest = self.function.digest(&data);
        self.blobs.upload(vec![(digest, Blob::Bytes(data.into()))]).await.unwrap();
        digest
    }

    pub async fn tree(&self, files: &[(&str, &str)]) -> Digest {
        let mut tree = Tree::default();
        for (path, text) in files {
            let digest = self.put(text.as_bytes().to_vec()).await;
            tree.insert(path, Entry::file(digest, false)).unwrap();
        }
        let mut messages = Vec::new();
        let root = tree
            .encode(self.function, &mut |encoded| messages.push((encoded.digest, Blob::Bytes(encoded.data.into()))));
        self.blobs.upload(messages).await.unwrap();
        root
    }

    /// Stores an action; `change` may alter it first.
    pub async fn action(
        &self,
        command: reapi::Command,
        files: &[(&str, &str)],
        change: impl FnOnce(&mut reapi::Action),
    ) -> Digest {
        let mut action = reapi::Action {
            command_digest: Some(self.put(command.encode_to_vec()).await.to_wire()),
            input_root_digest: Some(self.tree(files).await.to_wire()),
            ..Default::default()
        };
        change(&mut action);
        self.put(action.encode_to_vec()).await
    }

    pub async fn start(&self, action: &Digest, skip_cache: bool) -> Result<Stream, Status> {
        let request = reapi::ExecuteRequest {
            action_digest: Some(action.to_wire()),
            skip_cache_lookup: skip_cache,
            digest_function: self.function.to_wire(),
            ..Default::default()
        };
        Ok(ExecutionClient::new(self.channel.clone()).execute(request).await?.into_inner())
    }

    pub async fn execute(&self, action: &Digest) -> reapi::ExecuteResponse {
        response(&last(self.start(action, false).await.unwrap()).await)
    }

    pub async fn run(&self, command: reapi::Command, files: &[(&str, &str)]) -> reapi::ExecuteResponse {
        let action = self.action(command, files, |_| ()).await;
        self.execute(&action).await
    }

    pub async fn text(&self, digest: &Option<reapi::Digest>) -> String {
        let digest = Digest::required(self.function, digest.as_ref()).unwrap();
        String::from_utf8_lossy(&self.blobs.get(&digest).await.unwrap()).into_owned()
    }
}

pub async fn last(mut stream: Stream) -> Operation {
    let mut last = None;
    while let Some(operation) = stream.message().await.unwrap() {
        last = Some(operation);
    }
    last.expect("expected at least one state")
}

pub fn response(operation: &Operation) -> reapi::ExecuteResponse {
    assert!(operation.done, "expected the last state to be done: {operation:?}");
    let Some(operation::Result::Response(any)) = &operation.result else { panic!("no response: {operation:?}") };
    reapi::ExecuteResponse::decode(any.value.as_slice()).unwrap()
}

pub fn stage(operation: &Operation) -> reapi::ExecuteOperationMetadata {
    reapi::ExecuteOperationMetadata::decode(operation.metadata.as_ref().unwrap().value.as_slice()).unwrap()
}

pub fn code(response: &reapi::ExecuteResponse) -> Code {
    Code::from_i32(response.status.as_ref().map_or(0, |status| status.code))
}

/// A result as it was written, without metadata. When it was recorded is the store's to say.
pub fn as_written(found: Option<reapi::ActionResult>) -> Option<reapi::ActionResult> {
    found.map(|mut result| {
        let metadata = result.execution_metadata.take().unwrap();
        assert!(kiln_proto::made::recorded(&metadata).is_some(), "{metadata:?}");
        result
    })
}
