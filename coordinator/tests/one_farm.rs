//! Stores of coordinators that serve one farm: each answers for all of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use kiln_proto::digest::Digest;
use kiln_store::{BlobStore, BlobStream, BlobWriter, Bond, Config, Error, Stores};
use support::{SHA256, noise};

/// What the coordinators have in common: a store that counts who reads, and that can be away.
#[derive(Debug)]
struct Common {
    store: Arc<dyn BlobStore>,
    reads: AtomicUsize,
    is_away: AtomicBool,
}

impl Common {
    async fn at(dir: &Path) -> Arc<Self> {
        let store = Stores::open(&Config::on_disk(dir.join("common"), 1 << 30)).await.unwrap().blobs;
        Arc::new(Self { store, reads: AtomicUsize::new(0), is_away: AtomicBool::new(false) })
    }

    fn away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    fn there(&self) -> Result<&dyn BlobStore, Error> {
        let gone = || Error::S3 { shown: "s3://common".into(), why: "gone".into() };
        if self.is_away.load(Ordering::SeqCst) { Err(gone()) } else { Ok(&*self.store) }
    }
}

#[async_trait]
impl BlobStore for Common {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        self.there()?.find_missing(digests).await
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        // So that others ask for the same meanwhile.
        tokio::task::yield_now().await;
        self.there()?.get(digest).await
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.there()?.read(digest, offset, limit).await
    }

    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        self.there()?.put(digest, data).await
    }

    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
        self.there()?.write(digest).await
    }

    fn bytes(&self) -> u64 {
        self.store.bytes()
    }

    fn capacity(&self) -> u64 {
        self.store.capacity()
    }
}

async fn coordinator(dir: &Path, common: &Arc<Common>, bytes: u64) -> Stores {
    let common: Arc<dyn BlobStore> = common.clone();
    Stores::open(&Config { common: Some(common), bond: Bond::Firm, ..Config::on_disk(dir.to_owned(), bytes) })
        .await
        .unwrap()
}

async fn whole(store: &dyn BlobStore, digest: &Digest) -> Vec<u8> {
    let pieces: Vec<Bytes> = store.read(digest, 0, None).await.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_acknowledges_all_have_and_what_is_fetched_is_fetched_once() {
    let dir = tempfile::tempdir().unwrap();
    let common = Common::at(dir.path()).await;
    let one = coordinator(&dir.path().join("one"), &common, 1 << 30).await;
    let other = coordinator(&dir.path().join("other"), &common, 1 << 30).await;
    for size in [10, 100_000, 6 << 20] {
        let data = noise(size as u64, size);
        let digest = SHA256.digest(&data);
        let mut writer = one.blobs.write(&digest).await.unwrap();
        writer.write(Bytes::from(data.clone())).await.unwrap();
        writer.commit().await.unwrap();
        assert!(other.blobs.find_missing(&[digest]).await.unwrap().is_empty());
        common.reads.store(0, Ordering::SeqCst);
        let readers = (0..20).map(|_| whole(&*other.blobs, &digest));
        assert!(futures::future::join_all(readers).await.iter().all(|read| *read == data));
        assert_eq!(common.reads.load(Ordering::SeqCst), 1, "expected {size} bytes to be fetched once");
        // It is on the disk now.
        common.away(true);
        assert_eq!(whole(&*other.blobs, &digest).await, data);
        assert_eq!(other.blobs.get(&digest).await.unwrap(), data);
        common.away(false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_that_others_could_not_find() {
    let dir = tempfile::tempdir().unwrap();
    let common = Common::at(dir.path()).await;
    let one = coordinator(&dir.path().join("one"), &common, 1 << 30).await;
    let other = coordinator(&dir.path().join("other"), &common, 1 << 30).await;
    let data = noise(3, 5_000);
    let digest = SHA256.digest(&data);
    common.away(true);
    let refused = one.blobs.put(&digest, data.clone().into()).await.unwrap_err();
    assert_eq!(tonic::Status::from(refused).code(), tonic::Code::Unavailable);
    let refused = one.blobs.put_many(vec![(digest, data.clone().into())]).await.pop().unwrap().unwrap_err();
    assert_eq!(tonic::Status::from(refused).code(), tonic::Code::Unavailable);
    // Neither is it there nor is it not: nobody knows.
    assert!(one.blobs.find_missing(&[digest]).await.is_err() && other.blobs.get(&digest).await.is_err());
    common.away(false);
    // Its disk has it, so nobody has to send it again.
    assert!(one.blobs.find_missing(&[digest]).await.unwrap().is_empty());
    assert_eq!(other.blobs.get(&digest).await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_outlives_the_coordinator_that_made_it() {
    let dir = tempfile::tempdir().unwrap();
    let common = Common::at(dir.path()).await;
    let data = noise(4, 50_000);
    let digest = SHA256.digest(&data);
    {
        let one = coordinator(&dir.path().join("one"), &common, 1 << 30).await;
        one.blobs.put(&digest, data.clone().into()).await.unwrap();
        common.away(true);
        let kept = kiln_store::copy(&*one.blobs, &*one.artifacts, &digest).await;
        assert!(kept.is_err(), "expected no artifact that lies on one disk alone");
        common.away(false);
        kiln_store::copy(&*one.blobs, &*one.artifacts, &digest).await.unwrap();
    }
    std::fs::remove_dir_all(dir.path().join("one")).unwrap();
    let other = coordinator(&dir.path().join("other"), &common, 1 << 30).await;
    assert!(other.artifacts.find_missing(&[digest]).await.unwrap().is_empty());
    assert_eq!(whole(&*other.artifacts, &digest).await, data);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_on_the_disk_is_passed_through() {
    let dir = tempfile::tempdir().unwrap();
    let common = Common::at(dir.path()).await;
    let one = coordinator(&dir.path().join("one"), &common, 1 << 30).await;
    let small = coordinator(&dir.path().join("small"), &common, 1 << 20).await;
    let data = noise(5, 3 << 20);
    let digest = SHA256.digest(&data);
    one.blobs.put(&digest, data.clone().into()).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(60), whole(&*small.blobs, &digest)).await;
    assert_eq!(read.unwrap(), data);
}
