//! Malicious clients over a real connection: each is refused with an explanation, nothing of theirs is stored, and the
//! farm continues to serve others.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use futures::{StreamExt, stream};
use kiln_execution::ExecutionHandle;
use kiln_execution::{Attached, Request};
use kiln_proto::digest::Digest;
use kiln_proto::{precondition, reapi};
use support::{Farm, SHA256, code, noise, piece};
use tonic::{Code, Status};

/// Files of incomplete uploads.
fn half_written(farm: &Farm) -> usize {
    std::fs::read_dir(farm.dir.path().join("blobs/tmp")).unwrap().count()
}

/// The end of every test: an honest client is served.
async fn goes_on(farm: &Farm) {
    let digest = farm.put(SHA256, b"honest").await;
    assert_eq!(farm.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), b"honest");
}

#[tokio::test]
async fn a_write_that_never_ends_is_refused_as_soon_as_it_is_longer_than_its_digest_says() {
    let farm = Farm::start().await;
    let data = noise(1, 100_000);
    let digest = SHA256.digest(&data);
    let name = format!("uploads/u/blobs/{digest}");
    let endless = (0_usize..).map(move |at| piece(&name, at * data.len(), &data, false));
    assert_eq!(code(farm.bytes.clone().write(stream::iter(endless)).await), Code::InvalidArgument);
    assert!(!farm.has(&digest).await && half_written(&farm) == 0, "expected nothing of it to be kept");
    goes_on(&farm).await;
}

#[tokio::test]
async fn a_compressed_write_that_never_ends_and_decodes_to_nothing_is_refused() {
    let farm = Farm::start().await;
    let digest = SHA256.digest(b"small");
    let name = format!("uploads/u/compressed-blobs/zstd/{digest}");
    // A skippable frame of RFC 8878: a magic number, a length, and bytes without meaning.
    let length = 65_000_u32;
    let mut frame = [0x184D_2A50_u32.to_le_bytes(), length.to_le_bytes()].concat();
    frame.resize(8 + length as usize, 0);
    let endless = (0_usize..).map(move |at| piece(&name, at * frame.len(), &frame, false));
    let status = farm.bytes.clone().write(stream::iter(endless)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("this upload does not end"), "{status}");
    goes_on(&farm).await;
}

#[tokio::test]
async fn a_write_of_endless_empty_messages_is_refused() {
    let farm = Farm::start().await;
    let name = format!("uploads/u/blobs/{}", SHA256.digest(b"small"));
    let endless = stream::repeat(piece(&name, 0, b"", false));
    let status = farm.bytes.clone().write(endless).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("empty messages"), "{status}");
    goes_on(&farm).await;
}

#[tokio::test]
async fn an_upload_that_falls_silent_is_ended_and_may_go_on_with_a_new_stream() {
    let farm = Farm::with_idle_timeout(Duration::from_millis(50)).await;
    let data = noise(1, 200_000);
    let name = format!("uploads/u/blobs/{}", SHA256.digest(&data));
    let silent = stream::iter([piece(&name, 0, &data[..100_000], false)]).chain(stream::pending());
    let status = farm.bytes.clone().write(silent).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(farm.write_status(&name).await, (100_000, false));
    assert_eq!(farm.write(vec![piece(&name, 100_000, &data[100_000..], true)]).await.unwrap(), 200_000);
}

#[tokio::test]
async fn uploads_that_never_finish_are_bounded() {
    let farm = Farm::start().await;
    for at in 0..300_u32 {
        let digest = SHA256.digest(&[&at.to_le_bytes()[..], &[0; 96]].concat());
        let begun = vec![piece(&format!("uploads/{at}/blobs/{digest}"), 0, &at.to_le_bytes(), false)];
        assert_eq!(farm.write(begun).await.unwrap(), 4);
    }
    assert!(half_written(&farm) <= 130, "expected the oldest of 300 to be removed, found {}", half_written(&farm));
    goes_on(&farm).await;
}

#[tokio::test]
async fn a_batch_larger_than_any_message_is_refused_with_the_limit_and_the_connection_goes_on() {
    let farm = Farm::start().await;
    let data = vec![0_u8; 20 << 20];
    let digest = SHA256.digest(&data).to_wire();
    let one = reapi::batch_update_blobs_request::Request { digest: Some(digest.clone()), data, compressor: 0 };
    let update = reapi::BatchUpdateBlobsRequest { requests: vec![one], ..Default::default() };
    let read = reapi::BatchReadBlobsRequest { digests: vec![digest; 250_000], ..Default::default() };
    let refused = [
        farm.cas.clone().batch_update_blobs(update).await.unwrap_err(),
        farm.cas.clone().batch_read_blobs(read).await.unwrap_err(),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("`max_batch_total_size_bytes` is 4194304"), "{status}");
    }
    goes_on(&farm).await;
}

/// A tree of this many levels, each of which references the one below this many times.
async fn levels(farm: &Farm, depth: usize, fan: usize) -> Digest {
    let mut digest = farm.put_message(&reapi::Directory::default()).await;
    for _ in 0..depth {
        let node = |at: usize| reapi::DirectoryNode { name: format!("d{at}"), digest: Some(digest.to_wire()) };
        let directories = (0..fan).map(node).collect();
        digest = farm.put_message(&reapi::Directory { directories, ..Default::default() }).await;
    }
    digest
}

/// A directory of this many files.
async fn wide(farm: &Farm, files: usize) -> Digest {
    let empty = Digest::empty(SHA256).to_wire();
    let file = |at: usize| reapi::FileNode { name: at.to_string(), digest: Some(empty.clone()), ..Default::default() };
    farm.put_message(&reapi::Directory { files: (0..files).map(file).collect(), ..Default::default() }).await
}

