//! Operations whose clients disconnect, and whose coordinator stops.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use kiln_coordinator::Config;
use kiln_proto::channel::Channel;
use kiln_proto::digest::DigestFunction;
use kiln_proto::longrunning::operation::Result as OperationResult;
use kiln_proto::longrunning::operations_client::OperationsClient;
use kiln_proto::longrunning::{GetOperationRequest, Operation};
use kiln_proto::reapi;
use kiln_proto::reapi::execution_client::ExecutionClient;
use kiln_proto::transfer::{Blob, Client};
use prost::Message;
use tokio::sync::oneshot;
use tonic::{Code, Streaming};

/// How long anything may take before a test fails with what it waited for.
const DEADLINE: Duration = Duration::from_secs(30);

/// A coordinator without workers: its actions stay in the queue for a while.
struct Coordinator {
    channel: Channel,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
    _dir: tempfile::TempDir,
}

async fn coordinator(abandoned_after: Duration) -> Coordinator {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config { abandoned_after, ..Config::on_disk(address, dir.path().to_owned(), 1 << 30) };
    let (stop, stopped) = oneshot::channel();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let served = tokio::spawn(kiln_coordinator::run(config, listener, shutdown));
    let channel = kiln_proto::channel::connect(&format!("http://{address}"), &Default::default()).await.unwrap();
    Coordinator { channel, stop: Some(stop), served, _dir: dir }
}

impl Coordinator {
    /// Executes an action of this name; returns its first state and the stream of further ones.
    async fn execute(&self, name: &str) -> (Operation, Streaming<Operation>) {
        let function = DigestFunction::Sha256;
        let blob = |data: Vec<u8>| (function.digest(&data), Blob::Bytes(data.into()));
        let root = blob(reapi::Directory::default().encode_to_vec());
        let command = blob(reapi::Command { arguments: vec![name.to_owned()], ..Default::default() }.encode_to_vec());
        let action = reapi::Action {
            command_digest: Some(command.0.to_wire()),
            input_root_digest: Some(root.0.to_wire()),
            ..Default::default()
        };
        let action = blob(action.encode_to_vec());
        let action_digest = Some(action.0.to_wire());
        Client::new(self.channel.clone(), "", function).upload(vec![root, command, action]).await.unwrap();
        let request = reapi::ExecuteRequest { action_digest, ..Default::default() };
        let mut states = ExecutionClient::new(self.channel.clone()).execute(request).await.unwrap().into_inner();
        (states.message().await.unwrap().expect("expected a first state"), states)
    }

    async fn get(&self, operation: &Operation) -> Operation {
        let request = GetOperationRequest { name: operation.name.clone() };
        OperationsClient::new(self.channel.clone()).get_operation(request).await.unwrap().into_inner()
    }

    /// The operation, once it is done.
    async fn ends(&self, operation: &Operation) -> reapi::ExecuteResponse {
        let ended = async {
            loop {
                let now = self.get(operation).await;
                match now.result {
                    Some(OperationResult::Response(any)) if now.done => {
                        return reapi::ExecuteResponse::decode(any.value.as_slice()).unwrap();
                    }
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        tokio::time::timeout(DEADLINE, ended).await.expect("expected the operation to end")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_everyone_left_is_cancelled_when_the_configured_time_is_over_and_others_go_on() {
    let farm = coordinator(Duration::from_millis(100)).await;
    let (left, states) = farm.execute("left").await;
    let (waited_for, _states) = farm.execute("waited for").await;
    // One of two callers disconnects: the other still waits.
    let (shared, first) = farm.execute("shared").await;
    let request = reapi::WaitExecutionRequest { name: shared.name.clone() };
    let _second = ExecutionClient::new(farm.channel.clone()).wait_execution(request).await.unwrap();
    drop((states, first));
    let status = farm.ends(&left).await.status.unwrap();
    assert_eq!(Code::from_i32(status.code), Code::Cancelled);
    assert!(status.message.contains("no client was waiting"), "{}", status.message);
    for operation in [&waited_for, &shared] {
        assert!(!farm.get(operation).await.done, "expected an action that somebody waits for to continue");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_goes_on_for_those_who_come_back_in_time() {
    let farm = coordinator(Duration::from_secs(3_600)).await;
    let (left, states) = farm.execute("left").await;
    drop(states);
    let request = reapi::WaitExecutionRequest { name: left.name.clone() };
    let mut again = ExecutionClient::new(farm.channel.clone()).wait_execution(request).await.unwrap().into_inner();
    let state = again.message().await.unwrap().unwrap();
    assert_eq!((state.name, state.done), (left.name, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_as_unavailable_when_the_coordinator_stops_and_never_as_well() {
    let mut farm = coordinator(Duration::from_secs(3_600)).await;
    let (_operation, mut states) = farm.execute("waits").await;
    farm.stop.take().unwrap().send(()).unwrap();
    let ended = async {
        loop {
            match states.message().await {
                Ok(Some(state)) => assert!(!state.done, "expected no end"),
                other => return other,
            }
        }
    };
    let status = tokio::time::timeout(DEADLINE, ended).await.expect("expected the stream to end").unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("the coordinator is shutting down"), "{status}");
    tokio::time::timeout(DEADLINE, &mut farm.served).await.expect("expected it to stop").unwrap().unwrap();
}
