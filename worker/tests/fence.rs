//! A worker that leaders of several epochs greet: it works for the newest, and goes on looking for it.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};

use kiln_harness::Lasting;
use kiln_proto::v1::worker_message::Message;
use kiln_proto::v1::workers_server::{Workers, WorkersServer};
use kiln_proto::v1::{CoordinatorMessage, Register, Registered, WorkerMessage, coordinator_message};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// A coordinator that greets workers as the leader of an epoch, and ends their links when that changes.
#[derive(Clone)]
struct Leader {
    epoch: watch::Sender<u64>,
    heard: mpsc::UnboundedSender<(u64, Register)>,
}

impl Leader {
    async fn start(epoch: u64) -> (Self, String, mpsc::UnboundedReceiver<(u64, Register)>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (heard, hears) = mpsc::unbounded_channel();
        let leader = Self { epoch: watch::Sender::new(epoch), heard };
        let server = tonic::transport::Server::builder().add_service(WorkersServer::new(leader.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (leader, url, hears)
    }

    fn become_leader_of(&self, epoch: u64) {
        self.epoch.send_replace(epoch);
    }

    fn end_links(&self) {
        self.epoch.send_modify(|_| ());
    }
}

#[tonic::async_trait]
impl Workers for Leader {
    type LinkStream = UnboundedReceiverStream<Result<CoordinatorMessage, Status>>;

    async fn link(&self, request: Request<Streaming<WorkerMessage>>) -> Result<Response<Self::LinkStream>, Status> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (leader, mut messages) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let mut changes = leader.epoch.subscribe();
            loop {
                let message = tokio::select! {
                    message = messages.message() => message,
                    _ = changes.changed() => return,
                };
                let Ok(Some(message)) = message else { return };
                if let Some(Message::Register(register)) = message.message {
                    let epoch = *leader.epoch.borrow();
                    let greeting = Registered { epoch, ..Registered::default() };
                    let message = Some(coordinator_message::Message::Registered(greeting));
                    let _ = leader.heard.send((epoch, register));
                    let _ = sender.send(Ok(CoordinatorMessage { message }));
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(receiver)))
    }
}

fn worker(dir: &std::path::Path, urls: &str) -> Lasting {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-worker"));
    command.args(["--coordinator", urls, "--name", "one", "--sandbox", "off", "--docker", "off", "--state-dir"]);
    command.arg(dir).stdin(Stdio::null()).env_remove("KILN_LOG");
    Lasting::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_the_past_is_refused_and_the_next_address_tried() {
    let (old, first, mut at_old) = Leader::start(5).await;
    let (new, second, mut at_new) = Leader::start(7).await;
    let dir = tempfile::tempdir().unwrap();
    let mut process = worker(dir.path(), &format!("{first},{second}"));
    let session = tokio::select! {
        // Nothing is wrong with it before the worker has met the other.
        Some((_, register)) = at_old.recv() => {
            old.end_links();
            assert_eq!(at_new.recv().await.unwrap().1.session, register.session);
            register.session
        }
        Some((_, register)) = at_new.recv() => register.session,
    };
    new.end_links();
    let line = process.line_with("led the farm in the past (epoch 5)");
    assert!(line.contains("later leader (epoch 7)") && line.contains(&first), "{line}");
    let (epoch, register) = at_new.recv().await.unwrap();
    assert_eq!((epoch, register.session), (7, session), "expected the same worker at the new leader again");
    assert!(process.line_with("registered").contains(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_coordinator_of_a_farm_is_admitted_whatever_was_before() {
    let (leader, url, mut hears) = Leader::start(9).await;
    let dir = tempfile::tempdir().unwrap();
    let mut process = worker(dir.path(), &url);
    process.line_with("registered");
    leader.become_leader_of(0);
    process.line_with("registered");
    leader.become_leader_of(3);
    assert!(process.line_with("led the farm in the past (epoch 3)").contains("(epoch 9)"));
    leader.become_leader_of(10);
    process.line_with("registered");
    let mut epochs = Vec::new();
    while let Ok((epoch, _)) = hears.try_recv() {
        epochs.push(epoch);
    }
    epochs.dedup();
    assert_eq!(epochs, [9, 0, 3, 10]);
}
