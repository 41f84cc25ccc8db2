//! Calls that one coordinator passes on to another, and somebody on the way records, sends again and changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use kiln_harness::replicas::{KEEPS, Replicas};
use kiln_harness::{Ran, until};
use parking_lot::Mutex;
use tonic::codegen::{Service, http};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const REVOKE: &str = "/kiln.v1.Membership/Revoke";

/// A call as it came over the wire.
#[derive(Clone)]
struct Recorded {
    head: http::request::Parts,
    request: Bytes,
}

impl Recorded {
    /// Sends it to a coordinator; returns how that answers.
    async fn send(&self, url: &str) -> Status {
        let channel = Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        let call = http::Request::from_parts(self.head.clone(), Body::from(self.request.clone()));
        status(&forward(channel, url, call).await)
    }
}

fn status(answer: &Response) -> Status {
    Status::from_header_map(answer.headers()).unwrap_or_else(|| Status::ok("it was answered"))
}

async fn forward(mut channel: Channel, url: &str, mut call: Request) -> Response {
    let path = call.uri().path().to_owned();
    *call.uri_mut() = format!("{url}{path}").parse().unwrap();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    channel.call(call.map(tonic::body::Body::new)).await.unwrap().map(Body::new)
}

/// What a recorder does with a revocation, besides recording it.
const PASS: u8 = 0;
/// It names somebody else.
const CHANGE: u8 = 1;
/// It does not arrive.
const KEEP: u8 = 2;

/// Somebody between a coordinator and those that call it.
#[derive(Clone)]
struct Recorder {
    /// Where the others take the coordinator to be.
    url: String,
    target: String,
    channel: Channel,
    calls: Arc<Mutex<Vec<Recorded>>>,
    does: Arc<AtomicU8>,
}

async fn record(State(recorder): State<Recorder>, call: Request) -> Response {
    let (channel, target) = (recorder.channel.clone(), &recorder.target);
    if call.uri().path() != REVOKE {
        return forward(channel, target, call).await;
    }
    let (head, body) = call.into_parts();
    let mut request = to_bytes(body, 1 << 20).await.unwrap();
    recorder.calls.lock().push(Recorded { head: head.clone(), request: request.clone() });
    match recorder.does.load(Ordering::SeqCst) {
        KEEP => return Status::unavailable("it got lost").into_http(),
        CHANGE => {
            let changed: Vec<u8> = request.iter().map(|byte| if *byte == b'x' { b'y' } else { *byte }).collect();
            assert_ne!(changed, request);
            request = changed.into();
        }
        _ => {}
    }
    forward(channel, target, http::Request::from_parts(head, Body::from(request))).await
}

impl Recorder {
    /// In front of the coordinator at this URL.
    async fn at(target: &str) -> Self {
        let channel = Endpoint::from_shared(target.to_owned()).unwrap().connect_lazy();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (calls, does) = (Arc::default(), Arc::default());
        let recorder = Self { url, target: target.to_owned(), channel, calls, does };
        let routes = axum::Router::new().fallback(record).with_state(recorder.clone());
        let routes = tonic::service::Routes::from(routes);
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming));
        recorder
    }

    fn last(&self) -> Recorded {
        self.calls.lock().last().expect("expected a recorded call").clone()
    }
}

/// Coordinators of which `ben` leads and is reached through a recorder, the token of their admin, and their audit log.
fn recorded_farm(runtime: &tokio::runtime::Runtime) -> Option<(Replicas, Recorder, tempfile::TempDir)> {
    let home = tempfile::tempdir().unwrap();
    let token = |name: &str, role: &str| {
        let mut command = std::process::Command::new(kiln_harness::run::program());
        command.args(["farm", "token", name, "--role", role, "--farm-dir"]).arg(home.path());
        command.env("KILN_CONFIG", "/nowhere/config.toml").env_remove("KILN_FARM");
        let ran = Ran::from(command);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.trim().to_owned()
    };
    let access = vec![("KILN_TOKEN".to_owned(), token("root", "farm-admin"))];
    for name in ["xan", "yan"] {
        token(name, "builder");
    }
    let (tokens, log) = (home.path().join("tokens.toml"), home.path().join("audit.jsonl"));
    let more = ["--tokens", tokens.to_str().unwrap(), "--audit-log", log.to_str().unwrap()];
    let farm = Replicas::with(&["ada", "ben", "cyd"], &[], &KEEPS, &more, "http", access)?;
    for name in farm.names() {
        assert_eq!(farm.stop_coordinator(&name), Some(0));
    }
    let recorder = runtime.block_on(Recorder::at(&farm.url_of("ben")));
    farm.start_coordinator_with("ben", &["--advertise", &recorder.url]);
    until("it to lead", || farm.leader().filter(|name| name == "ben"));
    for name in ["ada", "cyd"] {
        farm.start_coordinator(name);
    }
    for name in ["ada", "cyd"] {
        until("the others to follow", || (farm.kiln_at(name, &["farm", "list"]).code == 0).then_some(()));
    }
    Some((farm, recorder, home))
}

