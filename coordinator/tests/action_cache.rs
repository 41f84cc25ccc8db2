//! `ActionCache` over a real connection: the behaviours that REAPI specifies, one test each.

#![allow(clippy::unwrap_used)]

mod support;

use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use prost::Message;
use support::{Farm, SHA256, code, noise};
use tonic::{Code, Status};

/// Uploads an action with its command.
async fn action(farm: &Farm, salt: &str) -> Digest {
    let command = reapi::Command { arguments: vec!["true".into(), salt.into()], ..Default::default() };
    let command = farm.put_message(&command).await;
    farm.put_message(&reapi::Action { command_digest: Some(command.to_wire()), ..Default::default() }).await
}

async fn update(farm: &Farm, action: &Digest, result: reapi::ActionResult) -> Result<reapi::ActionResult, Status> {
    let request = reapi::UpdateActionResultRequest {
        instance_name: "main".into(),
        action_digest: Some(action.to_wire()),
        action_result: Some(result),
        ..Default::default()
    };
    Ok(farm.actions.clone().update_action_result(request).await?.into_inner())
}

fn ask(action: &Digest) -> reapi::GetActionResultRequest {
    reapi::GetActionResultRequest {
        instance_name: "main".into(),
        action_digest: Some(action.to_wire()),
        ..Default::default()
    }
}

async fn get(farm: &Farm, request: reapi::GetActionResultRequest) -> Result<reapi::ActionResult, Status> {
    Ok(farm.actions.clone().get_action_result(request).await?.into_inner())
}

fn file(path: &str, digest: &Digest) -> reapi::OutputFile {
    reapi::OutputFile { path: path.into(), digest: Some(digest.to_wire()), ..Default::default() }
}

fn node(name: &str, digest: &Digest) -> reapi::FileNode {
    reapi::FileNode { name: name.into(), digest: Some(digest.to_wire()), ..Default::default() }
}

