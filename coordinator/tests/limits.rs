//! Clients that try to exhaust the coordinator's memory: against a real process, whose memory is measured, and against
//! its services.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use kiln_proto::bytestream::ReadRequest;
use kiln_proto::bytestream::byte_stream_client::ByteStreamClient;
use kiln_proto::channel::Channel;
use kiln_proto::digest::Digest;
use kiln_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use kiln_proto::v1::builds_client::BuildsClient;
use kiln_proto::v1::workers_client::WorkersClient;
use kiln_proto::v1::{self, worker_message};
use kiln_proto::{reapi, transfer};
use prost::Message;
use support::{Farm, SHA256, noise, piece};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Code, Status};

const MIB: u64 = 1 << 20;

/// A coordinator's process with its own port and directory.
struct Coordinator {
    process: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Coordinator {
    fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_kiln-coordinator"))
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path())
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines.find(|line| line.contains("ready")).expect("expected the coordinator to print its address");
        let address = ready.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        // Reads what else it prints, so that it never blocks.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, url: format!("http://{address}"), _dir: dir }
    }

    async fn connect(&self) -> Channel {
        kiln_proto::channel::connect(&self.url, &Default::default()).await.unwrap()
    }

    /// Bytes of memory that it uses.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The end of every test: an honest client is served, and memory has grown by at most this much.
    async fn goes_on(&self, before: u64, most: u64) {
        let grown = self.memory().saturating_sub(before);
        assert!(grown < most, "expected less than {} MiB more, found {} MiB", most / MIB, grown / MIB);
        eprintln!("memory grew by {} MiB, to {} MiB", grown / MIB, self.memory() / MIB);
        let blob = noise(7, 100_000);
        let digest = SHA256.digest(&blob);
        let client = transfer::Client::new(self.connect().await, "", SHA256);
        let began = Instant::now();
        while let Err(error) = client.upload(vec![(digest, transfer::Blob::Bytes(blob.clone().into()))]).await {
            assert!(began.elapsed() < Duration::from_secs(20), "expected an honest client to be served: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Begins a call whose only message has this length, and sends all but its last byte; returns the status if it was
/// refused.
async fn unfinished(mut channel: Channel, path: &'static str, bytes: usize) -> Result<(), Status> {
    let prefix = Bytes::from([&[0][..], &(bytes as u32).to_be_bytes()].concat());
    let zeroes = Bytes::from(vec![0; MIB as usize]);
    let pieces = std::iter::repeat_n(zeroes.clone(), bytes / zeroes.len() - 1)
        .chain([zeroes.slice(1..)])
        .map(|piece| Ok::<_, Status>(http_body::Frame::data(piece)));
    let frames = stream::iter([Ok(http_body::Frame::data(prefix))].into_iter().chain(pieces)).chain(stream::pending());
    let body = Body::new(http_body_util::StreamBody::new(frames));
    let uri = format!("http://farm{path}");
    let request = http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    futures::future::poll_fn(|context| channel.poll_ready(context))
        .await
        .map_err(|error| Status::unknown(error.to_string()))?;
    let call = channel.call(request.body(body).unwrap());
    match tokio::time::timeout(Duration::from_secs(6), call).await {
        // It waits for the last byte.
        Err(_) => Ok(()),
        Ok(Ok(response)) => {
            Err(Status::from_header_map(response.headers()).unwrap_or_else(|| Status::unknown("no status")))
        }
        Ok(Err(error)) => Err(Status::unknown(error.to_string())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_never_finished_fill_no_more_than_their_budget() {
    let coordinator = Coordinator::start(&["--call-memory", "64MiB"]);
    let before = coordinator.memory();
    let mut calls = Vec::new();
    for path in [
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs",
        "/kiln.v1.Builds/Submit",
        "/google.bytestream.ByteStream/Write",
        "/kiln.v1.Workers/Link",
    ] {
        for _ in 0..4 {
            let channel = coordinator.connect().await;
            calls.extend((0..4).map(|_| unfinished(channel.clone(), path, 15 << 20)));
        }
    }
    let all = futures::future::join_all(calls);
    let (ended, memory) = tokio::join!(all, async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        coordinator.memory()
    });
    let refused: Vec<Status> = ended.into_iter().filter_map(Result::err).collect();
    let exhausted = refused.iter().filter(|status| status.code() == Code::ResourceExhausted).count();
    assert!(exhausted >= 40, "expected most of 64 calls of 15 MiB to be refused, found {exhausted}: {refused:?}");
    assert!(refused.iter().any(|status| status.message().contains("`--call-memory`")), "{refused:?}");
    let grown = memory.saturating_sub(before);
    assert!(grown < 400 * MIB, "expected 960 MiB not to be kept, found {} MiB more", grown / MIB);
    coordinator.goes_on(before, 400 * MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_fill_no_more_than_their_budget() {
    let coordinator = Coordinator::start(&["--call-memory", "32MiB"]);
    let blob = noise(1, 4_000_000);
    let digest = SHA256.digest(&blob);
    let client = transfer::Client::new(coordinator.connect().await, "", SHA256);
    client.upload(vec![(digest, transfer::Blob::Bytes(blob.into()))]).await.unwrap();
    let before = coordinator.memory();
    let (mut streams, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let mut bytes = ByteStreamClient::new(coordinator.connect().await);
        for _ in 0..40 {
            let resource_name = format!("blobs/{digest}");
            match bytes.read(ReadRequest { resource_name, ..Default::default() }).await {
                Ok(stream) => streams.push(stream),
                Err(status) => refused.push(status),
            }
        }
    }
    assert!(!refused.is_empty(), "expected some of 80 reads to be refused at 32 MiB");
    assert!(refused.iter().all(|status| status.code() == Code::ResourceExhausted), "{refused:?}");
    drop(streams);
    coordinator.goes_on(before, 300 * MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_beyond_the_most_is_closed_and_one_that_ends_gives_its_place() {
    let coordinator = Coordinator::start(&["--max-connections", "3"]);
    let one = coordinator.connect().await;
    let (two, three) = (coordinator.connect().await, coordinator.connect().await);
    let ask = |channel: Channel| async {
        let request = reapi::FindMissingBlobsRequest::default();
        let call = ContentAddressableStorageClient::new(channel);
        tokio::time::timeout(Duration::from_secs(5), { call }.find_missing_blobs(request)).await.unwrap().map(drop)
    };
    for channel in [&one, &two, &three] {
        ask(channel.clone()).await.unwrap();
    }
    let refused = async {
        ask(kiln_proto::channel::connect(&coordinator.url, &Default::default()).await.map_err(drop)?)
            .await
            .map_err(drop)
    };
    assert!(refused.await.is_err(), "expected the fourth connection to be closed");
    ask(one.clone()).await.unwrap();
    drop((two, three));
    let began = Instant::now();
    loop {
        if let Ok(channel) = kiln_proto::channel::connect(&coordinator.url, &Default::default()).await
            && ask(channel).await.is_ok()
        {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "expected a place to be free again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_beyond_their_size_are_refused() {
    let coordinator = Coordinator::start(&[]);
    let before = coordinator.memory();
    let mut cas = ContentAddressableStorageClient::new(coordinator.connect().await);
    for (bytes, is_taken) in [(8_000, true), (200_000, false)] {
        let mut request = tonic::Request::new(reapi::FindMissingBlobsRequest::default());
        request.metadata_mut().insert("x-large", "x".repeat(bytes).parse().unwrap());
        assert_eq!(cas.find_missing_blobs(request).await.is_ok(), is_taken, "a header of {bytes} bytes");
    }
    coordinator.goes_on(before, 100 * MIB).await;
}

fn register() -> v1::Register {
    v1::Register {
        worker: "hostile".into(),
        version: "1".into(),
        environment: Some(v1::Environment { isa: "x86-64".into(), ..Default::default() }),
        capacity: Some(v1::Capacity { milli_cpus: 1000, memory_bytes: 1 << 30 }),
        ..Default::default()
    }
}

fn says(message: worker_message::Message) -> v1::WorkerMessage {
    v1::WorkerMessage { message: Some(message) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_registers_with_too_much_is_refused_with_the_limit() {
    let coordinator = Coordinator::start(&[]);
    let mut workers = WorkersClient::new(coordinator.connect().await);
    let long = "x".repeat(1000);
    let tools = (0..5_000).map(|at| (at.to_string(), "x".repeat(100))).collect();
    let labels = (0..5_000).map(|at| (at.to_string(), "x".repeat(100))).collect();
    let environment = |environment| v1::Register { environment: Some(environment), ..register() };
    for (register, words) in [
        (v1::Register { worker: long.clone(), ..register() }, "expected at most 256"),
        (v1::Register { version: long, ..register() }, "expected at most 256"),
        (environment(v1::Environment { tools, ..Default::default() }), "tools and labels"),
        (environment(v1::Environment { labels, ..Default::default() }), "tools and labels"),
        (v1::Register { running: vec![v1::RunningLease::default(); 5_000], ..register() }, "5000 leases"),
    ] {
        let link = stream::iter([says(worker_message::Message::Register(register))]);
        let status = workers.link(link).await.unwrap_err();
        assert!(status.code() == Code::ResourceExhausted && status.message().contains(words), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_floods_its_link_waits_and_fills_nothing() {
    let coordinator = Coordinator::start(&[]);
    let before = coordinator.memory();
    let mut workers = WorkersClient::new(coordinator.connect().await);
    let data = Bytes::from(vec![b'x'; 8 << 20]);
    let chunk = move |at: u64| {
        says(worker_message::Message::Output(v1::OutputChunk {
            lease: at,
            stream: v1::Stream::Stdout as i32,
            offset: u64::MAX - at,
            data: data.clone(),
        }))
    };
    let small = |at: u64| says(worker_message::Message::Started(v1::LeaseStarted { lease: at, at: None }));
    let first = stream::iter([says(worker_message::Message::Register(register()))]);
    let flood = first.chain(stream::iter((0..100).map(chunk))).chain(stream::iter((0..200_000).map(small)));
    let mut answers = workers.link(flood).await.unwrap().into_inner();
    while let Ok(Some(_)) = answers.message().await {}
    coordinator.goes_on(before, 250 * MIB).await;
}

/// A tree of this many levels, each of which references the one below this many times.
async fn levels(client: &transfer::Client, depth: usize, fan: usize) -> Digest {
    let mut blobs = Vec::new();
    let mut put = |directory: reapi::Directory| {
        let data = directory.encode_to_vec();
        let digest = SHA256.digest(&data);
        blobs.push((digest, transfer::Blob::Bytes(data.into())));
        digest
    };
    let mut digest = put(reapi::Directory::default());
    for _ in 0..depth {
        let node = |at: usize| reapi::DirectoryNode { name: format!("d{at}"), digest: Some(digest.to_wire()) };
        let directories = (0..fan).map(node).collect();
        digest = put(reapi::Directory { directories, ..Default::default() });
    }
    client.upload(blobs).await.unwrap();
    digest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_whose_tree_would_explode_or_is_too_deep_is_invalid_before_it_is_laid_out() {
    let coordinator = Coordinator::start(&[]);
    let channel = coordinator.connect().await;
    let client = transfer::Client::new(channel.clone(), "", SHA256);
    let mut builds = BuildsClient::new(channel);
    let before = coordinator.memory();
    let request = |root: Digest| v1::SubmitRequest {
        source: Some(v1::Source { root: Some(root.to_wire()), ..Default::default() }),
        ..Default::default()
    };
    for (depth, fan, words) in
        [(60, 10, "500000 entries"), (7, 10, "500000 entries"), (600, 1, "deeper than 512"), (510, 1, "")]
    {
        let status = builds.submit(request(levels(&client, depth, fan).await)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(words), "expected `{words}` in `{}`", status.message());
    }
    let root = levels(&client, 1, 1).await;
    let large = v1::SubmitRequest { user: "x".repeat(2 << 20), ..request(root) };
    let status = builds.submit(large).await.unwrap_err();
    assert!(status.code() == Code::ResourceExhausted && status.message().contains("1048576"), "{status}");
    coordinator.goes_on(before, 600 * MIB).await;
}

/// The tag of an empty element, this many times: two bytes each on the wire.
fn empties(tag: u8, bytes: usize) -> Vec<u8> {
    [tag << 3 | 2, 0].repeat(bytes / 2)
}

async fn put(client: &transfer::Client, data: Vec<u8>) -> Digest {
    let digest = SHA256.digest(&data);
    client.upload(vec![(digest, transfer::Blob::Bytes(data.into()))]).await.unwrap();
    digest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_whose_trees_would_explode_is_not_cached_and_each_is_read_once() {
    let coordinator = Coordinator::start(&[]);
    let channel = coordinator.connect().await;
    let client = transfer::Client::new(channel.clone(), "", SHA256);
    let mut cache = kiln_proto::reapi::action_cache_client::ActionCacheClient::new(channel);
    let action = put(&client, b"of the client's own".to_vec()).await;
    let before = coordinator.memory();
    // A tree of four million empty children, and one of files with this many empty properties each; each sent a dozen
    // times.
    let within = |tag: u8, inner: Vec<u8>| {
        let mut data = vec![tag << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut data);
        [data, inner].concat()
    };
    let properties = within(1, within(1, within(6, empties(1, 8 << 20))));
    for tree in [empties(2, 8 << 20), properties] {
        let tree = put(&client, tree).await;
        let directory = |at: usize| reapi::OutputDirectory {
            path: at.to_string(),
            tree_digest: Some(tree.to_wire()),
            ..Default::default()
        };
        let result = reapi::ActionResult { output_directories: (0..12).map(directory).collect(), ..Default::default() };
        let request = reapi::UpdateActionResultRequest {
            action_digest: Some(action.to_wire()),
            action_result: Some(result),
            ..Default::default()
        };
        let _ = cache.update_action_result(request).await;
        let asked = reapi::GetActionResultRequest { action_digest: Some(action.to_wire()), ..Default::default() };
        assert_eq!(cache.get_action_result(asked).await.unwrap_err().code(), Code::NotFound);
    }
    coordinator.goes_on(before, 250 * MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_countless_arguments_is_refused_before_it_is_decoded() {
    let coordinator = Coordinator::start(&[]);
    let channel = coordinator.connect().await;
    let client = transfer::Client::new(channel.clone(), "", SHA256);
    let root = put(&client, Vec::new()).await;
    let before = coordinator.memory();
    for number in 0..10_u8 {
        let mut command = vec![0x0a, 1, b'a' + number];
        command.extend(empties(if number % 2 == 0 { 1 } else { 7 }, 15 << 20));
        let command = put(&client, command).await;
        let action = reapi::Action {
            command_digest: Some(command.to_wire()),
            input_root_digest: Some(root.to_wire()),
            ..Default::default()
        };
        let action = put(&client, action.encode_to_vec()).await;
        let mut execution = kiln_proto::reapi::execution_client::ExecutionClient::new(channel.clone());
        let request = reapi::ExecuteRequest { action_digest: Some(action.to_wire()), ..Default::default() };
        let status = execution.execute(request).await.unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().contains("500000"), "{status}");
    }
    coordinator.goes_on(before, 250 * MIB).await;
}

#[tokio::test]
async fn uploads_at_once_are_bounded_and_a_name_is() {
    let farm = Farm::with_uploads(20).await;
    let begun = (0..20_u32).map(|at| {
        let name = format!("uploads/{at}/blobs/{}", SHA256.digest(&[&at.to_le_bytes()[..], &[0; 96]].concat()));
        let stream = stream::iter([piece(&name, 0, &at.to_le_bytes(), false)]).chain(stream::pending());
        let mut bytes = farm.bytes.clone();
        tokio::spawn(async move { bytes.write(stream).await })
    });
    let begun: Vec<_> = begun.collect();
    let mut names = (0..).map(|at: u32| format!("uploads/more-{at}/blobs/{}", SHA256.digest(&[1; 100])));
    let began = Instant::now();
    let status = loop {
        let name = names.next().unwrap();
        match farm.write(vec![piece(&name, 0, &[1; 50], false)]).await {
            Err(status) => break status,
            Ok(_) => assert!(began.elapsed() < Duration::from_secs(10), "expected one more to be refused"),
        }
    };
    assert!(status.code() == Code::ResourceExhausted && status.message().contains("20 uploads"), "{status}");
    begun.iter().for_each(tokio::task::JoinHandle::abort);
    let long = format!("uploads/{}/blobs/{}", "u".repeat(5000), SHA256.digest(b"x"));
    let status = farm.write(vec![piece(&long, 0, b"x", true)]).await.unwrap_err();
    assert!(status.code() == Code::InvalidArgument && status.message().contains("at most 4096"), "{status}");
}

#[tokio::test]
async fn chunk_mappings_at_once_are_bounded() {
    let farm = Farm::start().await;
    let blob = SHA256.digest(b"a blob").to_wire();
    let first = reapi::RegisterChunkMappingRequest { blob_digest: Some(blob), ..Default::default() };
    let silent = |first: &reapi::RegisterChunkMappingRequest| stream::iter([first.clone()]).chain(stream::pending());
    let mut begun = Vec::new();
    let began = Instant::now();
    let status = loop {
        let (mut cas, stream) = (farm.cas.clone(), silent(&first));
        let mut call = tokio::spawn(async move { cas.register_chunk_mapping(stream).await });
        match tokio::time::timeout(Duration::from_millis(100), &mut call).await {
            Ok(ended) => break ended.unwrap().unwrap_err(),
            Err(_) => begun.push(call),
        }
        assert!(began.elapsed() < Duration::from_secs(20), "expected one more to be refused");
    };
    assert_eq!((status.code(), begun.len()), (Code::ResourceExhausted, 16), "{status}");
    begun.iter().for_each(tokio::task::JoinHandle::abort);
}
