//! What the coordinator's process offers for monitoring: metrics, health, reflection.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_proto::channel::Channel;
use kiln_proto::descriptors;
use kiln_proto::digest::DigestFunction;
use kiln_proto::longrunning::Operation;
use kiln_proto::reapi;
use kiln_proto::reapi::action_cache_client::ActionCacheClient;
use kiln_proto::reapi::execution_client::ExecutionClient;
use kiln_proto::transfer::{Blob, Client};
use kiln_proto::v1;
use kiln_proto::v1::workers_client::WorkersClient;
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const DEADLINE: Duration = Duration::from_secs(30);

/// A process that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process, and its addresses.
struct Coordinator {
    child: Ended,
    url: String,
    metrics: String,
    _dir: tempfile::TempDir,
}

impl Coordinator {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kiln-coordinator"))
            .args(more)
            .args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"])
            .arg(dir.path())
            .env_remove("KILN_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = |message: &str| {
            for line in lines.by_ref() {
                let line = line.unwrap();
                let line: serde_json::Value =
                    serde_json::from_str(&line).unwrap_or_else(|_| panic!("expected JSON, found: {line}"));
                if line["message"] == message {
                    return line["address"].as_str().unwrap().to_owned();
                }
            }
            panic!("expected a line `{message}`")
        };
        let metrics = address("serving metrics and health");
        let url = format!("http://{}", address("ready"));
        // Reads the rest: the process would end if it wrote to a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child: Ended(child), url, metrics, _dir: dir }
    }

    async fn channel(&self) -> Channel {
        kiln_proto::channel::connect(&self.url, &Default::default()).await.unwrap()
    }

    fn samples(&self) -> Vec<String> {
        kiln_harness::http::samples(&self.metrics)
    }

    /// The samples, once one of them begins with this.
    fn wait_for(&self, begin: &str) -> Vec<String> {
        let began = Instant::now();
        loop {
            let samples = self.samples();
            if samples.iter().any(|sample| sample.starts_with(begin)) {
                return samples;
            }
            assert!(began.elapsed() < DEADLINE, "expected `{begin}…` in {samples:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Calls a method with an empty message.
async fn call(channel: &Channel, path: &str) -> Code {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let request = tokio_stream::iter([()]);
    match client.streaming(Request::new(request), path.parse().unwrap(), codec).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

/// An action that only a worker of this system and instruction set may run.
async fn execute(channel: &Channel, os: &str, isa: &str) -> tonic::Streaming<Operation> {
    let function = DigestFunction::Sha256;
    let blob = |data: Vec<u8>| (function.digest(&data), Blob::Bytes(data.into()));
    let property =
        |name: &str, value: &str| reapi::platform::Property { name: name.to_owned(), value: value.to_owned() };
    let root = blob(reapi::Directory::default().encode_to_vec());
    let command = blob(reapi::Command { arguments: vec!["true".to_owned()], ..Default::default() }.encode_to_vec());
    let action = blob(
        reapi::Action {
            command_digest: Some(command.0.to_wire()),
            input_root_digest: Some(root.0.to_wire()),
            platform: Some(reapi::Platform { properties: vec![property("ISA", isa), property("kiln.os", os)] }),
            ..Default::default()
        }
        .encode_to_vec(),
    );
    let action_digest = Some(action.0.to_wire());
    Client::new(channel.clone(), "", function).upload(vec![root, command, action]).await.unwrap();
    let request = reapi::ExecuteRequest { action_digest, ..Default::default() };
    ExecutionClient::new(channel.clone()).execute(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_stores_and_questions_for_results_are_counted() {
    let farm = Coordinator::start();
    let channel = farm.channel().await;
    let data = vec![7; 100_000];
    let digest = DigestFunction::Sha256.digest(&data);
    let client = Client::new(channel.clone(), "", DigestFunction::Sha256);
    client.upload(vec![(digest, Blob::Bytes(data.into()))]).await.unwrap();
    let request = reapi::GetActionResultRequest { action_digest: Some(digest.to_wire()), ..Default::default() };
    ActionCacheClient::new(channel).get_action_result(request).await.unwrap_err();
    let missed = "kiln_grpc_calls_total{service=\"build.bazel.remote.execution.v2.ActionCache\",\
                  method=\"GetActionResult\",code=\"NOT_FOUND\"} 1";
    let samples = farm.wait_for(missed);
    let expected = [
        "kiln_action_cache_lookups_total{result=\"miss\"} 1",
        "kiln_action_cache_lookups_total{result=\"hit\"} 0",
        "kiln_store_operation_seconds_count{store=\"disk\",operation=\"put_many\"} 1",
        "kiln_store_operation_seconds_count{store=\"disk\",operation=\"get_result\"} 1",
        "kiln_store_bytes 100000",
        "kiln_builds_total{result=\"farm_failed\"} 0",
    ];
    for line in expected {
        assert!(samples.iter().any(|sample| sample == line), "expected `{line}` in {samples:#?}");
    }
    let received = samples.iter().find(|line| line.starts_with("kiln_grpc_received_bytes") && line.contains("Update"));
    let bytes: u64 = received.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((100_000..101_000).contains(&bytes), "expected the blob and little more, found {bytes}");
}

#[test]
fn a_real_prometheus_scrapes_it() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        return kiln_harness::cannot_run("prometheus is not installed");
    }
    let farm = Coordinator::start();
    let dir = tempfile::tempdir().unwrap();
    let config = serde_json::json!({
        "global": { "scrape_interval": "1s" },
        "scrape_configs": [{ "job_name": "kiln", "static_configs": [{ "targets": [farm.metrics] }] }],
    });
    std::fs::write(dir.path().join("prometheus.yaml"), config.to_string()).unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let prometheus = Command::new("prometheus")
        .args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data"])
        .arg(format!("--web.listen-address={address}"))
        .current_dir(dir.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _prometheus = Ended(prometheus);
    let query = "/api/v1/query?query=kiln_builds_total%7Bresult%3D%22succeeded%22%7D";
    let began = Instant::now();
    let found = loop {
        if std::net::TcpStream::connect(&address).is_ok() {
            let (_, answer) = kiln_harness::http::get(&address, query);
            if answer.contains("\"succeeded\"") || began.elapsed() > DEADLINE {
                break answer;
            }
        }
        assert!(began.elapsed() < DEADLINE, "expected Prometheus to answer at `{address}`");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(found.contains("\"job\":\"kiln\""), "expected Prometheus to have scraped it, found {found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_values_make_no_labels() {
    let farm = Coordinator::start();
    let channel = farm.channel().await;
    // A first run as expected, so that the following ones cannot add new series, except the forbidden ones.
    let ask = |instance: String, tool: String| {
        let mut client = ActionCacheClient::new(channel.clone());
        async move {
            let digest = Some(DigestFunction::Sha256.digest(instance.as_bytes()).to_wire());
            let message =
                reapi::GetActionResultRequest { instance_name: instance, action_digest: digest, ..Default::default() };
            let mut request = Request::new(message);
            let tool = reapi::ToolDetails { tool_name: tool.clone(), tool_version: tool };
            let metadata = reapi::RequestMetadata {
                tool_invocation_id: tool.tool_name.clone(),
                tool_details: Some(tool),
                ..Default::default()
            };
            request.metadata_mut().insert_bin(
                "build.bazel.remote.execution.v2.requestmetadata-bin",
                MetadataValue::from_bytes(&metadata.encode_to_vec()),
            );
            let _ = client.get_action_result(request).await;
        }
    };
    ask("main".into(), "bazel".into()).await;
    call(&channel, "/evil.Service/Method").await;
    execute(&channel, "evil-os", "evil-isa").await;
    farm.wait_for("kiln_queue_actions{isa=\"other\",os=\"other\"} 1");
    farm.wait_for("kiln_grpc_calls_total{service=\"unknown\",method=\"unknown\",code=\"UNIMPLEMENTED\"} 1");
    let before = farm.samples().len();
    for number in 0..60 {
        ask(format!("evil-{number}"), format!("evil-tenant-{number}")).await;
        assert_eq!(call(&channel, &format!("/evil.Service{number}/Method")).await, Code::Unimplemented);
        assert_eq!(call(&channel, &format!("/kiln.v1.Builds/Evil{number}")).await, Code::Unimplemented);
        execute(&channel, &format!("evil-os-{number}"), &format!("evil-isa-{number}")).await;
    }
    let samples = farm.wait_for("kiln_queue_actions{isa=\"other\",os=\"other\"} 61");
    // The transfers of later actions may have caused what the first did not: another status code or batch size.
    assert!(samples.len() < before + 20, "expected no more series than before, found {before} and {}", samples.len());
    let evil: Vec<&String> = samples.iter().filter(|sample| sample.to_lowercase().contains("evil")).collect();
    assert!(evil.is_empty(), "expected no label values invented by clients, found {evil:#?}");
}

/// A worker that registers and then does nothing, for as long as this lasts.
struct Idle {
    outbox: tokio::sync::mpsc::Sender<v1::WorkerMessage>,
    answers: tonic::Streaming<v1::CoordinatorMessage>,
}

impl Idle {
    async fn register(channel: &Channel, name: &str, isa: &str) -> Self {
        let (outbox, inbox) = tokio::sync::mpsc::channel(8);
        let environment = v1::Environment {
            isa: isa.to_owned(),
            os: "debian:12".to_owned(),
            fingerprint: format!("{isa} on debian"),
            ..Default::default()
        };
        let register = v1::Register {
            worker: name.to_owned(),
            environment: Some(environment),
            capacity: Some(v1::Capacity { milli_cpus: 4_000, memory_bytes: 1 << 32 }),
            session: name.as_bytes().to_vec(),
            ..Default::default()
        };
        let message = Some(v1::worker_message::Message::Register(register));
        outbox.send(v1::WorkerMessage { message }).await.unwrap();
        let link = WorkersClient::new(channel.clone()).link(ReceiverStream::new(inbox)).await;
        let mut answers = link.unwrap().into_inner();
        answers.message().await.unwrap().expect("expected a greeting");
        Self { outbox, answers }
    }

    /// Leaves in order, as one does that a scaler stops.
    async fn leave(mut self) {
        let message = Some(v1::worker_message::Message::Goodbye(v1::Goodbye {}));
        self.outbox.send(v1::WorkerMessage { message }).await.unwrap();
        while let Ok(Some(_)) = self.answers.message().await {}
    }
}

/// What a scaler reads: a platform's queue, and the queue of a declared pool.
fn queue(isa: &str, count: u32) -> String {
    format!("kiln_queue_actions{{isa=\"{isa}\",os=\"debian:12\"}} {count}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_no_worker_is_there_for_is_counted_and_then_as_zero() {
    let farm = Coordinator::start();
    let channel = farm.channel().await;
    let _here = Idle::register(&channel, "here", "x86-64").await;
    // The last worker of the other platform is stopped, as by a scaler that scales to zero.
    Idle::register(&channel, "gone", "arm-a64").await.leave().await;
    let waiting = execute(&channel, "debian:12", "arm-a64").await;
    let samples = farm.wait_for(&queue("arm-a64", 1));
    let is_ready = |sample: &&String| sample.starts_with("kiln_workers{isa=\"arm-a64\"") && sample.contains("ready");
    assert_eq!(samples.iter().find(is_ready), None, "expected no worker of the platform");
    assert!(samples.iter().any(|sample| *sample == queue("x86-64", 0)), "{samples:#?}");
    // The worker that was started for it takes it.
    let _started = Idle::register(&channel, "started", "arm-a64").await;
    let samples = farm.wait_for(&queue("arm-a64", 0));
    let running = "kiln_running_actions{isa=\"arm-a64\",os=\"debian:12\"} 1";
    assert!(samples.iter().any(|sample| sample == running), "{samples:#?}");
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_pool_is_counted_though_none_of_its_workers_was_ever_there() {
    let farm = Coordinator::start_with(&["--pool", "linux/arm64", "--pool", "linux/arm64,label.gpu=a100"]);
    let channel = farm.channel().await;
    let of = |pool: &str, count: u32| format!("kiln_pool_queue_actions{{pool=\"{pool}\"}} {count}");
    farm.wait_for(&of("linux/arm64,label.gpu=a100", 0));
    let waiting = execute(&channel, "debian:12", "arm-a64").await;
    let samples = farm.wait_for(&of("linux/arm64", 1));
    assert!(samples.iter().any(|sample| *sample == of("linux/arm64,label.gpu=a100", 0)), "{samples:#?}");
    let _started = Idle::register(&channel, "started", "arm-a64").await;
    farm.wait_for(&of("linux/arm64", 0));
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_that_is_served_is_counted_under_its_name() {
    let farm = Coordinator::start();
    let channel = farm.channel().await;
    for path in descriptors::methods() {
        // A stream may last as long as its client listens; it ends when the client disconnects.
        let _ = tokio::time::timeout(Duration::from_secs(10), call(&channel, &path)).await;
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap();
        farm.wait_for(&format!("kiln_grpc_calls_total{{service=\"{service}\",method=\"{method}\""));
    }
    let samples = farm.samples();
    let unknown: Vec<&String> = samples.iter().filter(|sample| sample.contains("unknown")).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_over_http_and_grpc_and_ends_with_the_stop() {
    let mut farm = Coordinator::start();
    assert_eq!(kiln_harness::http::get(&farm.metrics, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(kiln_harness::http::get(&farm.metrics, "/readyz"), (200, "ok\n".to_owned()));
    assert_eq!(kiln_harness::http::get(&farm.metrics, "/elsewhere").0, 404);
    let mut health = HealthClient::new(farm.channel().await);
    for service in descriptors::services().into_iter().chain([String::new()]) {
        let status = health.check(HealthCheckRequest { service: service.clone() }).await.unwrap().into_inner();
        assert_eq!(status.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = health.check(HealthCheckRequest { service: "no.such.Service".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    farm.wait_for("kiln_grpc_calls_total{service=\"grpc.health.v1.Health\",method=\"Check\",code=\"OK\"}");

    let mut watch = health.watch(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    kill_process(Pid::from_raw(i32::try_from(farm.child.0.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    let told = tokio::time::timeout(DEADLINE, watch.message()).await.expect("expected a message before the end");
    assert_eq!(told.unwrap().unwrap().status(), ServingStatus::NotServing);
    let (status, words) = kiln_harness::http::get(&farm.metrics, "/readyz");
    assert_eq!((status, words.as_str()), (503, "the coordinator is stopping\n"));
    drop((watch, health));
    let ended = tokio::task::spawn_blocking(move || farm.child.0.wait().unwrap().success());
    assert!(tokio::time::timeout(DEADLINE, ended).await.expect("expected it to end").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_describes_kiln_s_own_services() {
    let farm = Coordinator::start();
    let mut client = ServerReflectionClient::new(farm.channel().await);
    let mut ask = async |question| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
        answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await else {
        panic!("expected a list")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["kiln.v1.Builds", "kiln.v1.Farm", "kiln.v1.Workers", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|known| known == name), "expected `{name}` in {names:?}");
    }
    let question = MessageRequest::FileContainingSymbol("kiln.v1.Builds.Submit".to_owned());
    let MessageResponse::FileDescriptorResponse(files) = ask(question).await else { panic!("expected a file") };
    let file = prost_types::FileDescriptorProto::decode(files.file_descriptor_proto[0].as_slice()).unwrap();
    assert_eq!(file.name(), "kiln/v1/builds.proto");
}