/// Whether somebody is revoked, according to the coordinator that leads.
fn is_revoked(farm: &Replicas, name: &str) -> bool {
    let listed = farm.kiln_at("ben", &["farm", "list", "--json"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&listed.out).unwrap();
    rows.iter().any(|row| row["name"] == name && row["state"] == "revoked")
}

fn refused(answer: &Status, words: &str) {
    assert_eq!(answer.code(), Code::Unauthenticated, "{answer:?}");
    assert!(answer.message().contains(words), "expected `{words}` in {answer:?}");
}

#[test]
fn a_recorded_call_is_refused_wherever_and_however_it_is_sent_again() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some((farm, recorder, home)) = recorded_farm(&runtime) else { return };
    let sent = |call: &Recorded, name: &str| runtime.block_on(call.send(&farm.url_of(name)));
    let ran = farm.kiln_at("ada", &["farm", "revoke", "xan"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(is_revoked(&farm, "xan"));
    let ran = farm.kiln_at("ben", &["farm", "unrevoke", "xan"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // The same bytes again, to the coordinator that they were for, and to another one.
    let call = recorder.last();
    refused(&sent(&call, "ben"), "received before");
    refused(&sent(&call, "cyd"), &format!("passed on to the coordinator at `{}", recorder.url));
    let log = std::fs::read_to_string(home.path().join("audit.jsonl")).unwrap();
    let is_refused = |line: &&str| line.contains(REVOKE) && line.contains("Unauthenticated");
    assert_eq!(log.lines().filter(is_refused).count(), 2, "{log}");
    // One that has not arrived yet: as another call, with another message, and with a seal from elsewhere.
    recorder.does.store(KEEP, Ordering::SeqCst);
    let lost = farm.kiln_at("ada", &["farm", "revoke", "xan"]);
    assert_ne!(lost.code, 0, "{lost:?}");
    recorder.does.store(PASS, Ordering::SeqCst);
    let call = recorder.last();
    let mut other = call.clone();
    other.head.uri = http::Uri::from_static("/kiln.v1.Membership/Unrevoke");
    refused(&sent(&other, "ben"), "not from a coordinator of this farm");
    assert!(!is_revoked(&farm, "xan"));
    // It counts when it arrives, once: what is refused is refused for what it is.
    let late = sent(&call, "ben");
    assert_eq!(late.code(), Code::Ok, "{late:?}");
    assert!(is_revoked(&farm, "xan"));
    refused(&sent(&call, "ben"), "received before");
    // Changed on its way.
    recorder.does.store(CHANGE, Ordering::SeqCst);
    let changed = farm.kiln_at("cyd", &["farm", "revoke", "xan"]);
    assert!(changed.code != 0 && changed.err.contains("another request than the one that was sealed"), "{changed:?}");
    assert!(!is_revoked(&farm, "yan"));
    recorder.does.store(PASS, Ordering::SeqCst);
}

#[test]
fn a_recorded_call_is_refused_after_a_restart_and_the_calls_of_the_farm_are_not() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some((farm, recorder, _home)) = recorded_farm(&runtime) else { return };
    recorder.does.store(KEEP, Ordering::SeqCst);
    assert_ne!(farm.kiln_at("ada", &["farm", "revoke", "xan"]).code, 0);
    recorder.does.store(PASS, Ordering::SeqCst);
    farm.kill_coordinator("ben");
    let after = farm.wait_for_another("ben");
    farm.start_coordinator_with("ben", &["--advertise", &recorder.url]);
    until("it to follow", || (farm.kiln_at("ben", &["farm", "list"]).code == 0).then_some(()));
    refused(&runtime.block_on(recorder.last().send(&farm.url_of("ben"))), "a challenge that is over");
    // Until it leads again, under its old address, and the others call it.
    for name in ["ada", "cyd"] {
        farm.stop_coordinator(name);
    }
    until("it to lead", || farm.leader().filter(|name| name == "ben"));
    farm.start_coordinator(&after);
    let ran = until("its calls to be passed on", || {
        Some(farm.kiln_at(&after, &["farm", "revoke", "xan"])).filter(|ran| ran.code == 0)
    });
    assert!(is_revoked(&farm, "xan"), "{ran:?}");
}