async fn execute(farm: &Farm, root: &Digest) -> Result<Attached, Status> {
    let command = reapi::Command { arguments: vec!["true".into()], ..Default::default() };
    let action = reapi::Action {
        command_digest: Some(farm.put_message(&command).await.to_wire()),
        input_root_digest: Some(root.to_wire()),
        ..Default::default()
    };
    let action_digest = farm.put_message(&action).await;
    let execution = ExecutionHandle::spawn(farm.stores.clone(), kiln_scheduler::Config::default());
    let request = Request {
        instance: String::new(),
        action_digest,
        skip_cache_lookup: false,
        priority: 0,
        share: String::new(),
        known: None,
        build: String::new(),
        path_weight: 0,
        secrets: Vec::new(),
        agents: None,
        shell: None,
        queue_timeout: None,
    };
    execution.execute(request).await
}

#[tokio::test]
async fn inputs_that_would_explode_are_too_deep_or_too_wide_are_invalid_and_the_limit_is_named() {
    let farm = Farm::start().await;
    let bomb = [0x0a, 0x00].repeat(600_000);
    for (root, words) in [
        (levels(&farm, 60, 10).await, "500000 entries"),
        (levels(&farm, 600, 1).await, "deeper than 512"),
        (levels(&farm, 6, 10).await, "500000 entries"),
        (wide(&farm, 1_000_000).await, "500000 entries"),
        (farm.put(SHA256, &bomb).await, "500000 entries"),
        (Digest { size: 1 << 40, ..SHA256.digest(b"x") }, "more than 64 MiB"),
    ] {
        let status = execute(&farm, &root).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(words), "expected `{words}` in `{}`", status.message());
    }
    goes_on(&farm).await;
}

#[tokio::test]
async fn a_name_that_no_file_system_takes_is_refused() {
    let farm = Farm::start().await;
    let file =
        reapi::FileNode { name: "n".repeat(256), digest: Some(Digest::empty(SHA256).to_wire()), ..Default::default() };
    let root = farm.put_message(&reapi::Directory { files: vec![file], ..Default::default() }).await;
    let status = execute(&farm, &root).await.unwrap_err();
    assert!(status.code() == Code::InvalidArgument && status.message().contains("256 bytes"), "{status}");
}

#[tokio::test]
async fn missing_inputs_of_a_large_tree_are_all_named() {
    let farm = Farm::start().await;
    let absent: Vec<Digest> = (0..2_000_u32).map(|at| SHA256.digest(&at.to_le_bytes())).collect();
    let node =
        |digest: &Digest| reapi::FileNode { name: digest.hex(), digest: Some(digest.to_wire()), ..Default::default() };
    let below = SHA256.digest(b"no directory");
    let below_node = reapi::DirectoryNode { name: "below".into(), digest: Some(below.to_wire()) };
    let root = reapi::Directory {
        files: absent.iter().map(node).collect(),
        directories: vec![below_node],
        ..Default::default()
    };
    let status = execute(&farm, &farm.put_message(&root).await).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let mut named = precondition::subjects(&precondition::from_tonic(&status));
    named.sort();
    let mut expected: Vec<String> = absent.iter().chain([&below]).map(|digest| format!("blobs/{digest}")).collect();
    expected.sort();
    assert_eq!(named, expected);
}

async fn get_tree(farm: &Farm, root: &Digest) -> Result<usize, Status> {
    let request = reapi::GetTreeRequest { root_digest: Some(root.to_wire()), ..Default::default() };
    let mut pages = farm.cas.clone().get_tree(request).await?.into_inner();
    let mut count = 0;
    while let Some(page) = pages.message().await? {
        count += page.directories.len();
    }
    Ok(count)
}

#[tokio::test]
async fn get_tree_gives_each_directory_of_an_exploding_tree_once_and_refuses_countless_ones() {
    let farm = Farm::start().await;
    assert_eq!(get_tree(&farm, &levels(&farm, 60, 10).await).await.unwrap(), 61);
    let bomb = farm.put(SHA256, &[0x12, 0x00].repeat(600_000)).await;
    assert_eq!(code(get_tree(&farm, &bomb).await), Code::InvalidArgument);
    let huge = Digest { size: 1 << 40, ..SHA256.digest(b"x") };
    assert_eq!(code(get_tree(&farm, &huge).await), Code::InvalidArgument);
    goes_on(&farm).await;
}

#[tokio::test]
async fn a_result_that_names_an_exploding_tree_is_checked_without_laying_it_out() {
    let farm = Farm::start().await;
    let command = farm.put_message(&reapi::Command::default()).await;
    let action = reapi::Action { command_digest: Some(command.to_wire()), ..Default::default() };
    let action = farm.put_message(&action).await;
    let directory = reapi::OutputDirectory {
        path: "out".into(),
        root_directory_digest: Some(levels(&farm, 60, 10).await.to_wire()),
        ..Default::default()
    };
    let result = reapi::ActionResult { output_directories: vec![directory], ..Default::default() };
    let request = reapi::UpdateActionResultRequest {
        action_digest: Some(action.to_wire()),
        action_result: Some(result.clone()),
        ..Default::default()
    };
    farm.actions.clone().update_action_result(request).await.unwrap();
    let ask = reapi::GetActionResultRequest { action_digest: Some(action.to_wire()), ..Default::default() };
    let hit = farm.actions.clone().get_action_result(ask).await.unwrap().into_inner();
    assert_eq!(hit.output_directories, result.output_directories);
}
