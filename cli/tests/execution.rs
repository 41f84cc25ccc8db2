//! Remote Execution v2 from the client's side: Execute, WaitExecution and operations, on a farm of processes.

#![allow(clippy::unwrap_used)]

use kiln_harness::remote::{caller, caller_with, code, last, response, salt, shell, stage};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::longrunning::operations_client::OperationsClient;
use kiln_proto::longrunning::{CancelOperationRequest, GetOperationRequest};
use kiln_proto::reapi;
use kiln_proto::reapi::execution_client::ExecutionClient;
use kiln_proto::transfer::Blob;
use kiln_proto::{clock, precondition};
use kiln_trees::tree::{Entry, Tree};
use prost::Message;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn outputs_come_back_as_the_standard_has_them() {
    let caller = caller().await;
    let script = "cat sub/in; echo to-stderr >&2; echo out > a/b/file; chmod +x a/b/file; mkdir -p dir/deep dir/empty; \
                  echo x > dir/deep/x; ln -s deep/x dir/link; ln -s a/b/file link";
    let command = shell(script, &["a/b/file", "dir", "link", "absent"]);
    let response = caller.run(command, &[("sub/in", "input\n")]).await;
    assert_eq!(code(&response), Code::Ok, "{:?}", response.status);
    assert!(!response.cached_result);
    let result = response.result.unwrap();
    assert_eq!(result.exit_code, 0);
    let [file] = result.output_files.as_slice() else { panic!("expected one file: {result:?}") };
    assert_eq!((file.path.as_str(), file.is_executable), ("a/b/file", true));
    assert_eq!(caller.text(&file.digest).await, "out\n");
    let [link] = result.output_symlinks.as_slice() else { panic!("expected one link: {result:?}") };
    assert_eq!((link.path.as_str(), link.target.as_str()), ("link", "a/b/file"));
    let [directory] = result.output_directories.as_slice() else { panic!("expected one directory: {result:?}") };
    assert_eq!(directory.path, "dir");
    let digest = Digest::required(caller.function, directory.tree_digest.as_ref()).unwrap();
    let tree = reapi::Tree::decode(caller.blobs.get(&digest).await.unwrap()).unwrap();
    let root = tree.root.unwrap();
    assert_eq!(root.directories.iter().map(|below| below.name.as_str()).collect::<Vec<_>>(), ["deep", "empty"]);
    assert_eq!((root.symlinks[0].name.as_str(), root.symlinks[0].target.as_str()), ("link", "deep/x"));
    assert_eq!(tree.children.len(), 2);
    assert_eq!(caller.text(&result.stdout_digest).await, "input\n");
    assert_eq!(caller.text(&result.stderr_digest).await, "to-stderr\n");
    let metadata = result.execution_metadata.unwrap();
    assert!(["one", "two"].contains(&metadata.worker.as_str()));
    let at =
        |time: &Option<kiln_proto::protobuf::Timestamp>| time.as_ref().map(|time| (time.seconds, time.nanos)).unwrap();
    let times = [
        at(&metadata.queued_timestamp),
        at(&metadata.worker_start_timestamp),
        at(&metadata.input_fetch_completed_timestamp),
        at(&metadata.execution_start_timestamp),
        at(&metadata.execution_completed_timestamp),
        at(&metadata.output_upload_completed_timestamp),
        at(&metadata.worker_completed_timestamp),
    ];
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_execution_is_answered_from_the_cache_unless_that_is_skipped() {
    let caller = caller().await;
    let action = caller.action(shell("od -An -N8 -tx8 /dev/urandom", &[]), &[], |_| ()).await;
    let first = caller.execute(&action).await;
    let second = caller.execute(&action).await;
    assert_eq!((first.cached_result, second.cached_result), (false, true));
    let digest = |response: &reapi::ExecuteResponse| response.result.as_ref().unwrap().stdout_digest.clone();
    assert_eq!(digest(&first), digest(&second));
    let third = response(&last(caller.start(&action, true).await.unwrap()).await);
    assert!(!third.cached_result);
    assert_ne!(digest(&first), digest(&third), "expected it to run again");
    let uncached =
        caller.action(shell("od -An -N8 -tx8 /dev/urandom", &[]), &[], |action| action.do_not_cache = true).await;
    let runs = [caller.execute(&uncached).await, caller.execute(&uncached).await];
    assert!(runs.iter().all(|response| !response.cached_result));
    assert_ne!(digest(&runs[0]), digest(&runs[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_is_a_result_and_is_not_cached() {
    let caller = caller().await;
    let action = caller.action(shell("echo partly > out; exit 9", &["out"]), &[], |_| ()).await;
    for _ in 0..2 {
        let response = caller.execute(&action).await;
        assert_eq!((code(&response), response.cached_result), (Code::Ok, false));
        let result = response.result.unwrap();
        assert_eq!((result.exit_code, result.output_files.len()), (9, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_inputs_are_all_named() {
    let caller = caller().await;
    let absent = [caller.function.digest(salt().as_bytes()), caller.function.digest(salt().as_bytes())];
    let mut tree = Tree::default();
    tree.insert("a", Entry::file(absent[0], false)).unwrap();
    tree.insert("d/b", Entry::file(absent[1], false)).unwrap();
    let mut messages = Vec::new();
    let root =
        tree.encode(caller.function, &mut |encoded| messages.push((encoded.digest, Blob::Bytes(encoded.data.into()))));
    caller.blobs.upload(messages).await.unwrap();
    let action = caller.action(shell("true", &[]), &[], |action| action.input_root_digest = Some(root.to_wire())).await;
    let status = caller.start(&action, false).await.expect_err("inputs are missing");
    assert_eq!(status.code(), Code::FailedPrecondition);
    let mut named = precondition::subjects(&precondition::from_tonic(&status));
    named.sort();
    let mut expected: Vec<String> =
        absent.iter().map(|digest| format!("blobs/{}/{}", digest.hex(), digest.size)).collect();
    expected.sort();
    assert_eq!(named, expected);
    let nowhere = caller.function.digest(salt().as_bytes());
    assert_eq!(caller.start(&nowhere, false).await.err().unwrap().code(), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_actions_are_refused_with_what_was_expected() {
    let caller = caller().await;
    for (change, words) in [
        (
            Box::new(|command: &mut reapi::Command| command.arguments.clear()) as Box<dyn Fn(&mut reapi::Command)>,
            "no arguments",
        ),
        (Box::new(|command| command.output_paths = vec!["/abs".into()]), "`/abs`"),
        (Box::new(|command| command.output_paths = vec!["a/../../b".into()]), "`a/../../b`"),
        (Box::new(|command| command.working_directory = "absent".into()), "`absent`"),
        (Box::new(|command| command.environment_variables[0].name = "A=B".into()), "A=B"),
    ] {
        let mut command = shell("true", &[]);
        change(&mut command);
        let action = caller.action(command, &[], |_| ()).await;
        let status = caller.start(&action, false).await.expect_err("a refusal");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(words), "expected `{words}` in `{}`", status.message());
    }
    let action = caller
        .action(shell("true", &[]), &[], |action| {
            action.timeout = Some(clock::duration(std::time::Duration::from_secs(1 << 30)))
        })
        .await;
    assert_eq!(caller.start(&action, false).await.err().unwrap().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_is_deadline_exceeded_with_the_output_so_far() {
    let caller = caller().await;
    let action = caller
        .action(shell("echo so far; sleep 1000", &[]), &[], |action| {
            action.timeout = Some(clock::duration(std::time::Duration::from_secs(1)));
        })
        .await;
    let response = caller.execute(&action).await;
    assert_eq!(code(&response), Code::DeadlineExceeded);
    assert_eq!(caller.text(&response.result.unwrap().stdout_digest).await, "so far\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_actions_at_once_run_once() {
    let caller = caller().await;
    let action = caller.action(shell("sleep 1; od -An -N8 -tx8 /dev/urandom", &[]), &[], |_| ()).await;
    let runs = futures::future::join_all((0..5).map(|_| caller.execute(&action))).await;
    let digests: Vec<_> = runs.iter().map(|response| response.result.as_ref().unwrap().stdout_digest.clone()).collect();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_can_be_waited_for_by_its_name_and_its_output_read_while_it_runs() {
    let caller = caller().await;
    let action = caller.action(shell("echo begins; sleep 2; echo ends", &[]), &[], |_| ()).await;
    let mut stream = caller.start(&action, false).await.unwrap();
    let running = loop {
        let operation = stream.message().await.unwrap().expect("expected it to run");
        if stage(&operation).stage() == reapi::execution_stage::Value::Executing {
            break operation;
        }
    };
    drop(stream);
    let mut reader = kiln_proto::bytestream::byte_stream_client::ByteStreamClient::new(caller.channel.clone());
    let request =
        kiln_proto::bytestream::ReadRequest { resource_name: stage(&running).stdout_stream_name, ..Default::default() };
    let mut live = reader.read(request).await.unwrap().into_inner();
    let first = live.message().await.unwrap().expect("expected output while it runs");
    assert!(first.data.starts_with(b"begins"), "{first:?}");
    let wait = reapi::WaitExecutionRequest { name: running.name.clone() };
    let waited = ExecutionClient::new(caller.channel.clone()).wait_execution(wait).await.unwrap().into_inner();
    let response = response(&last(waited).await);
    assert_eq!(caller.text(&response.result.unwrap().stdout_digest).await, "begins\nends\n");
    let mut rest = first.data.clone();
    while let Some(piece) = live.message().await.unwrap() {
        rest.extend_from_slice(&piece.data);
    }
    assert_eq!(rest, b"begins\nends\n");
    let unknown = reapi::WaitExecutionRequest { name: "operations/unknown".into() };
    let refused = ExecutionClient::new(caller.channel.clone()).wait_execution(unknown).await.err().unwrap();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_operation_ends_and_its_command_with_it() {
    let caller = caller().await;
    let action = caller.action(shell("echo begins; sleep 1000", &[]), &[], |_| ()).await;
    let mut stream = caller.start(&action, false).await.unwrap();
    let name = stream.message().await.unwrap().unwrap().name;
    let mut operations = OperationsClient::new(caller.channel.clone());
    operations.cancel_operation(CancelOperationRequest { name: name.clone() }).await.unwrap();
    assert_eq!(code(&response(&last(stream).await)), Code::Cancelled);
    let operation = operations.get_operation(GetOperationRequest { name }).await.unwrap().into_inner();
    assert!(operation.done);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_working_directory_and_the_older_lists_of_outputs_are_honoured() {
    let caller = caller().await;
    let mut command = shell("pwd; echo f > out/file; echo g > kept/g", &[]);
    command.working_directory = "sub".into();
    #[allow(deprecated)]
    {
        command.output_files = vec!["out/file".into()];
        command.output_directories = vec!["kept".into()];
    }
    let response = caller.run(command, &[("sub/in", "x")]).await;
    let result = response.result.unwrap();
    assert_eq!(result.exit_code, 0, "{}", caller.text(&result.stderr_digest).await);
    assert!(caller.text(&result.stdout_digest).await.ends_with("/sub\n"));
    assert_eq!(result.output_files[0].path, "out/file");
    assert_eq!(result.output_directories[0].path, "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn blake3_works_the_whole_way() {
    let caller = caller_with(DigestFunction::Blake3).await;
    let action = caller.action(shell("cat in > out", &["out"]), &[("in", "blake\n")], |_| ()).await;
    let response = caller.execute(&action).await;
    assert_eq!(code(&response), Code::Ok, "{:?}", response.status);
    assert_eq!(caller.text(&response.result.unwrap().output_files[0].digest).await, "blake\n");
    assert!(caller.execute(&action).await.cached_result);
}
