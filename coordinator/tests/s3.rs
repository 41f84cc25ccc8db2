//! A bucket as a store shared by coordinators: a real server, stopped, damaged, and refusing.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use kiln_harness::cannot_run;
use kiln_harness::redis::Redis;
use kiln_harness::s3::S3;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use kiln_store::redis::{Address as RedisAddress, Tls};
use kiln_store::s3::{Address, S3Blobs};
use kiln_store::{BlobStore, Config, Error, RedisConfig, Stores, Swept};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use support::{BLAKE3, SHA256, noise};
use tempfile::TempDir;

const MIB: usize = 1 << 20;

/// One coordinator's stores, on their own disk.
struct Coordinator {
    stores: Stores,
    _dir: TempDir,
}

async fn open(address: Address, redis: Option<&Redis>) -> Result<Coordinator, Error> {
    let dir = tempfile::tempdir().unwrap();
    let redis = redis.map(|redis| RedisConfig {
        address: RedisAddress::parse(&redis.url(), &Tls::default()).unwrap(),
        prefix: "kiln".into(),
        max_blob_bytes: MIB as u64,
        key: kiln_auth::FarmKey::of(&[7; 32]),
    });
    let config = Config { redis, s3: Some(address), ..Config::on_disk(dir.path().to_owned(), 1 << 30) };
    Ok(Coordinator { stores: Stores::open(&config).await?, _dir: dir })
}

async fn coordinator(address: Address) -> Coordinator {
    open(address, None).await.unwrap()
}

impl Coordinator {
    fn blobs(&self) -> &dyn BlobStore {
        &*self.stores.blobs
    }

    async fn put(&self, function: DigestFunction, data: &[u8]) -> Digest {
        let digest = function.digest(data);
        let mut writer = self.blobs().write(&digest).await.unwrap();
        for piece in data.chunks(700_000) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        writer.commit().await.unwrap();
        digest
    }

    async fn has(&self, digest: &Digest) -> bool {
        self.blobs().find_missing(&[*digest]).await.unwrap().is_empty()
    }

    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<Vec<u8>, Error> {
        let pieces: Vec<Bytes> = self.blobs().read(digest, offset, limit).await?.try_collect().await?;
        Ok(pieces.concat())
    }
}

fn object(prefix: &str, digest: &Digest) -> Path {
    let hex = digest.hex();
    Path::from(format!("{prefix}/blobs/1/{}/{}/{hex}-{}", digest.function.name(), &hex[..2], digest.size))
}

