//! Streams of events as tools send them, well and badly, to a server in this process.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use futures::StreamExt;
use kiln_bazel::{Invocations, Publish, Show};
use kiln_journal::{Fsync, Journal};
use kiln_proto::bes::build_event::{BuildComponentStreamFinished, Event};
use kiln_proto::bes::publish_build_event_client::PublishBuildEventClient;
use kiln_proto::bes::publish_build_event_server::PublishBuildEventServer;
use kiln_proto::bes::{self, PublishBuildToolEventStreamRequest as Sent};
use kiln_proto::build_events::build_event::Payload;
use kiln_proto::build_events::{self as bep, BuildEvent};
use kiln_proto::v1::invocations_client::InvocationsClient;
use kiln_proto::v1::invocations_server::InvocationsServer;
use kiln_proto::v1::{self, Invocation, InvocationStatus};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Status};

const ID: &str = "6dd0dd6c-0000-4000-8000-000000000001";

/// A server on a directory, and a channel to it.
struct Served {
    channel: Channel,
    invocations: Invocations,
    stop: tokio_util::task::AbortOnDropHandle<()>,
    ended: futures::future::BoxFuture<'static, ()>,
}

/// Whoever names himself in a header is believed here.
fn named(mut request: Request<()>) -> Result<Request<()>, Status> {
    let name = request.metadata().get("name").map(|name| name.to_str().unwrap().to_owned()).unwrap_or_default();
    request.extensions_mut().insert(kiln_auth::Identity { name, ..kiln_auth::Identity::anonymous() });
    Ok(request)
}

async fn serve(directory: &Path) -> Served {
    let journal = Journal::open(&directory.join("journal.redb"), Fsync::default()).unwrap();
    let (ended, invocations) = (Box::pin(journal.ended()), Invocations::over(journal));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .add_service(PublishBuildEventServer::with_interceptor(Publish::new(invocations.clone()), named))
        .add_service(InvocationsServer::new(Show::new(invocations.clone())));
    let serving =
        tokio::spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    Served { channel, invocations, stop: tokio_util::task::AbortOnDropHandle::new(serving), ended }
}

fn sent(sequence_number: i64, event: Option<Event>) -> Sent {
    let stream_id = bes::StreamId { invocation_id: ID.into(), build_id: "b".into(), component: 3 };
    let event = Some(bes::BuildEvent { event, event_time: None });
    let ordered = bes::OrderedBuildEvent { stream_id: Some(stream_id), sequence_number, event };
    Sent { ordered_build_event: Some(ordered), ..Sent::default() }
}

fn event(sequence: i64, payload: Payload) -> Sent {
    let value = BuildEvent { payload: Some(payload), ..BuildEvent::default() }.encode_to_vec();
    sent(
        sequence,
        Some(Event::BazelEvent(prost_types::Any {
            type_url: "type.googleapis.com/build_event_stream.BuildEvent".into(),
            value,
        })),
    )
}

fn printed(sequence: i64, text: &str) -> Sent {
    event(sequence, Payload::Progress(bep::Progress { stderr: text.into(), ..bep::Progress::default() }))
}

fn started(sequence: i64) -> Sent {
    event(
        sequence,
        Payload::Started(bep::BuildStarted { command: "test".into(), start_time_millis: 5_000, ..Default::default() }),
    )
}