/// A result that references a blob in each possible way, and those blobs in that order.
async fn full_result(farm: &Farm) -> (reapi::ActionResult, Vec<(&'static str, Digest)>) {
    let mut blobs = Vec::new();
    for (seed, name) in
        ["file", "stdout", "stderr", "in the tree's root", "in a tree's child", "in a root directory", "deep"]
            .into_iter()
            .enumerate()
    {
        blobs.push((name, farm.put(SHA256, &noise(seed as u64 + 1, 500)).await));
    }
    let of = |at: usize| blobs[at].1;
    let child = reapi::Directory { files: vec![node("c", &of(4))], ..Default::default() };
    let below = reapi::DirectoryNode { name: "d".into(), digest: Some(SHA256.digest_message(&child).to_wire()) };
    let root = reapi::Directory { files: vec![node("r", &of(3))], directories: vec![below], ..Default::default() };
    let tree = farm.put_message(&reapi::Tree { root: Some(root), children: vec![child] }).await;
    let deep = farm.put_message(&reapi::Directory { files: vec![node("x", &of(6))], ..Default::default() }).await;
    let below = reapi::DirectoryNode { name: "deep".into(), digest: Some(deep.to_wire()) };
    let top = reapi::Directory { files: vec![node("t", &of(5))], directories: vec![below], ..Default::default() };
    let top = farm.put_message(&top).await;
    let directory = reapi::OutputDirectory {
        path: "out".into(),
        tree_digest: Some(tree.to_wire()),
        root_directory_digest: Some(top.to_wire()),
        ..Default::default()
    };
    let result = reapi::ActionResult {
        output_files: vec![file("f", &of(0))],
        output_directories: vec![directory],
        stdout_digest: Some(of(1).to_wire()),
        stderr_digest: Some(of(2).to_wire()),
        ..Default::default()
    };
    blobs.extend([("tree", tree), ("root directory", top), ("directory below", deep)]);
    (result, blobs)
}

#[tokio::test]
async fn a_hit_is_whole_or_it_is_not_found() {
    let farm = Farm::start().await;
    let action = action(&farm, "whole").await;
    let (result, blobs) = full_result(&farm).await;
    update(&farm, &action, result.clone()).await.unwrap();
    let hit = get(&farm, ask(&action)).await.unwrap();
    assert_eq!(hit.output_directories, result.output_directories);
    for (name, digest) in blobs {
        let data = farm.stores.blobs.get(&digest).await.unwrap();
        farm.lose(&digest);
        // The store detects the loss when the blob is read.
        assert_eq!(code(farm.read(&format!("blobs/{digest}"), 0, 0).await), Code::NotFound);
        assert_eq!(code(get(&farm, ask(&action)).await), Code::NotFound, "without the {name}");
        farm.stores.blobs.put(&digest, data).await.unwrap();
        assert!(get(&farm, ask(&action)).await.is_ok(), "with the {name} again");
    }
}

#[tokio::test]
async fn a_hit_extends_the_life_of_all_that_it_names() {
    let farm = Farm::with(12_000, std::sync::Arc::new(kiln_coordinator::services::NoLogs)).await;
    let action = action(&farm, "life").await;
    let (result, blobs) = full_result(&farm).await;
    update(&farm, &action, result).await.unwrap();
    for seed in 100..150 {
        assert!(get(&farm, ask(&action)).await.is_ok());
        farm.put(SHA256, &noise(seed, 1_000)).await;
    }
    for (name, digest) in blobs {
        assert!(farm.has(&digest).await, "{name}");
    }
    assert!(farm.stores.blobs.bytes() <= 12_000);
}

#[tokio::test]
async fn a_result_that_names_no_digest_or_no_tree_is_no_hit() {
    let farm = Farm::start().await;
    let no_tree = farm.put(SHA256, b"\xff\xff no tree").await;
    let directory = |digest: &Digest| reapi::OutputDirectory {
        path: "out".into(),
        tree_digest: Some(digest.to_wire()),
        ..Default::default()
    };
    let bad_digest = reapi::Digest { hash: "ABC".into(), size_bytes: 1 };
    let results = [
        reapi::ActionResult { output_directories: vec![directory(&no_tree)], ..Default::default() },
        reapi::ActionResult { output_directories: vec![reapi::OutputDirectory::default()], ..Default::default() },
        reapi::ActionResult { output_files: vec![reapi::OutputFile::default()], ..Default::default() },
        reapi::ActionResult { stdout_digest: Some(bad_digest), ..Default::default() },
    ];
    for (at, result) in results.into_iter().enumerate() {
        let action = action(&farm, &format!("bad {at}")).await;
        update(&farm, &action, result).await.unwrap();
        assert_eq!(code(get(&farm, ask(&action)).await), Code::NotFound, "{at}");
    }
}

#[tokio::test]
async fn an_unknown_action_is_not_found_and_instances_do_not_share() {
    let farm = Farm::start().await;
    let action = action(&farm, "once").await;
    assert_eq!(code(get(&farm, ask(&action)).await), Code::NotFound);
    update(&farm, &action, reapi::ActionResult::default()).await.unwrap();
    assert!(get(&farm, ask(&action)).await.is_ok());
    let other = reapi::GetActionResultRequest { instance_name: "other".into(), ..ask(&action) };
    assert_eq!(code(get(&farm, other).await), Code::NotFound);
    let none = reapi::GetActionResultRequest::default();
    assert_eq!(code(get(&farm, none).await), Code::InvalidArgument);
}

#[tokio::test]
async fn updating_without_the_action_or_its_command_is_a_failed_precondition() {
    let farm = Farm::start().await;
    let nowhere = SHA256.digest(b"no action");
    let result = reapi::ActionResult::default();
    assert_eq!(code(update(&farm, &nowhere, result.clone()).await), Code::FailedPrecondition);
    let orphan = reapi::Action { command_digest: Some(nowhere.to_wire()), ..Default::default() };
    let orphan = farm.put_message(&orphan).await;
    let status = update(&farm, &orphan, result.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains(&format!("command `{nowhere}`")), "{status}");
}

#[tokio::test]
async fn a_client_that_only_caches_may_key_a_result_by_a_blob_that_is_no_action() {
    let farm = Farm::start().await;
    let manifest = farm.put(SHA256, br#"{"command":"tr a-z A-Z"}"#).await;
    update(&farm, &manifest, reapi::ActionResult::default()).await.unwrap();
    assert!(get(&farm, ask(&manifest)).await.is_ok(), "expected a key as moon uses it to be accepted");
}

#[tokio::test]
async fn contents_are_inlined_only_where_asked_for() {
    let farm = Farm::start().await;
    let action = action(&farm, "inline").await;
    let [out, err, one, two] = [b"out", b"err", b"one", b"two"].map(|data| data.to_vec());
    let result = reapi::ActionResult {
        output_files: vec![file("one", &farm.put(SHA256, &one).await), file("two", &farm.put(SHA256, &two).await)],
        stdout_digest: Some(farm.put(SHA256, &out).await.to_wire()),
        stderr_digest: Some(farm.put(SHA256, &err).await.to_wire()),
        ..Default::default()
    };
    update(&farm, &action, result).await.unwrap();
    let plain = get(&farm, ask(&action)).await.unwrap();
    assert!(plain.stdout_raw.is_empty() && plain.stderr_raw.is_empty());
    assert!(plain.output_files.iter().all(|file| file.contents.is_empty()));
    let request = reapi::GetActionResultRequest {
        inline_stdout: true,
        inline_stderr: true,
        inline_output_files: vec!["two".into(), "none such".into()],
        ..ask(&action)
    };
    let inlined = get(&farm, request).await.unwrap();
    assert_eq!((inlined.stdout_raw, inlined.stderr_raw), (out, err));
    assert_eq!((&inlined.output_files[0].contents, &inlined.output_files[1].contents), (&vec![], &two));
}

#[tokio::test]
async fn contents_that_the_writer_inlined_become_blobs() {
    let farm = Farm::start().await;
    let action = action(&farm, "raw").await;
    let data = SHA256.digest(b"data");
    let inlined = reapi::OutputFile { contents: b"data".to_vec(), ..file("f", &data) };
    let result = reapi::ActionResult { stdout_raw: b"out".to_vec(), output_files: vec![inlined], ..Default::default() };
    update(&farm, &action, result).await.unwrap();
    let hit = get(&farm, ask(&action)).await.unwrap();
    assert!(hit.stdout_raw.is_empty());
    assert_eq!(hit.stdout_digest, Some(SHA256.digest(b"out").to_wire()));
    assert!(farm.has(&data).await && farm.has(&SHA256.digest(b"out")).await);
    let lie = reapi::OutputFile { contents: b"atad".to_vec(), ..file("f", &data) };
    let result = reapi::ActionResult { output_files: vec![lie], ..Default::default() };
    assert_eq!(code(update(&farm, &action, result).await), Code::InvalidArgument);
}

#[tokio::test]
async fn inlining_never_goes_past_the_message_limit() {
    let farm = Farm::start().await;
    let action = action(&farm, "large").await;
    let (large, small) = (noise(1, 2_000_000), noise(2, 1_000));
    let result = reapi::ActionResult {
        output_files: vec![file("small", &farm.put(SHA256, &small).await)],
        stdout_digest: Some(farm.put(SHA256, &large).await.to_wire()),
        stderr_digest: Some(farm.put(SHA256, &noise(3, 2_000_000)).await.to_wire()),
        ..Default::default()
    };
    update(&farm, &action, result).await.unwrap();
    let request = reapi::GetActionResultRequest {
        inline_stdout: true,
        inline_stderr: true,
        inline_output_files: vec!["small".into()],
        ..ask(&action)
    };
    let hit = get(&farm, request).await.unwrap();
    assert_eq!((hit.stdout_raw.len(), hit.stderr_raw.len()), (2_000_000, 0));
    assert_eq!(hit.output_files[0].contents, small, "expected what still fits to be inlined");
    assert!(hit.encoded_len() < 4 * 1024 * 1024);
}

#[tokio::test]
async fn the_worker_is_set_so_that_no_result_encodes_to_nothing() {
    let farm = Farm::start().await;
    let action = action(&farm, "empty").await;
    let stored = update(&farm, &action, reapi::ActionResult::default()).await.unwrap();
    assert!(!stored.execution_metadata.unwrap().worker.is_empty());
    farm.stores.actions.put("main", &action, reapi::ActionResult::default()).await.unwrap();
    let hit = get(&farm, ask(&action)).await.unwrap();
    assert!(!hit.execution_metadata.unwrap().worker.is_empty());
    let metadata = reapi::ExecutedActionMetadata { worker: "w7".into(), ..Default::default() };
    let named = reapi::ActionResult { execution_metadata: Some(metadata), ..Default::default() };
    update(&farm, &action, named).await.unwrap();
    assert_eq!(get(&farm, ask(&action)).await.unwrap().execution_metadata.unwrap().worker, "w7");
}
