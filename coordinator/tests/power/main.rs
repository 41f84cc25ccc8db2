//! The stores on a disk whose power is cut: acknowledged artifacts are complete, and no damaged blob is returned.

#![allow(clippy::unwrap_used)]

mod disk;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use disk::Forgetful;
use futures::TryStreamExt;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_store::{BlobStore, Config, Error, Stores};
use proptest::prelude::*;

const F: DigestFunction = DigestFunction::Sha256;

#[derive(Debug, Clone)]
enum Action {
    /// A blob of the cache: which, and how large.
    Blob(u8, usize),
    /// A blob of an artifact.
    Artifact(u8, usize),
    /// The same, streamed, twice concurrently.
    Streamed(u8, usize),
    /// The process is killed and started again; the kernel keeps running.
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    let size = prop_oneof![3 => 0..5_000_usize, 1 => 1_000_000..1_300_000_usize];
    prop_oneof![
        3 => (0..6_u8, size.clone()).prop_map(|(which, size)| Action::Blob(which, size)),
        4 => (0..6_u8, size.clone()).prop_map(|(which, size)| Action::Artifact(which, size)),
        3 => (0..6_u8, size).prop_map(|(which, size)| Action::Streamed(which, size)),
        1 => Just(Action::Restart),
    ]
}

fn data(which: u8, size: usize) -> Bytes {
    (0..size).map(|at| (at as u64).wrapping_mul(0x9e37_79b9).rotate_left(7) as u8 ^ which).collect::<Vec<u8>>().into()
}

async fn open(dir: &Path, syncs: Option<&Arc<Forgetful>>) -> Stores {
    let mut config = Config::on_disk(dir.to_owned(), 1 << 30);
    if let Some(syncs) = syncs {
        config.syncs = syncs.clone();
    }
    Stores::open(&config).await.unwrap()
}

async fn stream_in(store: &dyn BlobStore, data: &Bytes) -> Result<(), Error> {
    let mut writer = store.write(&F.digest(data)).await?;
    for at in (0..data.len()).step_by(100_000) {
        writer.write(data.slice(at..data.len().min(at + 100_000))).await?;
    }
    writer.commit().await
}

/// Runs these steps until the power is cut; returns the artifacts that were acknowledged before.
async fn run(top: &Path, disk: &Arc<Forgetful>, actions: &[Action]) -> (Vec<Digest>, Vec<Digest>) {
    let mut stores = open(top, Some(disk)).await;
    let (mut acknowledged, mut written) = (Vec::new(), Vec::new());
    for action in actions {
        let (digest, done) = match action {
            Action::Restart => {
                drop(stores);
                stores = open(top, Some(disk)).await;
                continue;
            }
            Action::Blob(which, size) => {
                let data = data(*which, *size);
                stores.blobs.put(&F.digest(&data), data.clone()).await.unwrap();
                written.push(F.digest(&data));
                continue;
            }
            Action::Artifact(which, size) => {
                let data = data(*which, *size);
                (F.digest(&data), stores.artifacts.put(&F.digest(&data), data.clone()).await)
            }
            Action::Streamed(which, size) => {
                let data = data(*which, *size);
                let both = tokio::join!(stream_in(&*stores.artifacts, &data), stream_in(&*stores.artifacts, &data));
                (F.digest(&data), both.0.and(both.1))
            }
        };
        done.unwrap();
        written.push(digest);
        if !disk.is_cut() {
            acknowledged.push(digest);
        }
    }
    disk.cut();
    (acknowledged, written)
}

/// The content of a blob in one piece, in pieces, or from its middle on.
async fn read(store: &dyn BlobStore, digest: &Digest, offset: u64) -> Option<Vec<u8>> {
    let pieces: Result<Vec<Bytes>, Error> = async { store.read(digest, offset, None).await?.try_collect().await }.await;
    match pieces {
        Ok(pieces) => Some(pieces.concat()),
        Err(Error::NotFound { .. } | Error::Corrupt { .. }) => None,
        Err(error) => panic!("expected no other failure, found {error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_takes_no_artifact_and_damages_no_blob_unnoticed(
        actions in proptest::collection::vec(action(), 1..14),
        syncs in 1..60_u64,
        seed in any::<u64>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (top, after) = (dir.path().join("data"), dir.path().join("after"));
        std::fs::create_dir(&top).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let disk = Arc::new(Forgetful::new(&top, &after, syncs, seed));
            let (acknowledged, written) = run(&top, &disk, &actions).await;
            // redb maintains the databases; `kiln-journal` cuts their power.
            let _ = std::fs::remove_file(after.join("actions.redb"));
            let stores = open(&after, None).await;
            for digest in &acknowledged {
                let found = stores.artifacts.get(digest).await;
                assert!(found.is_ok(), "lost {digest}, which was acknowledged: {:?}", found.err());
            }
            for (number, digest) in written.iter().enumerate() {
                let offset = if number % 2 == 0 { 0 } else { digest.size / 2 };
                for store in [&stores.blobs, &stores.artifacts] {
                    if let Some(found) = read(&**store, digest, offset).await {
                        let whole = store.get(digest).await.unwrap();
                        assert_eq!(F.digest(&whole), *digest);
                        assert_eq!(found, whole[offset as usize..], "returned damaged bytes of {digest}");
                    }
                }
                // It can be written again.
                let data = (0..6).map(|which| data(which, digest.size as usize)).find(|data| F.digest(data) == *digest);
                stores.artifacts.put(digest, data.unwrap()).await.unwrap();
                assert!(stores.artifacts.get(digest).await.is_ok());
            }
        });
    }
}
