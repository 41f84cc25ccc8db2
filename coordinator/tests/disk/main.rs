//! The stores on a real disk: killed processes, damaged files, full disks, and the bound on bytes.

#![allow(clippy::unwrap_used)]

mod packs;
#[path = "../support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use futures::{FutureExt, TryStreamExt};
use kiln_harness::cannot_run;
use kiln_harness::remote::as_written;
use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use kiln_store::{BlobStore, Config, Error, Stores};
use proptest::prelude::*;
use support::{BLAKE3, SHA256, damage, files, is_stored, noise, set_used, spot};

/// Stores that use only the disk open without waiting for anything.
fn try_open(dir: &Path, max_bytes: u64) -> Result<Stores, Error> {
    Stores::open(&Config::on_disk(dir.to_owned(), max_bytes)).now_or_never().unwrap()
}

fn open(dir: &Path, max_bytes: u64) -> Stores {
    try_open(dir, max_bytes).unwrap()
}

async fn put(store: &dyn BlobStore, data: &[u8]) -> Digest {
    let digest = SHA256.digest(data);
    store.put(&digest, Bytes::copy_from_slice(data)).await.unwrap();
    digest
}

async fn stream_in(store: &dyn BlobStore, digest: &Digest, data: &[u8]) -> Result<(), Error> {
    let mut writer = store.write(digest).await?;
    for piece in data.chunks(100_000) {
        writer.write(Bytes::copy_from_slice(piece)).await?;
    }
    writer.commit().await
}

async fn read(store: &dyn BlobStore, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<Vec<u8>, Error> {
    let pieces: Vec<Bytes> = store.read(digest, offset, limit).await?.try_collect().await?;
    Ok(pieces.concat())
}

#[tokio::test]
async fn stores_keep_everything_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (noise(1, 10), noise(2, 3_000_000));
    let (blake, action) = (BLAKE3.digest(&large), SHA256.digest(b"action"));
    let result = reapi::ActionResult { exit_code: 3, ..Default::default() };
    let artifact;
    {
        let stores = open(dir.path(), 1 << 30);
        put(&*stores.blobs, &small).await;
        stream_in(&*stores.blobs, &blake, &large).await.unwrap();
        artifact = put(&*stores.artifacts, b"artifact").await;
        stores.actions.put("i", &action, result.clone()).await.unwrap();
    }
    let stores = open(dir.path(), 1 << 30);
    assert_eq!(stores.blobs.bytes(), 3_000_010);
    assert_eq!(stores.blobs.get(&SHA256.digest(&small)).await.unwrap(), small);
    assert_eq!(read(&*stores.blobs, &blake, 0, None).await.unwrap(), large);
    assert_eq!(as_written(stores.actions.get("i", &action).await.unwrap()), Some(result));
    assert_eq!(stores.artifacts.get(&artifact).await.unwrap(), "artifact");
    assert_eq!(stores.blobs.get(&artifact).await.unwrap(), "artifact", "expected reads to fall through to artifacts");
    assert!(stores.blobs.find_missing(&[artifact]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_second_coordinator_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path(), 1_000);
    assert!(matches!(try_open(dir.path(), 1_000), Err(Error::Locked { .. })));
}

#[tokio::test]
async fn a_damaged_blob_is_found_out_dropped_and_absent_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let stores = open(dir.path(), 1 << 30);
    let small = put(&*stores.blobs, &noise(1, 1_000)).await;
    damage(dir.path(), &small, 10, b"damage");
    assert!(matches!(stores.blobs.get(&small).await, Err(Error::NotFound { .. })));
    let data = noise(2, 5_000_000);
    let large = put(&*stores.blobs, &data).await;
    damage(dir.path(), &large, 4_999_990, b"damage");
    let mut pieces = stores.blobs.read(&large, 0, None).await.unwrap();
    let mut received = 0;
    let end = loop {
        match pieces.try_next().await {
            Ok(Some(piece)) => received += piece.len(),
            end => break end,
        }
    };
    assert!(matches!(end, Err(Error::Corrupt { .. })));
    assert!(received < data.len(), "expected a damaged blob not to be complete");
    for digest in [small, large] {
        assert_eq!(stores.blobs.find_missing(&[digest]).await.unwrap(), [digest]);
        assert!(!is_stored(dir.path(), &digest));
        assert!(matches!(read(&*stores.blobs, &digest, 0, None).await, Err(Error::NotFound { .. })));
    }
    assert_eq!(stores.blobs.bytes(), 0);
    put(&*stores.blobs, &data).await;
    assert_eq!(read(&*stores.blobs, &large, 0, None).await.unwrap(), data, "expected it to be stored again");
}

