//! Programs of different versions against the real coordinator: one version apart works, more is refused with an
//! explanation.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use kiln_proto::protocol::{HEADER, PROTOCOL};
use kiln_proto::v1;
use kiln_proto::v1::farm_client::FarmClient;
use kiln_proto::v1::worker_message::Message;
use kiln_proto::v1::workers_client::WorkersClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// A coordinator that ends with its test.
struct Coordinator {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Coordinator {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kiln-coordinator"))
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path())
            .env("KILN_LOG", "info")
            .env("KILN_INSECURE", "true")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("address=")?.1.split(' ').next()?.to_owned()))
            .expect("expected the coordinator to print its address");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: format!("http://{address}"), _dir: dir }
    }

    /// A caller that claims to speak this protocol version.
    async fn caller(&self, protocol: u32) -> InterceptedService<Channel, Speaks> {
        let channel = Endpoint::from_shared(self.url.clone()).unwrap().connect().await.unwrap();
        InterceptedService::new(channel, Speaks(protocol.into()))
    }

    /// The request of `kiln workers`.
    async fn as_kiln(&self, protocol: u32) -> Result<(), Status> {
        FarmClient::new(self.caller(protocol).await).status(v1::StatusRequest {}).await.map(drop)
    }

    /// A worker's registration, until the coordinator accepts it.
    async fn as_worker(&self, protocol: u32) -> Result<(), Status> {
        let register = v1::Register {
            worker: format!("of-{protocol}"),
            environment: Some(v1::Environment::default()),
            capacity: Some(v1::Capacity { milli_cpus: 1000, memory_bytes: 1 << 30 }),
            ..Default::default()
        };
        let message = v1::WorkerMessage { message: Some(Message::Register(register)) };
        let messages = tokio_stream::StreamExt::chain(tokio_stream::iter([message]), tokio_stream::pending());
        let answers = WorkersClient::new(self.caller(protocol).await).link(messages).await?;
        let first = answers.into_inner().message().await?.and_then(|answer| answer.message);
        assert!(matches!(first, Some(v1::coordinator_message::Message::Registered(_))), "expected it to register");
        Ok(())
    }
}

#[derive(Clone)]
struct Speaks(MetadataValue<Ascii>);

impl Interceptor for Speaks {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(HEADER, self.0.clone());
        Ok(request)
    }
}

#[track_caller]
fn refused(outcome: Result<(), Status>, words: &str) {
    let status = outcome.expect_err(words);
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().starts_with(words), "expected `{words} …`, found `{}`", status.message());
}

#[tokio::test]
async fn a_skew_of_one_works_for_kiln_and_for_workers_and_more_is_refused_with_the_older_side_named() {
    let coordinator = Coordinator::start();
    for near in PROTOCOL - 1..=PROTOCOL + 1 {
        coordinator.as_kiln(near).await.unwrap();
        coordinator.as_worker(near).await.unwrap();
    }
    let (old, new) = (PROTOCOL - 2, PROTOCOL + 2);
    refused(coordinator.as_kiln(old).await, "this `kiln` or worker is older");
    refused(coordinator.as_worker(old).await, "this `kiln` or worker is older");
    refused(coordinator.as_kiln(new).await, "the farm's coordinator is older");
    refused(coordinator.as_worker(new).await, "the farm's coordinator is older");
    // The refused calls had no effect, and others are served as before.
    coordinator.as_kiln(PROTOCOL).await.unwrap();
}

#[tokio::test]
async fn every_call_of_kiln_and_of_workers_says_which_protocol_it_speaks() {
    // Both create their channels here.
    use kiln_proto::channel::Bearer;
    let sent = Bearer::default().call(Request::new(())).unwrap();
    assert_eq!(sent.metadata().get(HEADER).unwrap(), &PROTOCOL.to_string());
}