fn ended(sequence: i64) -> [Sent; 2] {
    let exit_code = Some(bep::build_finished::ExitCode { name: "SUCCESS".into(), code: 0 });
    let finished = Payload::Finished(bep::BuildFinished { exit_code, ..Default::default() });
    [
        event(sequence, finished),
        sent(sequence + 1, Some(Event::ComponentStreamFinished(BuildComponentStreamFinished { r#type: 1 }))),
    ]
}

impl Served {
    /// Ends the server, and waits until nobody uses its journal.
    async fn stop(self) {
        drop((self.channel, self.invocations, self.stop));
        self.ended.await;
    }

    /// Sends events and answers the numbers that were answered.
    async fn send(&self, by: &str, events: Vec<Sent>) -> Result<Vec<i64>, Status> {
        let mut request = Request::new(futures::stream::iter(events));
        request.metadata_mut().insert("name", by.parse().unwrap());
        let answers =
            PublishBuildEventClient::new(self.channel.clone()).publish_build_tool_event_stream(request).await?;
        answers
            .into_inner()
            .map(|answer| answer.map(|answer| answer.sequence_number))
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect()
    }

    async fn get(&self, id: &str) -> Result<Invocation, Status> {
        let mut client = InvocationsClient::new(self.channel.clone());
        Ok(client.get(v1::GetInvocationRequest { id: id.into() }).await?.into_inner())
    }

    async fn list(&self, before: &str) -> Vec<Invocation> {
        let mut client = InvocationsClient::new(self.channel.clone());
        let request = v1::ListInvocationsRequest { limit: 1, before: before.into() };
        client.list(request).await.unwrap().into_inner().invocations
    }

    async fn log(&self) -> String {
        self.log_of(ID).await
    }

    async fn log_of(&self, id: &str) -> String {
        let mut client = InvocationsClient::new(self.channel.clone());
        let parts = client.log(v1::InvocationLogRequest { id: id.into(), from: 0 }).await.unwrap().into_inner();
        let parts: Vec<_> = parts.map(|part| part.unwrap().data).collect().await;
        String::from_utf8(parts.concat()).unwrap()
    }
}

#[tokio::test]
async fn what_is_answered_is_kept_and_nothing_counts_twice() {
    let directory = tempfile::tempdir().unwrap();
    let served = serve(directory.path()).await;
    assert_eq!(served.send("a", vec![started(1), printed(2, "one\n")]).await.unwrap(), [1, 2]);
    let invocation = served.get(ID).await.unwrap();
    assert_eq!(invocation.status(), InvocationStatus::InvocationDisconnected, "its stream ended, and it did not");
    assert_eq!((invocation.command.as_str(), invocation.publisher.as_str()), ("test", "a"));
    served.stop().await;
    // The tool did not see the answers, and the coordinator was restarted.
    let served = serve(directory.path()).await;
    let [finished, last] = ended(4);
    let events = vec![started(1), printed(2, "one\n"), printed(3, "two\n"), finished, last];
    assert_eq!(served.send("a", events).await.unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(served.log().await, "one\ntwo\n");
    assert_eq!(served.get(ID).await.unwrap().status(), InvocationStatus::InvocationSucceeded);
    let listed = served.list("").await;
    assert_eq!(
        listed.iter().map(|one| (one.id.as_str(), one.status())).collect::<Vec<_>>(),
        [(ID, InvocationStatus::InvocationSucceeded)]
    );
    assert!(served.list(ID).await.is_empty());
}

#[tokio::test]
async fn an_invocation_runs_as_long_as_its_stream_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let served = serve(directory.path()).await;
    let (sender, receiver) = mpsc::channel(8);
    sender.send(started(1)).await.unwrap();
    let mut client = PublishBuildEventClient::new(served.channel.clone());
    let mut answers = client.publish_build_tool_event_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap().sequence_number, 1);
    assert_eq!(served.get(ID).await.unwrap().status(), InvocationStatus::InvocationRunning);
    for event in ended(2) {
        sender.send(event).await.unwrap();
    }
    let rest: Vec<_> = answers.by_ref().take(2).map(|answer| answer.unwrap().sequence_number).collect().await;
    assert_eq!(rest, [2, 3]);
    assert_eq!(served.get(ID).await.unwrap().status(), InvocationStatus::InvocationSucceeded);
}

#[tokio::test]
async fn what_is_no_stream_of_events_is_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let served = serve(directory.path()).await;
    let refused = async |by: &str, events: Vec<Sent>| served.send(by, events).await.unwrap_err();
    assert_eq!(refused("a", vec![Sent::default()]).await.code(), Code::InvalidArgument);
    assert_eq!(refused("a", vec![started(0)]).await.code(), Code::InvalidArgument);
    for id in ["", "../x", "a b", &"a".repeat(65)] {
        let mut event = started(1);
        event.ordered_build_event.as_mut().unwrap().stream_id.as_mut().unwrap().invocation_id = id.into();
        assert!(refused("a", vec![event]).await.message().contains("invocation id"), "{id}");
    }
    let nonsense = prost_types::Any { value: vec![0x0a, 0xff], ..prost_types::Any::default() };
    assert!(refused("a", vec![sent(1, Some(Event::BazelEvent(nonsense)))]).await.message().contains("not Bazel's"));
    assert_eq!(served.get(ID).await.unwrap_err().code(), Code::NotFound);
    served.send("a", vec![started(1)]).await.unwrap();
    let refusal = refused("b", vec![printed(2, "not mine\n")]).await;
    assert_eq!(refusal.code(), Code::PermissionDenied);
    assert_eq!(served.log().await, "");
}

#[tokio::test]
async fn an_endless_stream_fills_neither_memory_nor_disk() {
    let directory = tempfile::tempdir().unwrap();
    let served = serve(directory.path()).await;
    let line = "x".repeat(1 << 20);
    let mut events = vec![started(1)];
    events.extend((2..=14).map(|sequence| printed(sequence, &line)));
    assert_eq!(served.send("a", events).await.unwrap().len(), 14);
    let invocation = served.get(ID).await.unwrap();
    assert_eq!((invocation.printed_bytes, invocation.is_cut), (8 << 20, true));
    assert_eq!(served.log().await.len(), 8 << 20);
}

/// A field of a message that holds others, or text.
fn field(tag: u8, inner: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    prost::encoding::encode_key(tag.into(), prost::encoding::WireType::LengthDelimited, &mut data);
    prost::encoding::encode_varint(inner.len() as u64, &mut data);
    [data.as_slice(), inner].concat()
}

#[tokio::test]
async fn a_small_event_that_would_become_a_large_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let served = serve(directory.path()).await;
    // Options, entries of metadata, files of a test, arguments of an action: each empty, and two bytes long.
    for (tag, list) in [(13, [0x22, 0]), (26, [0x0a, 0]), (10, [0x12, 0]), (7, [0x4a, 0])] {
        let value = field(tag, &list.repeat(600_000));
        let any = prost_types::Any { value, ..prost_types::Any::default() };
        let refused = served.send("a", vec![started(1), sent(2, Some(Event::BazelEvent(any)))]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{tag}");
        assert!(refused.message().contains("elements"), "{refused}");
    }
    assert_eq!(served.get(ID).await.unwrap().last_event, 1, "expected what came before to be kept");
}

#[tokio::test]
async fn events_out_of_order_are_refused_and_what_is_sent_again_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let served = serve(directory.path()).await;
    let [finished, last] = ended(2);
    for events in [
        vec![started(1), printed(3, "a gap\n")],
        vec![started(1), started(1)],
        vec![started(2), printed(1, "backwards\n")],
        vec![started(i64::MAX), printed(i64::MIN, "around\n")],
        vec![started(1), finished, last, printed(4, "after the end\n")],
    ] {
        let refused = served.send("a", events).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    assert_eq!(served.log().await, "");
    // A tool that connects again begins with what was not answered, whatever that is.
    let other = |sequence| {
        let mut event = printed(sequence, &format!("{sequence}\n"));
        event.ordered_build_event.as_mut().unwrap().stream_id.as_mut().unwrap().invocation_id = "other".into();
        event
    };
    assert_eq!(served.send("a", (1..=4).map(other).collect()).await.unwrap(), [1, 2, 3, 4]);
    assert_eq!(served.send("a", (2..=6).map(other).collect()).await.unwrap(), [2, 3, 4, 5, 6]);
    assert_eq!(served.log_of("other").await, "1\n2\n3\n4\n5\n6\n");
}

#[tokio::test]
async fn an_id_that_comes_back_with_each_answer_is_short() {
    let directory = tempfile::tempdir().unwrap();
    let served = serve(directory.path()).await;
    let mut event = started(1);
    event.ordered_build_event.as_mut().unwrap().stream_id.as_mut().unwrap().build_id = "b".repeat(1 << 20);
    assert!(served.send("a", vec![event]).await.unwrap_err().message().contains("build id"));
}

#[tokio::test]
async fn an_invocation_from_the_future_is_no_newer_than_those_that_come_later() {
    let directory = tempfile::tempdir().unwrap();
    let served = serve(directory.path()).await;
    let of = |id: &str, start_time_millis| {
        let started = bep::BuildStarted { start_time_millis, ..Default::default() };
        let mut event = event(1, Payload::Started(started));
        event.ordered_build_event.as_mut().unwrap().stream_id.as_mut().unwrap().invocation_id = id.into();
        event
    };
    for (id, millis) in [("future", 253_402_300_799_000), ("never", i64::MAX), ("now", 1_790_000_000_000)] {
        served.send("a", vec![of(id, millis)]).await.unwrap();
    }
    assert_eq!(served.list("").await[0].id, "now");
    assert_eq!(served.list("now").await[0].id, "never");
}

fn action(output: &str) -> v1::RemoteAction {
    v1::RemoteAction { output: output.into(), failure: "ä".repeat(10_000), ..v1::RemoteAction::default() }
}

#[tokio::test]
async fn actions_are_kept_of_whoever_tells_of_the_invocation_and_so_many_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let served = serve(directory.path()).await;
    let on = async |from: u64| {
        let mut client = InvocationsClient::new(served.channel.clone());
        client.actions(v1::InvocationActionsRequest { id: ID.into(), from }).await.map(|answer| answer.into_inner())
    };
    let actions = async || on(0).await;
    served.invocations.ran(ID, "a", action("before it tells of itself"));
    assert_eq!(actions().await.unwrap_err().code(), Code::NotFound);
    let (sender, receiver) = mpsc::channel(8);
    sender.send(started(1)).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(receiver));
    request.metadata_mut().insert("name", "a".parse().unwrap());
    let mut client = PublishBuildEventClient::new(served.channel.clone());
    let mut answers = client.publish_build_tool_event_stream(request).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap().sequence_number, 1);
    served.invocations.ran(ID, "a", action("a.o"));
    served.invocations.ran(ID, "b", action("of somebody else"));
    served.invocations.ran("another", "a", action("of another invocation"));
    let first = action("a.o");
    let kept = loop {
        let kept = actions().await.unwrap();
        if !kept.actions.is_empty() {
            break kept;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((kept.actions.len(), kept.actions[0].output.as_str(), kept.is_cut), (1, first.output.as_str(), false));
    assert_eq!(kept.actions[0].failure.len(), 512, "expected a long text to be cut");
    // Whoever has these reads on behind them.
    let known = kept.next;
    let none = on(known).await.unwrap();
    assert_eq!((none.actions.len(), none.next), (0, known));
    served.invocations.ran(ID, "a", action("b.o"));
    let more = loop {
        let more = on(known).await.unwrap();
        if !more.actions.is_empty() {
            break more;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((more.actions.len(), more.actions[0].output.as_str(), more.is_cut), (1, "b.o", false));
    for number in 0..6_000 {
        let output = number.to_string();
        served.invocations.ran(ID, "a", v1::RemoteAction { output, ..v1::RemoteAction::default() });
    }
    for event in ended(2) {
        sender.send(event).await.unwrap();
    }
    while answers.next().await.is_some_and(|answer| answer.unwrap().sequence_number < 3) {}
    drop(sender);
    let kept = actions().await.unwrap();
    assert_eq!((kept.actions.len(), kept.is_cut), (5_000, true));
    // The parts are the whole, and the last one says, too, that there were more.
    let rest = on(more.next).await.unwrap();
    assert_eq!((rest.actions.len(), rest.next, rest.is_cut), (4_998, kept.next, true));
}

/// Prints how many events a second are taken in and answered, from one stream and from sixteen.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run it with `--release -- --ignored --nocapture`"]
async fn events_a_second() {
    const EVENTS: i64 = 20_000;
    for streams in [1, 16] {
        let directory = tempfile::tempdir().unwrap();
        let served = serve(directory.path()).await;
        let of = |number: usize| -> Vec<Sent> {
            let mut all = vec![started(1)];
            all.extend(
                (2..=EVENTS)
                    .map(|sequence| printed(sequence, "INFO: Analyzed target //some/package:target (12 packages)\n")),
            );
            for event in &mut all {
                let stream = event.ordered_build_event.as_mut().unwrap().stream_id.as_mut().unwrap();
                stream.invocation_id = format!("{ID}-{number}");
            }
            all
        };
        let all: Vec<Vec<Sent>> = (0..streams).map(of).collect();
        let began = std::time::Instant::now();
        let answered = futures::future::join_all(all.into_iter().map(|events| served.send("a", events))).await;
        let took = began.elapsed().as_secs_f64();
        let count: usize = answered.into_iter().map(|answered| answered.unwrap().len()).sum();
        println!("{streams} streams: {:.0} events a second", count as f64 / took);
    }
}
