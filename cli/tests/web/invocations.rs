//! Invocations of Bazel in the browser. The events are sent as Bazel sends them; `cli/tests/bazel.rs` has a real one.

use std::net::TcpListener;

use kiln_proto::bes::build_event::Event;
use kiln_proto::bes::publish_build_event_client::PublishBuildEventClient;
use kiln_proto::bes::{self, PublishBuildToolEventStreamRequest as Sent};
use kiln_proto::build_events::build_event::Payload;
use kiln_proto::build_events::build_event_id::{Id, LabelId, PatternExpandedId, TestResultId};
use kiln_proto::build_events::{self as bep, BuildEvent, BuildEventId, TestStatus};
use kiln_proto::channel::{self, Access, Channel};
use kiln_proto::digest::DigestFunction;
use kiln_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use kiln_proto::reapi::{BatchUpdateBlobsRequest, batch_update_blobs_request};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::world::{browse, curl, farm, has_browser};

const ID: &str = "6dd0dd6c-0000-4000-8000-0000000000aa";

fn event(sequence_number: i64, id: Option<Id>, payload: Option<Payload>) -> Sent {
    event_of(ID, sequence_number, id, payload)
}

/// An event of this invocation.
pub fn told(invocation: &str, sequence_number: i64, payload: Payload) -> Sent {
    event_of(invocation, sequence_number, None, Some(payload))
}

/// Tells of these events, until the farm has them.
fn publish(runtime: &tokio::runtime::Runtime, channel: &Channel, events: Vec<Sent>) {
    runtime.block_on(async {
        let mut client = PublishBuildEventClient::new(channel.clone());
        let sent = tokio_stream::iter(events);
        let mut answers = client.publish_build_tool_event_stream(sent).await.unwrap().into_inner();
        while answers.message().await.unwrap().is_some() {}
    });
}

fn event_of(invocation: &str, sequence_number: i64, id: Option<Id>, payload: Option<Payload>) -> Sent {
    let event = BuildEvent { id: id.map(|id| BuildEventId { id: Some(id) }), payload, ..BuildEvent::default() };
    let any = prost_types::Any { type_url: "build_event_stream.BuildEvent".into(), value: event.encode_to_vec() };
    let stream_id = bes::StreamId { invocation_id: invocation.into(), ..bes::StreamId::default() };
    let event = bes::BuildEvent { event: Some(Event::BazelEvent(any)), event_time: None };
    let ordered = bes::OrderedBuildEvent { stream_id: Some(stream_id), sequence_number, event: Some(event) };
    Sent { ordered_build_event: Some(ordered), ..Sent::default() }
}

fn attempt(sequence: i64, label: &str, attempt: i32, status: TestStatus) -> Sent {
    let id = Id::TestResult(TestResultId { label: label.into(), run: 1, attempt, ..TestResultId::default() });
    let result =
        bep::TestResult { status: status.into(), test_attempt_duration_millis: 1200, ..bep::TestResult::default() };
    event(sequence, Some(id), Some(Payload::TestResult(result)))
}

fn summary(sequence: i64, label: &str, status: TestStatus) -> Sent {
    let id = Id::TestSummary(LabelId { label: label.into() });
    event(sequence, Some(id), Some(Payload::TestSummary(bep::TestSummary { overall_status: status.into() })))
}

/// What is told before anybody looks.
fn begin() -> Vec<Sent> {
    let started =
        bep::BuildStarted { command: "test".into(), start_time_millis: 1_790_000_000_000, ..Default::default() };
    let pattern = Id::Pattern(PatternExpandedId { pattern: vec!["//...".into()] });
    let progress = bep::Progress {
        stderr: "\u{1b}[31mERROR:\u{1b}[0m <script>window.attacked = true</script>\n".into(),
        ..Default::default()
    };
    vec![
        event(1, None, Some(Payload::Started(started))),
        event(2, Some(pattern), None),
        event(3, None, Some(Payload::Progress(progress))),
    ]
}

fn end() -> Vec<Sent> {
    let stderr =
        bep::File { name: "stderr".into(), file: Some(bep::file::File::Contents(b"x.c: no such file\n".to_vec())) };
    let label = "//:<script>window.attacked = true</script>".into();
    let failed = bep::ActionExecuted {
        label,
        r#type: "CppCompile".into(),
        exit_code: 1,
        stderr: Some(stderr),
        ..Default::default()
    };
    let exit_code = Some(bep::build_finished::ExitCode { name: "TESTS_FAILED".into(), code: 3 });
    vec![
        event(4, None, Some(Payload::Action(failed))),
        attempt(5, "//:wrong", 1, TestStatus::Failed),
        attempt(6, "//:sometimes", 1, TestStatus::Failed),
        attempt(7, "//:sometimes", 2, TestStatus::Passed),
        attempt(8, "//:right", 1, TestStatus::Passed),
        summary(9, "//:wrong", TestStatus::Failed),
        summary(10, "//:sometimes", TestStatus::Flaky),
        summary(11, "//:right", TestStatus::Passed),
        event(
            12,
            None,
            Some(Payload::Progress(bep::Progress { stderr: "3 tests, at last".into(), ..Default::default() })),
        ),
        event(13, None, Some(Payload::Finished(bep::BuildFinished { exit_code, ..Default::default() }))),
    ]
}