#[tokio::test]
async fn a_part_of_a_blob_damaged_while_the_store_was_closed_is_not_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = noise(1, 3_000_000);
    let (good, bad, short) = (SHA256.digest(&data), SHA256.digest(&data[1..]), SHA256.digest(&data[2..]));
    {
        let stores = open(dir.path(), 1 << 30);
        for at in 0..3 {
            put(&*stores.blobs, &data[at..]).await;
        }
    }
    damage(dir.path(), &bad, 2_000_000, &[!data[2_000_001]]);
    std::fs::write(spot(dir.path(), &short).unwrap().path, b"torn").unwrap();
    let stores = open(dir.path(), 1 << 30);
    assert_eq!(
        stores.blobs.find_missing(&[good, bad, short]).await.unwrap(),
        [short],
        "expected its wrong size to be detected"
    );
    assert_eq!(read(&*stores.blobs, &good, 5, Some(10)).await.unwrap(), data[5..15]);
    assert!(matches!(read(&*stores.blobs, &bad, 5, Some(10)).await, Err(Error::NotFound { .. })));
    assert_eq!(stores.blobs.find_missing(&[bad]).await.unwrap(), [bad]);
}

#[tokio::test]
async fn a_writer_that_is_dropped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let stores = open(dir.path(), 10_000_000);
    let data = noise(1, 5_000_000);
    let digest = SHA256.digest(&data);
    for _ in 0..3 {
        let mut writer = stores.blobs.write(&digest).await.unwrap();
        for piece in data.chunks(500_000) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        drop(writer);
    }
    stream_in(&*stores.blobs, &digest, &data).await.unwrap();
    assert_eq!(stores.blobs.get(&digest).await.unwrap(), data);
}

