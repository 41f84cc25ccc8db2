//! Workers that name what they do not have, in entries and calls: others are given what these name.

use kiln_harness::guarded::{Guarded, access, certificate};
use kiln_harness::{Lasting, project};
use kiln_proto::bytestream::{WriteRequest, WriteResponse, byte_stream_client::ByteStreamClient};
use kiln_proto::digest::Digest;
use kiln_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use kiln_proto::transfer::{Blob, Client, LeaseChannel};
use kiln_proto::v1::calls_client::CallsClient;
use kiln_proto::v1::coordinator_message as told;
use kiln_proto::v1::run_call_event::Event;
use kiln_proto::{calls, reapi, v1};
use kiln_trees::{Entry, Tree};
use tonic::{Code, Status};

use super::{Intruder, PROJECT, SHA256, builder, connect, denied, forged};

const SECRET: &[u8] = b"what the step was not given";
const OWN: &[u8] = b"what the worker made";

/// A lease's side of calls.
struct Asker {
    blobs: Client,
    calls: CallsClient<LeaseChannel>,
}

fn result(file: &Digest) -> reapi::ActionResult {
    let file = reapi::OutputFile { path: "out".into(), digest: Some(file.to_wire()), ..Default::default() };
    reapi::ActionResult { output_files: vec![file], ..Default::default() }
}

impl Asker {
    fn of(blobs: Client) -> Self {
        Self { calls: CallsClient::new(blobs.channel()), blobs }
    }

    async fn keep(&mut self, tool: &str, key: u8, result: reapi::ActionResult) -> Result<(), Status> {
        let request = v1::KeepCallRequest { key: vec![key; 32], result: Some(result), tool: tool.to_owned() };
        self.calls.keep(request).await.map(drop)
    }

    async fn look(&mut self, tool: &str, key: u8) -> Option<reapi::ActionResult> {
        let request = v1::LookCallsRequest { keys: vec![vec![key; 32]], tool: tool.to_owned() };
        self.calls.look(request).await.unwrap().into_inner().entries.remove(0).result
    }

    /// Has a call run on a tree with this file, whose directory is sent.
    async fn run(&mut self, file: &Digest) -> Result<tonic::Streaming<v1::RunCallEvent>, Status> {
        let input_root = Some(self.directory(file).await.to_wire());
        let command = reapi::Command { arguments: vec!["/bin/cat".into(), "in".into()], ..Default::default() };
        let request = v1::RunCallRequest { command: Some(command), input_root, memory_bytes: 0 };
        Ok(self.calls.run(request).await?.into_inner())
    }

    async fn directory(&self, file: &Digest) -> Digest {
        let mut tree = Tree::default();
        tree.insert("in", Entry::file(*file, false)).unwrap();
        let mut messages = Vec::new();
        let root =
            tree.encode(SHA256, &mut |encoded| messages.push((encoded.digest, Blob::Bytes(encoded.data.into()))));
        self.blobs.send_whole(messages).await.unwrap();
        root
    }

    async fn write(&self, name: String, data: &[u8]) -> Result<WriteResponse, Status> {
        let write = WriteRequest { resource_name: name, write_offset: 0, finish_write: true, data: data.to_vec() };
        let mut streams = ByteStreamClient::new(self.blobs.channel());
        Ok(streams.write(tokio_stream::iter([write])).await?.into_inner())
    }
}

