//! A farm's pages, its JSON and `kiln` show what a client has named by BLAKE3 as they show everything else.

use kiln_harness::remote::{Caller, caller_of, salt};
use kiln_harness::{Farm, until};
use kiln_proto::bes::publish_build_event_client::PublishBuildEventClient;
use kiln_proto::build_events::build_event::Payload;
use kiln_proto::build_events::{self as bep};
use kiln_proto::digest::DigestFunction;
use kiln_proto::reapi::execution_client::ExecutionClient;
use kiln_proto::reapi::{ExecuteRequest, RequestMetadata};
use kiln_proto::v1::builds_client::BuildsClient;
use kiln_proto::v1::{Source, SubmitRequest};
use prost::Message as _;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::invocations::told;
use crate::world::{Answer, curl, farm};

/// What is at an address of the pages.
#[track_caller]
fn got(pages: &str, path: &str) -> Answer {
    let answer = curl(&[&format!("{pages}{path}")]);
    assert_eq!(answer.status, 200, "for {path}: {answer:?}");
    answer
}

fn json(pages: &str, path: &str) -> Value {
    serde_json::from_str(&got(pages, &format!("/api/v1{path}")).body).unwrap()
}

/// Builds a tree of these files and waits for the end; the build's id.
fn build(runtime: &Runtime, caller: &Caller, pages: &str, files: &[(&str, &str)]) -> String {
    let id = runtime.block_on(async {
        let root = caller.tree(files).await;
        let request = SubmitRequest {
            digest_function: caller.function.to_wire(),
            source: Some(Source { root: Some(root.to_wire()), directory: "shop".into(), ..Source::default() }),
            host_platform: "linux/amd64".into(),
            request_id: salt(),
            user: "ann".into(),
            detached: true,
            ..SubmitRequest::default()
        };
        BuildsClient::new(caller.channel.clone()).submit(request).await.unwrap().into_inner().id
    });
    until("the build to end", || (json(pages, &format!("/builds/{id}"))["status"] != "running").then_some(()));
    id
}

fn blake3(runtime: &Runtime, farm: &Farm) -> Caller {
    runtime.block_on(caller_of(&farm.url, DigestFunction::Blake3))
}