#[tokio::test]
async fn a_blob_larger_than_the_store_is_refused_and_evicts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let stores = open(dir.path(), 10_000);
    let kept = put(&*stores.blobs, &noise(1, 9_000)).await;
    let data = noise(2, 10_001);
    let digest = SHA256.digest(&data);
    assert!(matches!(stream_in(&*stores.blobs, &digest, &data).await, Err(Error::Full { .. })));
    assert!(matches!(stores.blobs.put(&digest, data.into()).await, Err(Error::Full { .. })));
    assert!(stores.blobs.find_missing(&[kept]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_smaller_bound_after_a_restart_evicts_what_was_written_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut blobs = Vec::new();
    {
        let stores = open(dir.path(), 1 << 30);
        for seed in 0..10 {
            blobs.push(put(&*stores.blobs, &noise(seed, 1_000)).await);
        }
    }
    blobs.iter().zip(0..).for_each(|(digest, seconds)| set_used(dir.path(), digest, seconds));
    let stores = open(dir.path(), 4_500);
    assert_eq!(stores.blobs.find_missing(&blobs).await.unwrap(), blobs[..6]);
    assert_eq!(blobs.iter().filter(|digest| is_stored(dir.path(), digest)).count(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_bound_on_bytes_holds_on_the_disk_and_the_index_is_true(
        steps in prop::collection::vec((0..30_u64, 0..4_u8), 1..80), packed: bool
    ) {
        const MAX: u64 = 20_000;
        /// What packs may take before it counts.
        const NOT_COUNTED: u64 = 1 << 20;
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let mut config = Config::on_disk(dir.path().to_owned(), MAX);
            config.packed_bytes = if packed { 4_000 } else { 0 };
            let stores = Stores::open(&config).await.unwrap();
            for (seed, step) in steps {
                let data = noise(seed, seed as usize * 200 + 1);
                let digest = SHA256.digest(&data);
                match step {
                    0 => stores.blobs.put(&digest, data.into()).await.unwrap(),
                    1 => stream_in(&*stores.blobs, &digest, &data).await.unwrap(),
                    2 => {
                        let there = stores.blobs.find_missing(&[digest]).await.unwrap().is_empty();
                        assert_eq!(there, is_stored(dir.path(), &digest));
                    }
                    _ => match stores.blobs.get(&digest).await {
                        Ok(found) => assert_eq!(found, data),
                        Err(error) => assert!(matches!(error, Error::NotFound { .. }), "{error}"),
                    },
                }
                let (packs, files): (Vec<_>, Vec<_>) = files(&dir.path().join("blobs")).into_iter().partition(|path| {
                    path.parent().unwrap().ends_with("packs")
                });
                let sizes: u64 = files.iter().map(|path| path.metadata().unwrap().len()).sum();
                let blocks: u64 = packs.iter().map(|path| path.metadata().unwrap().blocks() * 512).sum();
                if packed {
                    assert!(sizes + blocks <= stores.blobs.bytes() + NOT_COUNTED, "{sizes} and {blocks}");
                } else {
                    assert_eq!((sizes, blocks), (stores.blobs.bytes(), 0));
                }
                assert!(stores.blobs.bytes() <= MAX);
            }
        });
    }
}

/// Set in a process that this test program starts itself: the directory of its data.
const CHILD: &str = "KILN_TEST_CHILD_DIR";

/// This test alone, in its own process.
fn this_test(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(CHILD, dir);
    command
}

/// The child's part: writes forever, and reports what is committed.
async fn write_for_ever(dir: &Path) {
    let stores = open(dir, 1 << 30);
    // Every process writes different blobs.
    for seed in u64::from(std::process::id()) << 16.. {
        let stream = async {
            let data = noise(seed, 700_000);
            let digest = BLAKE3.digest(&data);
            stream_in(&*stores.blobs, &digest, &data).await.unwrap();
            println!("\nBLOB {digest}");
        };
        let small = async {
            let digest = put(&*stores.blobs, &noise(seed, 2_000)).await;
            println!("\nBLOB {digest}");
            let result = reapi::ActionResult { exit_code: seed as i32, ..Default::default() };
            stores.actions.put("", &digest, result).await.unwrap();
            println!("\nACTION {digest} {}", seed as i32);
        };
        tokio::join!(stream, small);
    }
}

#[test]
fn after_kill_9_what_was_committed_is_there_and_nothing_is_half_visible() {
    const NAME: &str = "after_kill_9_what_was_committed_is_there_and_nothing_is_half_visible";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(dir) = std::env::var_os(CHILD) {
        return runtime.block_on(write_for_ever(Path::new(&dir)));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut blobs: Vec<Digest> = Vec::new();
    let mut actions: HashMap<Digest, i32> = HashMap::new();
    for round in 0..5 {
        let mut child = this_test(NAME, dir.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |line: String| match line.split(' ').collect::<Vec<_>>()[..] {
            ["BLOB", digest] => blobs.push(digest.parse().unwrap()),
            ["ACTION", digest, seed] => {
                actions.insert(digest.parse().unwrap(), seed.parse().unwrap());
            }
            _ => {}
        };
        for line in lines.by_ref().take(150 + round * 7) {
            note(line.unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it reported before it died is also committed; its last line may be incomplete.
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        rest.into_iter().rev().skip(1).for_each(&mut note);
        runtime.block_on(async {
            let stores = open(dir.path(), 1 << 30);
            assert_eq!(stores.blobs.find_missing(&blobs).await.unwrap(), []);
            for digest in &blobs {
                stores.blobs.get(digest).await.unwrap();
            }
            for (action, exit_code) in &actions {
                let result = stores.actions.get("", action).await.unwrap().unwrap();
                assert_eq!(result.exit_code, *exit_code);
            }
            assert_eq!(files(&dir.path().join("blobs/tmp")), Vec::<std::path::PathBuf>::new());
            for path in ["sha256", "blake3"].iter().flat_map(|name| files(&dir.path().join("blobs").join(name))) {
                let name = path.file_name().unwrap().to_str().unwrap().replace('-', "/");
                let blake = path.to_str().unwrap().contains("/blake3/");
                let digest: Digest = if blake { format!("blake3/{name}") } else { name }.parse().unwrap();
                assert_eq!(digest.function.digest(&std::fs::read(&path).unwrap()), digest);
            }
        });
    }
    assert!(blobs.len() > 100 && actions.len() > 50, "{} blobs, {} actions", blobs.len(), actions.len());
}

/// The child's part: has its own disk of 8 MiB.
async fn fill_the_disk(dir: &Path) {
    let stores = open(dir, 1 << 30);
    let kept = put(&*stores.blobs, &noise(1, 1_000_000)).await;
    let large = noise(2, 20_000_000);
    let digest = SHA256.digest(&large);
    let error = stream_in(&*stores.blobs, &digest, &large).await.unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("is full"), "{error}");
    assert_eq!(tonic::Status::from(error).code(), tonic::Code::ResourceExhausted);
    assert!(matches!(stores.blobs.put(&digest, large.into()).await, Err(Error::DiskFull { .. })));
    assert_eq!(stores.blobs.bytes(), 1_000_000);
    assert_eq!(files(&dir.join("blobs/tmp")), Vec::<std::path::PathBuf>::new(), "expected incomplete files to be gone");
    assert_eq!(stores.blobs.get(&kept).await.unwrap(), noise(1, 1_000_000));
    put(&*stores.blobs, &noise(3, 1_000_000)).await;
    // The action cache works again, too, once there is space.
    let ballast = dir.join("ballast");
    let full = std::fs::write(&ballast, vec![1; 16 << 20]);
    assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let action = SHA256.digest(b"action");
    let result = reapi::ActionResult { stdout_raw: noise(4, 3_000_000), ..Default::default() };
    let error = stores.actions.put("", &action, result).await.unwrap_err();
    assert_eq!(tonic::Status::from(error).code(), tonic::Code::ResourceExhausted);
    std::fs::remove_file(&ballast).unwrap();
    let result = reapi::ActionResult { exit_code: 7, ..Default::default() };
    stores.actions.put("", &action, result.clone()).await.unwrap();
    assert_eq!(as_written(stores.actions.get("", &action).await.unwrap()), Some(result));
    println!("\nDISK FILLED");
}

#[test]
fn a_full_disk_is_an_error_and_the_stores_go_on() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return tokio::runtime::Runtime::new().unwrap().block_on(fill_the_disk(Path::new(&dir)));
    }
    let dir = tempfile::tempdir().unwrap();
    on_a_small_disk("a_full_disk_is_an_error_and_the_stores_go_on", dir.path());
}

/// Runs the child's part of a test on a disk of 8 MiB, at whose end it prints `DISK FILLED`.
fn on_a_small_disk(name: &str, dir: &Path) {
    let inner = this_test(name, dir);
    // Its own mount namespace, so that the small disk disappears with the process.
    let mut command = Command::new("unshare");
    command.args(if rustix::process::getuid().is_root() { &["-m"][..] } else { &["-U", "-r", "-m"][..] });
    command.args(["sh", "-c", "mount -t tmpfs -o size=8m kiln-test \"$0\" || { echo NO MOUNT; exit 0; }; exec \"$@\""]);
    command.arg(dir).arg(inner.get_program()).args(inner.get_args()).env(CHILD, dir);
    let Ok(output) = command.output() else { return cannot_run("`unshare` of util-linux") };
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if stdout.contains("NO MOUNT") || stderr.contains("unshare failed") {
        return cannot_run("the right to mount a tmpfs in a namespace of its own");
    }
    assert!(output.status.success() && stdout.contains("DISK FILLED"), "{stdout}\n{stderr}");
}