/// A farm with a tenant's blob, and a worker that has a lease of that tenant's step, which is split into calls.
async fn with_lease() -> (Guarded, Intruder, v1::Lease, Digest, Lasting) {
    let guarded = tokio::task::spawn_blocking(|| Guarded::start(&[])).await.unwrap();
    let secret = builder(&guarded, "ann", "shop").await.put(SECRET.to_vec()).await;
    let evil = connect(&guarded, "evil", &["--role", "worker"]).await;
    let environment = v1::Environment {
        isa: "x86-64".into(),
        os: "debian:12".into(),
        libc: "glibc:2.36".into(),
        fingerprint: "invented".into(),
        executors: vec!["sandbox".into()],
        calls: calls::RULES,
        ..Default::default()
    };
    let register = v1::Register { worker: "evil".into(), ..Default::default() };
    let mut intruder = Intruder::register_with(evil, register, environment).await.unwrap();
    let made = certificate(&guarded.dir(), "bob", &["--role", "builder", "--tenant", "shop"]);
    let dir = project(&[("kiln.toml", PROJECT)]);
    let building =
        Lasting::start(guarded.as_other(access(&guarded.dir(), Some(&made)), &["build", dir.path().to_str().unwrap()]));
    let lease = intruder.lease().await;
    assert!(lease.split && !lease.call, "{lease:?}");
    (guarded, intruder, lease, secret, building)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_knows_a_digest_cannot_name_it_in_an_entry_or_a_call() {
    let (_guarded, intruder, lease, secret, _building) = with_lease().await;
    let mut asker = Asker::of(intruder.blobs(&lease.instance, &lease.grant));
    let missing = asker.blobs.find_missing(&[secret]).await.unwrap();
    assert!(missing.is_empty(), "expected the farm to have it: what follows is about who else has");
    let refused = |kept: Result<(), Status>| assert_eq!(kept.unwrap_err().code(), Code::FailedPrecondition);

    for tool in ["", "go"] {
        refused(asker.keep(tool, 1, result(&secret)).await);
        let printed = reapi::ActionResult { stdout_digest: Some(secret.to_wire()), ..Default::default() };
        refused(asker.keep(tool, 1, printed).await);
        assert_eq!(asker.look(tool, 1).await, None);
    }
    assert_eq!(asker.run(&secret).await.unwrap_err().code(), Code::FailedPrecondition);
    // A directory that it made up opens nothing either.
    let root = asker.directory(&secret).await;
    let mut store = ContentAddressableStorageClient::new(asker.blobs.channel());
    let tree = reapi::GetTreeRequest { root_digest: Some(root.to_wire()), ..Default::default() };
    assert_eq!(store.get_tree(tree).await.unwrap_err().code(), Code::PermissionDenied);

    // Nor does anything that only looks as if it sent the blob.
    let name = format!("{}uploads/00000000-0000-4000-8000-000000000000/blobs/{secret}", lease_prefix(&lease));
    let other = vec![b'x'; SECRET.len()];
    assert_eq!(asker.write(name.clone(), &other).await.unwrap_err().code(), Code::InvalidArgument);
    asker.write(name.clone(), b"").await.unwrap_err();
    let batch = reapi::BatchUpdateBlobsRequest {
        instance_name: lease.instance.clone(),
        requests: vec![reapi::batch_update_blobs_request::Request {
            digest: Some(secret.to_wire()),
            data: other,
            ..Default::default()
        }],
        ..Default::default()
    };
    let stored = store.batch_update_blobs(batch).await.unwrap().into_inner();
    assert_ne!(stored.responses[0].status.as_ref().unwrap().code, 0);
    let splice = reapi::SpliceBlobRequest {
        instance_name: lease.instance.clone(),
        blob_digest: Some(secret.to_wire()),
        chunk_digests: vec![secret.to_wire()],
        ..Default::default()
    };
    assert_eq!(store.splice_blob(splice).await.unwrap_err().code(), Code::AlreadyExists);
    refused(asker.keep("", 1, result(&secret)).await);
    assert_eq!(asker.run(&secret).await.unwrap_err().code(), Code::FailedPrecondition);
    denied(asker.blobs.get(&secret).await);

    // Whoever has it may name it, in whichever way it was sent.
    asker.write(name, SECRET).await.unwrap();
    asker.keep("", 1, result(&secret)).await.unwrap();
    let own = SHA256.digest(OWN);
    asker.blobs.send_whole(vec![(own, Blob::Bytes(OWN.into()))]).await.unwrap();
    asker.keep("go", 2, result(&own)).await.unwrap();
    assert_eq!(asker.look("go", 2).await.unwrap().output_files, result(&own).output_files);
    assert_eq!(asker.blobs.get(&own).await.unwrap(), OWN, "what an entry names may be read");
    asker.run(&own).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_of_a_call_opens_only_what_its_worker_has_sent() {
    let (_guarded, mut intruder, lease, secret, _building) = with_lease().await;
    let mut asker = Asker::of(intruder.blobs(&lease.instance, &lease.grant));
    let own = SHA256.digest(OWN);
    asker.blobs.send_whole(vec![(own, Blob::Bytes(OWN.into()))]).await.unwrap();
    let answer = |file: &Digest| {
        let mut response = forged("");
        response.result.as_mut().unwrap().output_files = result(file).output_files;
        response
    };
    // The worker runs its own step's call, and answers with a blob that it knows of.
    let events = asker.run(&own).await.unwrap();
    let call = intruder.lease().await;
    assert!(call.call, "{call:?}");
    intruder.finish(call.lease, answer(&secret)).await;
    let acknowledged = |message| if let told::Message::FinishedAck(ack) = message { Some(ack.lease) } else { None };
    assert_eq!(intruder.hear(acknowledged).await, call.lease);
    denied(asker.blobs.get(&secret).await);
    // It would run on another worker, if there were one.
    drop(events);

    // What it has sent for another call is the asker's, although the farm had it before.
    let input = Digest::empty(SHA256);
    let mut events = asker.run(&input).await.unwrap();
    let call = intruder.lease().await;
    let blobs = intruder.blobs(&call.instance, &call.grant);
    blobs.send_whole(vec![(secret, Blob::Bytes(SECRET.into()))]).await.unwrap();
    intruder.finish(call.lease, answer(&secret)).await;
    let ended = loop {
        if let Some(Event::Ended(response)) = events.message().await.unwrap().unwrap().event {
            break response;
        }
    };
    assert_eq!(ended.result.unwrap().output_files, result(&secret).output_files);
    assert_eq!(asker.blobs.get(&secret).await.unwrap(), SECRET);
}

/// What resource names of a lease's blobs begin with.
fn lease_prefix(lease: &v1::Lease) -> String {
    if lease.instance.is_empty() { String::new() } else { format!("{}/", lease.instance) }
}
