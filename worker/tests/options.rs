//! The worker's configuration file: every option can stand in it, `--check-config` verifies it, SIGHUP reads it again.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use kiln_harness::guarded::refused;
use kiln_harness::options::{configured, files};
use kiln_harness::{Lasting, Ran};
use kiln_proto::v1::worker_message::Message;
use kiln_proto::v1::workers_server::{Workers, WorkersServer};
use kiln_proto::v1::{CoordinatorMessage, Register, Registered, WorkerMessage, coordinator_message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// `kiln-worker` with the file `worker.toml` in this directory, and these further arguments.
fn worker(dir: &Path, arguments: &[&str]) -> Command {
    configured(env!("CARGO_BIN_EXE_kiln-worker"), &dir.join("worker.toml"), arguments)
}

#[test]
fn every_option_can_stand_in_the_file() {
    kiln_harness::options::round_trip::<kiln_worker::Arguments>();
}

#[test]
fn what_a_configuration_names_is_checked_without_starting() {
    let join = format!("kiln-join.{}.hunter22", "0".repeat(64));
    let text = format!(
        "coordinator = \"https://farm.example:8980\"\nstate-dir = \"state\"\njoin = \"{join}\"\nlabel = [\"gpu=a100\"]\n"
    );
    let dir = files(&[("worker.toml", &text)]);
    let ran = Ran::from(worker(dir.path(), &["--check-config"]));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("label = [\"gpu=a100\"]") && ran.out.contains("# join is set and not shown"), "{ran:?}");
    assert!(!ran.out.contains("hunter22") && !dir.path().join("state").exists(), "{ran:?}");

    // A secret that others can read.
    let file = dir.path().join("worker.toml");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(&Ran::from(worker(dir.path(), &["--check-config"])), 1, "has a secret and can be read by every user");

    let text = "coordinator = \"ftp://farm.example\"\nstate-dir = \"token\"\njoin-file = \"token\"\nca = \"token\"\nroot = \"/nowhere\"\n";
    let dir = files(&[("worker.toml", text), ("token", "no token")]);
    let ran = Ran::from(worker(dir.path(), &["--check-config"]));
    assert_eq!(ran.code, 1, "{ran:?}");
    for words in [
        "invalid farm URL `ftp://farm.example`",
        "invalid join token",
        "token` has no certificate or no key",
        "the root `/nowhere`: it is not a directory",
        "cannot use the state directory",
    ] {
        assert!(
            ran.err.lines().any(|line| line.starts_with("error: ") && line.contains(words)),
            "expected `{words}` in {ran:?}"
        );
    }
    refused(&Ran::from(worker(dir.path(), &["--join", "x"])), 2, "`join-file` (line 3)");
}

#[test]
fn addresses_that_make_no_sense_are_refused_before_anything_starts() {
    for (urls, words) in [
        ("https://a:8980,", "an address is missing"),
        ("https://a:8980,http://b:8980", "mixes TLS and plain HTTP"),
        ("https://a:8980,https://A:8980", "is twice in"),
        ("ftp://a:8980", "invalid farm URL"),
    ] {
        let dir = files(&[("worker.toml", &format!("coordinator = \"{urls}\"\nstate-dir = \"state\"\n"))]);
        refused(&Ran::from(worker(dir.path(), &["--check-config"])), 1, words);
        refused(&Ran::from(worker(dir.path(), &[])), 1, words);
        assert!(!dir.path().join("state").exists());
    }
    let dir = files(&[("worker.toml", "coordinator = \"https://a:8980,https://b:8980\"\nstate-dir = \"state\"\n")]);
    assert_eq!(Ran::from(worker(dir.path(), &["--check-config"])).code, 0);
}

/// A coordinator that only hears what workers register.
struct Hearing(mpsc::UnboundedSender<Register>);

#[tonic::async_trait]
impl Workers for Hearing {
    type LinkStream = UnboundedReceiverStream<Result<CoordinatorMessage, Status>>;

    async fn link(&self, request: Request<Streaming<WorkerMessage>>) -> Result<Response<Self::LinkStream>, Status> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (heard, mut messages) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                if let Some(Message::Register(register)) = message.message {
                    let _ = heard.send(register);
                    let message = Some(coordinator_message::Message::Registered(Registered::default()));
                    let _ = sender.send(Ok(CoordinatorMessage { message }));
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(receiver)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_registers_the_worker_with_its_new_labels_and_names_what_needs_a_restart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut registered) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(WorkersServer::new(Hearing(sender)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let text = |more: &str| {
        format!(
            "coordinator = \"{url}\"\nstate-dir = \"state\"\nname = \"one\"\nsandbox = \"off\"\ndocker = \"off\"\n{more}"
        )
    };
    let dir = files(&[("worker.toml", &text("label = [\"disk=ssd\"]\nmemory = \"1GiB\"\n"))]);
    let write = |more: &str| std::fs::write(dir.path().join("worker.toml"), text(more)).unwrap();
    let mut process = Lasting::start(worker(dir.path(), &[]));
    let first = registered.recv().await.unwrap();
    let labels = |register: &Register| register.environment.clone().unwrap().labels;
    assert_eq!(labels(&first)["disk"], "ssd");
    assert_eq!(first.capacity.unwrap().memory_bytes, 1 << 30);

    // One with an error changes nothing.
    write("label = [\"disk\"]\n");
    process.hang_up();
    let line = process.line_with("the previous one stays in effect");
    assert!(line.contains("line 6: invalid value `disk` for `label`"), "{line}");

    write("label = [\"gpu=a100\"]\nmemory = \"2GiB\"\ngrace = \"1m\"\n");
    process.hang_up();
    let line = process.line_with("reloaded the configuration");
    assert!(line.contains("changed=\"label, memory\""), "{line}");
    let line = process.line_with("takes effect after a restart");
    assert!(line.contains("changed=\"`grace`\""), "{line}");
    let second = registered.recv().await.unwrap();
    assert_eq!((labels(&second).get("disk"), labels(&second)["gpu"].as_str()), (None, "a100"));
    assert_eq!(second.capacity.unwrap().memory_bytes, 2 << 30);
    assert_eq!(second.session, first.session, "expected the same worker, with what it runs");
}