#[test]
fn a_build_its_steps_their_files_its_tests_and_its_artifacts_are_shown_and_fetched() {
    let (farm, pages) = farm(&["one"]);
    let runtime = Runtime::new().unwrap();
    let caller = blake3(&runtime, &farm);
    let text = "name = \"shop\"\nversion = \"1\"\n[steps.make]\nrun = \"mkdir -p out/deep; cp src/in.txt out/deep/made.txt; cat src/in.txt\"\n\
                outputs = [\"out\"]\n[steps.test]\nneeds = [\"make\"]\nrun = \"mkdir seen; cp junit.xml seen/\"\noutputs = [\"seen\"]\nreports = [\"seen/*.xml\"]\n\
                [artifacts.shop]\nfrom = \"make\"\nfiles = [\"out\"]\nkind = \"archive\"\n";
    let report = "<testsuite name='till'><testcase classname='till' name='adds'/></testsuite>";
    let sources = |word| vec![("kiln.toml", text), ("junit.xml", report), ("src/in.txt", word)];
    let first = build(&runtime, &caller, &pages, &sources("one\n"));
    let id = build(&runtime, &caller, &pages, &sources("two\n"));

    assert_eq!(json(&pages, &format!("/builds/{id}"))["status"], "succeeded");
    let step = json(&pages, &format!("/builds/{id}/steps/1"));
    assert_eq!(step["explanation"]["differences"][0]["name"], "src/in.txt", "{step}");
    assert_eq!(got(&pages, &format!("/api/v1/builds/{id}/steps/1/log")).body, "two\n");
    let tests = json(&pages, &format!("/builds/{id}/tests"));
    assert_eq!(tests["tests"][0]["name"], "adds", "{tests}");
    assert!(got(&pages, &format!("/builds/{id}/tests")).body.contains("adds"));

    let page = got(&pages, &format!("/builds/{id}/steps/1")).body;
    assert!(page.contains("cp src/in.txt out/deep/made.txt"), "expected the command: {page}");
    let below = format!("/builds/{id}/steps/1");
    assert!(got(&pages, &format!("{below}/inputs/src")).body.contains("in.txt"));
    assert_eq!(got(&pages, &format!("{below}/inputs/src/in.txt")).body, "two\n");
    assert!(got(&pages, &format!("{below}/outputs/out/deep")).body.contains("made.txt"));
    assert_eq!(got(&pages, &format!("{below}/outputs/out/deep/made.txt")).body, "two\n");
    let compared = got(&pages, &format!("/compare?a={first}&b={id}")).body;
    assert!(compared.contains("0 the same, 2 changed"), "{compared}");

    let artifact = json(&pages, "/artifacts")["artifacts"][0]["id"].as_str().unwrap().to_owned();
    let at = format!("/artifacts/{artifact}");
    assert!(got(&pages, &at).body.contains("shop"));
    let files = got(&pages, &format!("{at}/files/")).body;
    assert!(files.contains(".tar.zst"), "{files}");
    for document in ["provenance", "statements/provenance"] {
        serde_json::from_str::<Value>(&got(&pages, &format!("{at}/{document}")).body).unwrap();
    }
    assert_eq!(json(&pages, &format!("{at}/layers"))["complete"], true);

    // `kiln` names its own blobs by SHA-256, and reads what is named otherwise.
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (path, content) in sources("two\n") {
        kiln_harness::write(dir.path(), path, content);
    }
    let (dir, out) = (dir.path().to_str().unwrap(), out.path().to_str().unwrap());
    for arguments in [
        &["artifacts"][..],
        &["logs", &id],
        &["test-report", &id],
        &["attach", &id, "--output", out],
        &["fetch", &artifact, "--output", out],
        &["verify", &artifact],
        &["rebuild", &artifact, "--source", dir],
        &["cache", "explain", "make", "--build", &id],
    ] {
        let ran = farm.kiln(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    }
    assert!(kiln_harness::find(std::path::Path::new(out), ".tar.zst").is_some());
}

#[test]
fn an_invocation_its_actions_and_what_they_printed_are_shown() {
    const ID: &str = "6dd0dd6c-0000-4000-8000-0000000000b3";
    let (farm, pages) = farm(&["one"]);
    let runtime = Runtime::new().unwrap();
    let caller = blake3(&runtime, &farm);
    let printed = runtime.block_on(caller.put(b"x.c: <b>no</b> such file\n".to_vec()));
    let uri = format!("bytestream://elsewhere.example:1/blobs/{printed}");
    assert!(uri.contains("/blobs/blake3/"), "{uri}");
    let stderr = bep::File { name: "stderr".into(), file: Some(bep::file::File::Uri(uri)) };
    let failed = bep::ActionExecuted { stderr: Some(stderr), exit_code: 1, ..Default::default() };
    // What is asked for while it tells of itself belongs to it.
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    let _telling = runtime.block_on(async {
        sender.send(told(ID, 1, Payload::Action(failed))).await.unwrap();
        let mut client = PublishBuildEventClient::new(caller.channel.clone());
        let sent = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut answers = client.publish_build_tool_event_stream(sent).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().sequence_number, 1);
        let command = kiln_harness::remote::shell("echo why >&2; exit 3", &[]);
        let action = caller.action(command, &[("in", "x")], |_| ()).await;
        let mut request = tonic::Request::new(ExecuteRequest {
            action_digest: Some(action.to_wire()),
            digest_function: caller.function.to_wire(),
            ..ExecuteRequest::default()
        });
        let metadata =
            RequestMetadata { tool_invocation_id: ID.into(), target_id: "//:app".into(), ..Default::default() };
        let metadata = tonic::metadata::MetadataValue::from_bytes(&metadata.encode_to_vec());
        request.metadata_mut().insert_bin("build.bazel.remote.execution.v2.requestmetadata-bin", metadata);
        let mut client = ExecutionClient::new(caller.channel.clone());
        kiln_harness::remote::last(client.execute(request).await.unwrap().into_inner()).await;
        answers
    });
    let page = until("its action to be shown", || {
        let page = got(&pages, &format!("/invocations/{ID}")).body;
        page.contains("//:app").then_some(page)
    });
    assert!(page.contains("x.c: &lt;b&gt;no&lt;/b&gt; such file"), "{page}");
    assert!(page.contains("<pre>why</pre>"), "{page}");
    let action = got(&pages, &format!("/invocations/{ID}/actions/1")).body;
    assert!(action.contains("echo why") && action.contains("<pre>why</pre>"), "{action}");
}
