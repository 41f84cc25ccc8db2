//! One coordinator's stores on its own disk, with a Redis that others may share.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use kiln_auth::FarmKey;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use kiln_store::Health;
use kiln_store::redis::{Address, Tls};
use kiln_store::{BlobStore, Config, Error, RedisConfig, Stores};
use prost::Message;
use tempfile::TempDir;

use crate::MIB;
use crate::support::{SHA256, noise};
use kiln_harness::cannot_run;
use kiln_harness::redis;

/// One coordinator's stores, on their own disk.
pub struct Coordinator {
    pub stores: Stores,
    pub dir: TempDir,
}

fn config(dir: &TempDir, url: &str, tls: &Tls) -> Config {
    let address = Address::parse(url, tls).unwrap();
    let redis = RedisConfig { address, prefix: "kiln".into(), max_blob_bytes: 32 << 20, key: crate::farm_key() };
    Config { redis: Some(redis), ..Config::on_disk(dir.path().to_owned(), 1 << 30) }
}

/// One of another farm, with this key.
pub async fn coordinator_of(url: &str, key: FarmKey) -> Coordinator {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir, url, &Tls::default());
    config.redis = config.redis.map(|redis| RedisConfig { key, ..redis });
    let stores = Stores::open(&config).await.unwrap();
    Coordinator { stores, dir }
}

pub async fn coordinator_with(url: &str, tls: &Tls) -> Coordinator {
    let dir = tempfile::tempdir().unwrap();
    let stores = Stores::open(&config(&dir, url, tls)).await.unwrap();
    Coordinator { stores, dir }
}

pub async fn coordinator(url: &str) -> Coordinator {
    coordinator_with(url, &Tls::default()).await
}

impl Coordinator {
    pub fn blobs(&self) -> &dyn BlobStore {
        &*self.stores.blobs
    }

    pub async fn put(&self, data: &[u8]) -> Digest {
        self.put_as(SHA256, data).await
    }

    pub async fn put_as(&self, function: DigestFunction, data: &[u8]) -> Digest {
        let digest = function.digest(data);
        let mut writer = self.blobs().write(&digest).await.unwrap();
        for piece in data.chunks(700_000) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        writer.commit().await.unwrap();
        digest
    }

    pub async fn has(&self, digest: &Digest) -> bool {
        self.blobs().find_missing(&[*digest]).await.unwrap().is_empty()
    }

    pub async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<Vec<u8>, Error> {
        let pieces: Vec<Bytes> = self.blobs().read(digest, offset, limit).await?.try_collect().await?;
        Ok(pieces.concat())
    }

    pub async fn becomes(&self, wanted: fn(&Health) -> bool) {
        let mut health = self.stores.redis.as_ref().unwrap().health();
        let changed = health.wait_for(wanted);
        tokio::time::timeout(Duration::from_secs(60), changed).await.expect("expected the health to change").unwrap();
    }

    /// A result with a file, a tree and standard output, all stored; the tree references one more file.
    pub async fn put_result(&self, instance: &str, seed: u64) -> (Digest, reapi::ActionResult, Vec<Digest>) {
        let (file, inner, stdout) =
            (noise(seed, 5 * MIB), noise(seed + 1, 3_000), format!("output {seed}").into_bytes());
        let (file, inner, stdout) = (self.put(&file).await, self.put(&inner).await, self.put(&stdout).await);
        let node = reapi::FileNode { name: "a".into(), digest: Some(inner.to_wire()), ..Default::default() };
        let root = reapi::Directory { files: vec![node], ..Default::default() };
        // An empty directory is the empty blob, which nobody stores.
        let empty = reapi::OutputDirectory {
            path: "e".into(),
            root_directory_digest: Some(Digest::empty(SHA256).to_wire()),
            ..Default::default()
        };
        let tree = self.put(&reapi::Tree { root: Some(root), children: Vec::new() }.encode_to_vec()).await;
        let result = reapi::ActionResult {
            output_files: vec![reapi::OutputFile {
                path: "f".into(),
                digest: Some(file.to_wire()),
                ..Default::default()
            }],
            output_directories: vec![
                reapi::OutputDirectory { path: "d".into(), tree_digest: Some(tree.to_wire()), ..Default::default() },
                empty,
            ],
            stdout_digest: Some(stdout.to_wire()),
            ..Default::default()
        };
        let action = SHA256.digest(&seed.to_le_bytes());
        self.stores.actions.put(instance, &action, result.clone()).await.unwrap();
        (action, result, vec![file, inner, stdout, tree])
    }
}

pub fn redis_or_skip() -> bool {
    let installed = redis::is_installed();
    if !installed {
        cannot_run("redis-server is not installed");
    }
    installed
}