#[test]
fn an_invocation_is_followed_live_and_what_failed_is_first() {
    if !has_browser() {
        return;
    }
    let (farm, pages) = farm(&[]);
    let looked = TcpListener::bind("127.0.0.1:0").unwrap();
    looked.set_nonblocking(true).unwrap();
    let port = looked.local_addr().unwrap().port().to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (sender, receiver) = mpsc::channel(32);
    let mut answers = runtime.block_on(async {
        let channel = channel::connect(&farm.url, &Access::default()).await.unwrap();
        for event in begin() {
            sender.send(event).await.unwrap();
        }
        let sent = ReceiverStream::new(receiver);
        let mut answers =
            PublishBuildEventClient::new(channel).publish_build_tool_event_stream(sent).await.unwrap().into_inner();
        while answers.message().await.unwrap().unwrap().sequence_number < 3 {}
        answers
    });
    std::thread::scope(|scope| {
        let browsing = scope.spawn(|| browse("invocations.cjs", &[&pages, ID, &port]));
        kiln_harness::until("the browser to have looked", || {
            (looked.accept().is_ok() || browsing.is_finished()).then_some(())
        });
        runtime.block_on(async {
            for event in end() {
                sender.send(event).await.unwrap();
            }
            drop(sender);
            while answers.message().await.unwrap().is_some() {}
        });
        browsing.join().unwrap();
    });
}

/// A profile, compressed, of these events and of so much space behind them.
fn profile(events: &str, megabytes: usize) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(format!("{{\"traceEvents\":[{events},").as_bytes()).unwrap();
    (0..megabytes).for_each(|_| encoder.write_all(&vec![b' '; 1 << 20]).unwrap());
    encoder.finish().unwrap()
}

#[test]
fn what_an_invocation_names_is_read_with_care() {
    let (farm, pages) = farm(&[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let channel = runtime.block_on(channel::connect(&farm.url, &Access::default())).unwrap();
    // Uploads a blob, and answers how a tool names it.
    let upload = |data: Vec<u8>| {
        let digest = DigestFunction::Sha256.digest(&data);
        let uri = format!("bytestream://elsewhere.example:1/blobs/{digest}");
        let blob = batch_update_blobs_request::Request { digest: Some(digest.to_wire()), data, ..Default::default() };
        let request = BatchUpdateBlobsRequest { requests: vec![blob], ..Default::default() };
        let mut client = ContentAddressableStorageClient::new(channel.clone());
        runtime.block_on(client.batch_update_blobs(request)).unwrap();
        uri
    };
    // Tells of an invocation with this profile and this output of a failed action; its page.
    let shown = |id: &str, profile: String, stderr: String| {
        let file = |name: &str, uri: String| bep::File { name: name.into(), file: Some(bep::file::File::Uri(uri)) };
        let failed = bep::ActionExecuted { stderr: Some(file("stderr", stderr)), exit_code: 1, ..Default::default() };
        let logs = bep::BuildToolLogs { log: vec![file("command.profile.gz", profile)] };
        let events = vec![
            told(id, 1, Payload::Action(failed)),
            told(id, 2, Payload::BuildToolLogs(logs)),
            told(id, 3, Payload::Finished(bep::BuildFinished::default())),
        ];
        publish(&runtime, &channel, events);
        let answer = curl(&[&format!("{pages}/invocations/{id}")]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    let one =
        r#"{"cat":"action processing","name":"<script>window.attacked = true</script>","ph":"X","ts":1,"dur":9000}"#;
    let output = upload([vec![b'x'; 1 << 20], b"\nthese are <b>its</b> last words\n".to_vec()].concat());
    let nowhere = format!("bytestream://farm/blobs/{}/7", "0".repeat(64));

    let page = shown("well", upload(profile(one, 0)), output);
    assert!(page.contains("breaks off") && page.contains("&lt;script&gt;window.attacked"), "{page}");
    assert!(page.contains("these are &lt;b&gt;its&lt;/b&gt; last words") && page.len() < 64 << 10, "{}", page.len());
    let page = shown("bomb", upload(profile(one, 300)), nowhere.clone());
    assert!(page.contains("breaks off") && page.contains("1 action"), "expected what came before the space: {page}");
    for (id, uri, word) in [
        ("nonsense", upload(b"\x1f\x8bnonsense".to_vec()), "cannot be shown"),
        ("absent", nowhere.clone(), "cannot be shown"),
        ("large", format!("bytestream://farm/blobs/{}/99999999999", "0".repeat(64)), "more than 32"),
    ] {
        let page = shown(id, uri, nowhere.clone());
        assert!(page.contains(word), "expected `{word}` of `{id}`: {page}");
    }
    // What is no blob of a farm is not looked for at all.
    for (id, uri) in
        [("file", "file:///etc/passwd"), ("http", "http://127.0.0.1:1/x"), ("name", "bytestream://farm/../x")]
    {
        let page = shown(id, uri.to_owned(), uri.to_owned());
        assert!(!page.contains("timing-title") && !page.contains("root:"), "{page}");
    }
}