async fn objects(s3: &S3, prefix: &str) -> Vec<String> {
    let found: Vec<_> = s3.bucket().list(Some(&Path::from(prefix))).try_collect().await.unwrap();
    found.into_iter().map(|object| object.location.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_on_one_bucket_share_blobs_of_every_size() {
    let Some(s3) = kiln_harness::s3::shared() else { return };
    let (one, other) = (coordinator(s3.address("sizes")).await, coordinator(s3.address("sizes/")).await);
    for (function, size) in
        [(SHA256, 10), (BLAKE3, 100_000), (SHA256, 8 * MIB), (BLAKE3, 8 * MIB + 1), (SHA256, 20 * MIB)]
    {
        let data = noise(size as u64, size);
        let digest = one.put(function, &data).await;
        assert!(other.has(&digest).await, "expected {size} bytes of {function:?} through the other coordinator");
        let (from, count) = (size / 3, size / 2);
        let part = other.read(&digest, from as u64, Some(count as u64)).await.unwrap();
        assert_eq!(part, data[from..from + count], "expected a part of {size} bytes");
        assert_eq!(other.blobs().get(&digest).await.unwrap(), data);
        assert_eq!(other.read(&digest, 0, None).await.unwrap(), data);
        assert!(other.read(&digest, size as u64, None).await.unwrap().is_empty());
        assert!(matches!(other.read(&digest, size as u64 + 1, None).await, Err(Error::OutOfRange { .. })));
    }
    let absent = SHA256.digest(b"never stored");
    assert!(!other.has(&absent).await);
    assert!(matches!(other.blobs().get(&absent).await, Err(Error::NotFound { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_redis_only_what_is_too_large_for_it_lies_in_the_bucket() {
    let Some(s3) = kiln_harness::s3::shared() else { return };
    if !kiln_harness::redis::is_installed() {
        return cannot_run("redis-server is not installed");
    }
    let redis = Redis::start();
    let address = s3.address("beside-redis");
    let one = open(address.clone(), Some(&redis)).await.unwrap();
    let other = open(address.clone(), Some(&redis)).await.unwrap();
    let third = open(address, Some(&redis)).await.unwrap();
    let small = one.put(SHA256, &noise(1, MIB)).await;
    let large = one.put(SHA256, &noise(2, 9 * MIB)).await;
    assert_eq!(objects(s3, "beside-redis").await, [object("beside-redis", &large).to_string()]);
    assert_eq!(other.blobs().get(&small).await.unwrap(), noise(1, MIB));
    assert_eq!(other.blobs().get(&large).await.unwrap(), noise(2, 9 * MIB));
    // A result is shared with both.
    let file = |digest: &Digest| reapi::OutputFile { digest: Some(digest.to_wire()), ..Default::default() };
    let result = reapi::ActionResult { output_files: vec![file(&small), file(&large)], ..Default::default() };
    let action = SHA256.digest(b"action");
    one.stores.actions.put("", &action, result.clone()).await.unwrap();
    let found = other.stores.cached_result("", &action).await.unwrap().unwrap();
    assert_eq!(reapi::ActionResult { execution_metadata: None, ..found }, result, "but for when it was recorded");
    s3.bucket().delete(&object("beside-redis", &large)).await.unwrap();
    assert_eq!(third.stores.cached_result("", &action).await.unwrap(), None, "expected no hit without the large file");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_absent_and_removed_and_no_part_of_it_is_handed_out() {
    let Some(s3) = kiln_harness::s3::shared() else { return };
    let (one, other) = (coordinator(s3.address("damage")).await, coordinator(s3.address("damage")).await);
    for size in [1_000, 12 * MIB] {
        for whole in [true, false] {
            let mut data = noise(size as u64 + u64::from(whole), size);
            let digest = one.put(SHA256, &data).await;
            data[size - 1] ^= 1;
            let path = object("damage", &digest);
            s3.bucket().put(&path, data.clone().into()).await.unwrap();
            let read = if whole { other.read(&digest, 0, None).await } else { other.read(&digest, 0, Some(10)).await };
            match read {
                Ok(found) => panic!("expected no bytes of a damaged blob, got {} of {size}", found.len()),
                Err(error) => assert!(error.is_absent(), "expected it to count as absent: {error}"),
            }
            assert!(!other.has(&digest).await, "expected the damaged object of {size} bytes to be gone");
            assert!(s3.bucket().head(&path).await.is_err());
            assert!(one.blobs().get(&digest).await.is_ok(), "expected the writer's own copy to be whole");
        }
    }
    let wrong = SHA256.digest(b"right");
    let refused = one.blobs().put(&wrong, Bytes::from_static(b"wrong")).await;
    assert!(matches!(refused, Err(Error::Mismatch { .. })));
    assert!(!other.has(&wrong).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_that_of_the_blob_whatever_the_bucket_says_of_its_object() {
    let Some(s3) = S3::start() else { return };
    s3.forge_tags();
    let blobs = S3Blobs::open(&s3.address("parts"), Duration::from_secs(3600), s3.clock()).await.unwrap();
    let read = async |digest: &Digest, from: usize, to: usize| -> Result<Vec<u8>, Error> {
        let read = blobs.read(digest, from as u64, Some((to - from) as u64)).await?;
        Ok(read.try_collect::<Vec<Bytes>>().await?.concat())
    };
    let size = 3 * MIB + 5;
    for (seed, function) in [(1, SHA256), (2, BLAKE3)] {
        let data = noise(seed, size);
        let digest = function.digest(&data);
        let put = async |data: &[u8]| {
            s3.bucket().put(&object("parts", &digest), data.to_vec().into()).await.unwrap();
        };
        let tag = async || s3.bucket().head(&object("parts", &digest)).await.unwrap().e_tag;
        blobs.put(&digest, Bytes::from(data.clone())).await.unwrap();
        let before = tag().await;
        let parts = [(0, 10), (MIB - 3, MIB + 3), (10, size), (size - 1, size), (0, size - 1)];
        for (from, to) in parts {
            assert_eq!(read(&digest, from, to).await.unwrap(), data[from..to], "expected {from} to {to}");
        }
        // Whoever can write to the bucket puts something else there, of the same length and with the same tag.
        for (from, to) in parts {
            put(&noise(9, size)).await;
            assert_eq!(tag().await, before);
            let found = read(&digest, from, to).await;
            assert!(found.as_ref().is_err_and(Error::is_absent), "expected {from} to {to} to be absent: {found:?}");
            assert_eq!(blobs.find_missing(&[digest]).await.unwrap(), [digest], "expected it to be removed");
        }
        // A single bit, far from one part and in another.
        let mut changed = data.clone();
        changed[MIB] ^= 1;
        put(&changed).await;
        assert_eq!(read(&digest, 2 * MIB, size).await.unwrap(), data[2 * MIB..]);
        let found = read(&digest, 10, size).await;
        assert!(found.as_ref().is_err_and(Error::is_absent), "{:?}", found.map(|found| found.len()));
        // More or fewer bytes.
        for length in [size - 1, size + 1, 0] {
            put(&noise(3, length)).await;
            let found = read(&digest, 0, 10).await;
            assert!(found.as_ref().is_err_and(Error::is_absent), "{found:?}");
            put(&noise(3, length)).await;
            let found = blobs.get(&digest).await;
            assert!(found.is_err_and(|error| error.is_absent()), "expected {length} bytes to be absent");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_given_up_is_never_visible() {
    let Some(s3) = kiln_harness::s3::shared() else { return };
    let one = coordinator(s3.address("given-up")).await;
    let data = noise(3, 20 * MIB);
    let digest = SHA256.digest(&data);
    let mut writer = one.blobs().write(&digest).await.unwrap();
    writer.write(Bytes::copy_from_slice(&data[..19 * MIB])).await.unwrap();
    drop(writer);
    assert!(objects(s3, "given-up").await.is_empty());
    assert!(!coordinator(s3.address("given-up")).await.has(&digest).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_or_key_is_refused_in_words_without_the_secret() {
    let Some(s3) = kiln_harness::s3::shared() else { return };
    let with = |name: &str, value: &str| {
        let mut variables = s3.variables();
        variables.retain(|(known, _)| known != name);
        variables.push((name.to_owned(), value.to_owned()));
        variables
    };
    for (url, variables, expected) in [
        ("s3://no-such-bucket", s3.variables(), "no such bucket"),
        ("s3://kiln", with("AWS_SECRET_ACCESS_KEY", "quite-wrong"), "access denied"),
        ("s3://kiln", with("AWS_ACCESS_KEY_ID", "AKIANOBODY"), "access denied"),
        ("s3://kiln", with("AWS_ENDPOINT_URL", "http://no-such-host.invalid"), "cannot resolve the endpoint"),
        ("s3://kiln", with("AWS_ENDPOINT_URL", "127.0.0.1:80"), "expected `https://HOST"),
        ("http://kiln", s3.variables(), "`http`"),
        ("s3:///prefix", s3.variables(), "has no bucket"),
        ("s3://key:quite-wrong@kiln", s3.variables(), "contains credentials"),
    ] {
        let error = open(Address::new(url, variables), None).await.err();
        let words = error.unwrap_or_else(|| panic!("expected `{url}` to be refused for {expected:?}")).to_string();
        assert!(words.contains(expected), "expected {expected:?} for {url}: {words}");
        for secret in ["quite-wrong", s3.secret.as_str()] {
            assert!(!words.contains(secret), "expected no secret in: {words}");
        }
    }
    let good = coordinator(s3.address("debug")).await;
    assert!(
        !format!("{:?} {:?}", good.stores, s3.address("x")).contains(&s3.secret),
        "expected no secret in the debug form"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_refuses_to_start_on_a_bucket_that_does_not_let_it_in() {
    let Some(s3) = kiln_harness::s3::shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kiln-coordinator"))
        .args(["--listen", "127.0.0.1:0", "--s3", "s3://kiln/process", "--data-dir"])
        .arg(dir.path())
        .envs(s3.variables())
        .env("AWS_SECRET_ACCESS_KEY", "quite-wrong")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "expected it to end: {said}");
    assert!(said.contains("access denied"), "{said}");
    assert!(!said.contains("quite-wrong"), "expected no secret in: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_bucket_is_away_the_disk_serves_and_nobody_waits_and_then_it_is_used_again() {
    let Some(s3) = S3::start() else { return };
    let one = coordinator(s3.address("away")).await;
    let early = one.put(SHA256, &noise(1, 9 * MIB)).await;
    s3.down();
    let began = Instant::now();
    let mut digests = vec![early];
    for seed in 0..200 {
        digests.push(one.put(SHA256, &noise(100 + seed, 1_000)).await);
    }
    let large = one.put(BLAKE3, &noise(2, 20 * MIB)).await;
    digests.push(large);
    assert!(one.blobs().find_missing(&digests).await.unwrap().is_empty());
    assert_eq!(one.read(&large, 0, None).await.unwrap(), noise(2, 20 * MIB));
    assert!(!one.has(&SHA256.digest(b"elsewhere")).await, "expected what only the bucket may have to be absent");
    // One call detects it, with its retries; the others do not try.
    assert!(began.elapsed() < Duration::from_secs(15), "expected nobody to wait, took {:?}", began.elapsed());
    let late = coordinator(s3.address("away")).await;
    assert!(!late.has(&early).await, "expected a start without the bucket, and nothing from it");
    s3.up();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !late.has(&early).await {
        assert!(Instant::now() < deadline, "expected the bucket to be used again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(late.blobs().get(&early).await.unwrap(), noise(1, 9 * MIB));
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test(flavor = "multi_thread")]
async fn what_any_coordinator_used_within_a_life_stays_and_what_nobody_used_goes() {
    let Some(s3) = S3::start() else { return };
    let address = s3.address("life");
    let open = || S3Blobs::open(&address, 10 * DAY, s3.clock());
    let (one, other) = (open().await.unwrap(), open().await.unwrap());
    let data = ["unused", "found", "read", "late"].map(|text| Bytes::from_static(text.as_bytes()));
    let [unused, found, read, late] = data.each_ref().map(|data| SHA256.digest(data));
    for data in &data[..3] {
        one.put(&SHA256.digest(data), data.clone()).await.unwrap();
    }
    s3.pass(4 * DAY);
    assert!(other.find_missing(&[unused]).await.unwrap().is_empty());
    assert_eq!(objects(&s3, "life/uses").await.len(), 0, "expected no note within half a life");
    s3.pass(2 * DAY);
    assert!(other.find_missing(&[found]).await.unwrap().is_empty());
    assert_eq!(other.get(&read).await.unwrap(), "read");
    let deadline = Instant::now() + Duration::from_secs(30);
    while objects(&s3, "life/uses").await.len() < 2 {
        assert!(Instant::now() < deadline, "expected a read to be noted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    s3.pass(8 * DAY);
    one.put(&late, data[3].clone()).await.unwrap();
    assert_eq!(one.sweep().await.unwrap(), Swept::default(), "expected all to stay for one and a half lives");
    s3.pass(DAY + 60 * Duration::from_secs(1));
    assert_eq!(
        one.find_missing(&[unused, found]).await.unwrap(),
        [unused],
        "expected what goes soon to count as absent"
    );
    assert_eq!(one.sweep().await.unwrap(), Swept::default(), "expected time between being absent and being removed");
    s3.pass(Duration::from_secs(2 * 60 * 60));
    // Two at once do no harm, and other programs' objects are not touched.
    s3.bucket().put(&Path::from("life/blobs/1/readme"), "theirs".into()).await.unwrap();
    let (swept, as_well) = futures::join!(one.sweep(), other.sweep());
    let most = swept.unwrap().blobs.max(as_well.unwrap().blobs);
    assert_eq!(most, 1, "expected the unused blob to go");
    assert!(s3.bucket().head(&object("life", &unused)).await.is_err());
    assert!(other.find_missing(&[found, read, late]).await.unwrap().is_empty());
    s3.pass(40 * DAY);
    assert_eq!(other.sweep().await.unwrap().blobs, 3);
    assert_eq!(objects(&s3, "life").await, ["life/blobs/1/readme"], "expected no note to outlive its blob");
}
