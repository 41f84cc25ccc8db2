//! Remote Execution v2: an operation's states, its errors and its position in the cache, on farms of processes.

#![allow(clippy::unwrap_used)]

use kiln_harness::remote::{caller, caller_of, code, last, response, shell, stage};
use kiln_harness::{Farm, until};
use kiln_proto::digest::DigestFunction;
use kiln_proto::longrunning::operations_client::OperationsClient;
use kiln_proto::longrunning::{ListOperationsRequest, Operation, operation};
use kiln_proto::{clock, precondition, reapi};
use reapi::execution_stage::Value as Stage;
use tonic::Code;

async fn states(mut stream: tonic::Streaming<Operation>) -> Vec<Operation> {
    let mut states = Vec::new();
    while let Some(operation) = stream.message().await.unwrap() {
        states.push(operation);
    }
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn done_comes_exactly_with_completed_then_the_stream_ends_and_error_is_never_set() {
    let caller = caller().await;
    for script in ["true", "exit 3"] {
        let action = caller.action(shell(script, &[]), &[], |_| ()).await;
        let states = states(caller.start(&action, false).await.unwrap()).await;
        for operation in &states {
            assert_eq!(operation.done, stage(operation).stage() == Stage::Completed, "{operation:?}");
            assert!(!matches!(operation.result, Some(operation::Result::Error(_))), "{operation:?}");
        }
        assert_eq!(states.iter().filter(|operation| operation.done).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_after_the_operation_was_made_is_in_the_response() {
    let caller = caller().await;
    let nowhere = |action: &mut reapi::Action| {
        let property = reapi::platform::Property { name: "kiln.label.gpu".into(), value: "yes".into() };
        action.platform = Some(reapi::Platform { properties: vec![property] });
    };
    let action = caller.action(shell("true", &[]), &[], nowhere).await;
    let response = caller.execute(&action).await;
    assert_eq!(code(&response), Code::FailedPrecondition);
    let words = response.status.unwrap().message;
    assert!(words.contains("no worker") && words.contains("kiln.label.gpu"), "expected the reasons, found `{words}`");
}

#[tokio::test(flavor = "multi_thread")]
async fn death_by_a_signal_is_told_apart_from_an_exit_with_its_number() {
    let caller = caller().await;
    let killed = caller.run(shell("kill -9 $$", &[]), &[]).await;
    let exited = caller.run(shell("exit 137", &[]), &[]).await;
    let exit = |response: &reapi::ExecuteResponse| response.result.as_ref().unwrap().exit_code;
    assert_eq!((code(&killed), exit(&killed), exit(&exited)), (Code::Ok, 137, 137));
    assert!(killed.message.contains("SIGKILL"), "expected the signal's name, found `{}`", killed.message);
    assert_eq!(exited.message, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn do_not_cache_never_merges_and_skip_cache_lookup_replaces_the_entry() {
    let caller = caller().await;
    let random = || shell("od -An -N8 -tx8 /dev/urandom", &[]);
    let stdout = |response: &reapi::ExecuteResponse| response.result.as_ref().unwrap().stdout_digest.clone();
    let alone = caller.action(random(), &[], |action| action.do_not_cache = true).await;
    let runs = futures::future::join_all((0..3).map(|_| caller.execute(&alone))).await;
    let all: std::collections::HashSet<String> = runs.iter().map(|run| stdout(run).unwrap().hash).collect();
    assert_eq!(all.len(), 3, "expected each to run separately");
    let action = caller.action(random(), &[], |_| ()).await;
    caller.execute(&action).await;
    let again = response(&last(caller.start(&action, true).await.unwrap()).await);
    let hit = caller.execute(&action).await;
    assert_eq!((hit.cached_result, stdout(&hit)), (true, stdout(&again)), "the newest result is the entry");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_timed_out_is_not_cached_and_its_time_is_the_commands_own() {
    let caller = caller().await;
    let second = std::time::Duration::from_secs(1);
    let action =
        caller.action(shell("sleep 1000", &[]), &[], |action| action.timeout = Some(clock::duration(second))).await;
    for _ in 0..2 {
        let response = caller.execute(&action).await;
        assert_eq!((code(&response), response.cached_result), (Code::DeadlineExceeded, false));
        let metadata = response.result.unwrap().execution_metadata.unwrap();
        let ran = clock::read_duration(&metadata.virtual_execution_duration.unwrap()).unwrap();
        assert!((second..30 * second).contains(&ran), "expected the second that it took, found {ran:?}");
        assert!(metadata.input_fetch_start_timestamp.is_some() && metadata.output_upload_start_timestamp.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_listed_in_pages() {
    let caller = caller().await;
    let mut operations = OperationsClient::new(caller.channel.clone());
    let mut names = Vec::new();
    for _ in 0..3 {
        let action = caller.action(shell("true", &[]), &[], |_| ()).await;
        names.push(last(caller.start(&action, false).await.unwrap()).await.name);
    }
    let (mut listed, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListOperationsRequest { page_size: 2, page_token: token, ..Default::default() };
        let page = operations.list_operations(request).await.unwrap().into_inner();
        assert!(page.operations.len() <= 2);
        listed.extend(page.operations.into_iter().map(|operation| operation.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert!(names.iter().all(|name| listed.contains(name)), "expected {names:?} in {listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_workers_action_runs_again_elsewhere_under_the_same_operation() {
    let farm = tokio::task::spawn_blocking(|| Farm::start(&["lost"])).await.unwrap();
    let caller = caller_of(&farm.url, DigestFunction::Sha256).await;
    let action = caller.action(shell("test -e /nowhere || sleep 2", &[]), &[], |_| ()).await;
    let mut stream = caller.start(&action, false).await.unwrap();
    while stage(&stream.message().await.unwrap().expect("expected it to run")).stage() != Stage::Executing {}
    farm.start_worker("other");
    farm.kill_worker("lost");
    let rest = states(stream).await;
    let stages: Vec<Stage> = rest.iter().map(|operation| stage(operation).stage()).collect();
    // A client that asks late learns only that it runs again.
    assert!(stages.ends_with(&[Stage::Executing, Stage::Completed]), "expected it to run again, found {stages:?}");
    let result = response(rest.last().unwrap()).result.unwrap();
    assert_eq!(result.execution_metadata.unwrap().worker, "other");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_finds_missing_is_named_as_well() {
    let farm = tokio::task::spawn_blocking(|| Farm::start(&[])).await.unwrap();
    let caller = caller_of(&farm.url, DigestFunction::Sha256).await;
    // Large enough for a file of its own.
    let content = "soon gone\n".repeat(10_000);
    let action = caller.action(shell("cat in", &[]), &[("in", &content)], |_| ()).await;
    let mut stream = caller.start(&action, false).await.unwrap();
    stream.message().await.unwrap().expect("expected it to wait for a worker");
    let lost = caller.function.digest(content.as_bytes());
    let blobs = farm.dir.path().join("coordinator/blobs");
    let file = until("the input's file", || kiln_harness::find(&blobs, &format!("{}-{}", lost.hex(), lost.size)));
    std::fs::remove_file(file).unwrap();
    farm.start_worker("one");
    let response = response(&last(stream).await);
    assert_eq!(code(&response), Code::FailedPrecondition, "{:?}", response.status);
    assert_eq!(precondition::subjects(&response.status.unwrap()), [format!("blobs/{lost}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_missing_inputs_than_a_header_holds_are_named_in_the_response() {
    let caller = caller().await;
    let node = |at: u32| reapi::FileNode {
        name: at.to_string(),
        digest: Some(caller.function.digest(format!("{at} {}", kiln_harness::remote::salt()).as_bytes()).to_wire()),
        ..Default::default()
    };
    let root = reapi::Directory { files: (0..1_000).map(node).collect(), ..Default::default() };
    let root = caller.put(prost::Message::encode_to_vec(&root)).await;
    let action = caller.action(shell("true", &[]), &[], |action| action.input_root_digest = Some(root.to_wire())).await;
    let response = caller.execute(&action).await;
    assert_eq!(code(&response), Code::FailedPrecondition);
    assert_eq!(precondition::subjects(&response.status.unwrap()).len(), 1_000);
}

/// A proxy to what listens at `url` that limits responses to this many bytes a second.
fn slow_way(url: &str, bytes_a_second: usize) -> String {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    let target = url.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let way = format!("http://{}", listener.local_addr().unwrap());
    let pass = |mut from: TcpStream, mut to: TcpStream, pause: std::time::Duration| {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            std::thread::sleep(pause * u32::try_from(read).unwrap());
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
    };
    let pause = std::time::Duration::from_secs(1) / u32::try_from(bytes_a_second).unwrap();
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let (Ok(near), Ok(far)) = (near, TcpStream::connect(&target)) else { continue };
            let (back, forth) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            std::thread::spawn(move || pass(near, far, std::time::Duration::ZERO));
            std::thread::spawn(move || pass(back, forth, pause));
        }
    });
    way
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_waiting_for_a_worker_nor_fetching_inputs_counts_for_the_timeout() {
    let second = std::time::Duration::from_secs(1);
    let farm = tokio::task::spawn_blocking(|| Farm::start(&[])).await.unwrap();
    let caller = caller_of(&farm.url, DigestFunction::Sha256).await;
    // Four million digits that compress to half at best.
    let digits: String = (0..62_500_u64).map(|at| caller.function.digest(&at.to_le_bytes()).hex()).collect();
    let command = shell("wc -c < in", &[]);
    let action =
        caller.action(command, &[("in", &digits)], |action| action.timeout = Some(clock::duration(second))).await;
    let stream = caller.start(&action, false).await.unwrap();
    let began = std::time::Instant::now();
    farm.start_worker_by(&slow_way(&farm.url, 1_000_000), "slow", &[]);
    let response = response(&last(stream).await);
    assert_eq!((code(&response), response.result.as_ref().unwrap().exit_code), (Code::Ok, 0), "{:?}", response.status);
    let metadata = response.result.unwrap().execution_metadata.unwrap();
    // The link passes at most a million bytes a second. The result does not say how long the fetch took: that would
    // reveal whether another caller's action had the inputs there.
    assert!(began.elapsed() > second, "expected the fetch to take longer than the timeout");
    let moments = [&metadata.worker_start_timestamp, &metadata.input_fetch_start_timestamp];
    assert!(moments.iter().all(|moment| **moment == metadata.input_fetch_completed_timestamp), "{metadata:?}");
    assert!(clock::read_duration(&metadata.virtual_execution_duration.unwrap()).unwrap() < second);
}
