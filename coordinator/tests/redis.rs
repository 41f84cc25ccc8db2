//! Redis as the cache that coordinators share: real servers, killed, stopped, filled and damaged.

#![allow(clippy::unwrap_used)]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/redis.rs"]
mod redis;
mod support;

use std::time::Duration;

use bytes::Bytes;
use certificates::certificates;
use futures::TryStreamExt;
use kiln_coordinator::store::redis::{Address, Health, Link, Tls};
use kiln_coordinator::store::{BlobStore, Config, Error, RedisConfig, Stores};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use prost::Message;
use redis::{Cluster, Redis};
use support::{BLAKE3, SHA256, cannot_run, noise};
use tempfile::TempDir;

const MIB: usize = 1 << 20;

/// One coordinator's stores, on a disk of its own.
struct Coordinator {
    stores: Stores,
    _dir: TempDir,
}

fn config(dir: &TempDir, url: &str, tls: &Tls) -> Config {
    let address = Address::parse(url, tls).unwrap();
    let redis = RedisConfig { address, prefix: "kiln".into(), max_blob_bytes: 32 << 20 };
    Config { redis: Some(redis), ..Config::on_disk(dir.path().to_owned(), 1 << 30) }
}

async fn coordinator_with(url: &str, tls: &Tls) -> Coordinator {
    let dir = tempfile::tempdir().unwrap();
    let stores = Stores::open(&config(&dir, url, tls)).await.unwrap();
    Coordinator { stores, _dir: dir }
}

async fn coordinator(url: &str) -> Coordinator {
    coordinator_with(url, &Tls::default()).await
}

impl Coordinator {
    fn blobs(&self) -> &dyn BlobStore {
        &*self.stores.blobs
    }

    async fn put(&self, data: &[u8]) -> Digest {
        self.put_as(SHA256, data).await
    }

    async fn put_as(&self, function: DigestFunction, data: &[u8]) -> Digest {
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

    async fn becomes(&self, wanted: fn(&Health) -> bool) {
        let mut health = self.stores.redis.as_ref().unwrap().health();
        let changed = health.wait_for(wanted);
        tokio::time::timeout(Duration::from_secs(60), changed).await.expect("expected the health to change").unwrap();
    }

    /// A result with a file, a tree and standard output, all stored; the tree names one more file.
    async fn put_result(&self, instance: &str, seed: u64) -> (Digest, reapi::ActionResult, Vec<Digest>) {
        let (file, inner, stdout) =
            (noise(seed, 5 * MIB), noise(seed + 1, 3_000), format!("output {seed}").into_bytes());
        let (file, inner, stdout) = (self.put(&file).await, self.put(&inner).await, self.put(&stdout).await);
        let node = reapi::FileNode { name: "a".into(), digest: Some(inner.to_wire()), ..Default::default() };
        let root = reapi::Directory { files: vec![node], ..Default::default() };
        // A directory with nothing in it is the empty blob, which nobody stores.
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

fn redis_or_skip() -> bool {
    let installed = redis::is_installed();
    if !installed {
        cannot_run("redis-server is not installed");
    }
    installed
}

async fn shares_blobs(one: &Coordinator, other: &Coordinator) {
    for (function, size) in
        [(SHA256, 10), (BLAKE3, 100_000), (SHA256, 2 * MIB), (SHA256, 2 * MIB + 1), (BLAKE3, 20 * MIB)]
    {
        let data = noise(size as u64, size);
        let digest = one.put_as(function, &data).await;
        assert!(other.has(&digest).await, "expected {size} bytes of {function:?} through the other coordinator");
        assert_eq!(other.blobs().get(&digest).await.unwrap(), data);
        assert_eq!(other.read(&digest, 0, None).await.unwrap(), data);
        let (from, count) = (size / 3, size / 2);
        let part = other.read(&digest, from as u64, Some(count as u64)).await.unwrap();
        assert_eq!(part, data[from..from + count], "expected a part of {size} bytes");
        assert!(matches!(other.read(&digest, size as u64 + 1, None).await, Err(Error::OutOfRange { .. })));
    }
    let many: Vec<Vec<u8>> = (0..3_000).map(|seed| noise(seed, 300)).collect();
    let mut digests = Vec::new();
    for data in &many {
        digests.push(one.put(data).await);
    }
    let absent = SHA256.digest(b"never stored");
    digests.push(absent);
    let found = other.blobs().get_many(&digests).await;
    for (data, found) in many.iter().zip(&found) {
        assert_eq!(found.as_ref().unwrap(), data);
    }
    assert!(matches!(found.last(), Some(Err(Error::NotFound { .. }))));
    assert_eq!(other.blobs().find_missing(&digests).await.unwrap(), [absent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_on_one_redis_share_blobs_of_every_size() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    shares_blobs(&coordinator(&redis.url()).await, &coordinator(&redis.url()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_on_a_cluster_of_three_nodes_share_blobs_and_results() {
    if !redis_or_skip() {
        return;
    }
    let cluster = Cluster::start();
    let (one, other) = (coordinator(&cluster.url()).await, coordinator(&cluster.nodes[1].url()).await);
    shares_blobs(&one, &other).await;
    let (action, result, _) = one.put_result("", 7).await;
    assert_eq!(other.stores.cached_result("", &action).await.unwrap(), Some(result));
    for node in &cluster.nodes {
        assert!(!node.keys("kiln:*").is_empty(), "expected every node to hold some of the keys");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_an_untrusted_certificate_is_refused_in_words() {
    if !redis_or_skip() {
        return;
    }
    let trusted = certificates();
    let redis = Redis::with_tls(trusted.path());
    let url = format!("rediss://127.0.0.1:{}", redis.port);
    let tls = Tls { ca: Some(trusted.path().join("ca.pem")), ..Tls::default() };
    let (one, other) = (coordinator_with(&url, &tls).await, coordinator_with(&url, &tls).await);
    let digest = one.put(b"over TLS").await;
    assert_eq!(other.blobs().get(&digest).await.unwrap(), "over TLS");
    let stranger = Tls { ca: Some(certificates().path().join("ca.pem")), ..Tls::default() };
    // The file is gone with its directory: that is said first.
    assert!(Address::parse(&url, &stranger).unwrap_err().to_string().contains("ca.pem"));
    let words = refused(&url, &Tls::default()).await;
    assert!(words.contains("certificate") && words.contains("--redis-ca"), "{words}");
    let plain = refused(&redis.url(), &Tls::default()).await;
    assert!(plain.contains("away") || plain.contains("rediss"), "{plain}");
}

async fn refused(url: &str, tls: &Tls) -> String {
    let address = match Address::parse(url, tls) {
        Ok(address) => address,
        Err(error) => return error.to_string(),
    };
    match Link::open(address).await {
        Err(error) => error.to_string(),
        Ok(link) => match &*link.health().borrow() {
            Health::Away(why) => format!("away: {why}"),
            other => panic!("expected `{url}` to be refused, found it {other:?}"),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_or_password_is_refused_in_words_without_the_password() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::with(&["--requirepass", "right-one"]);
    let port = redis.port;
    for (url, expected) in [
        (format!("redis://:wrong-one@127.0.0.1:{port}"), "password"),
        (format!("redis://127.0.0.1:{port}"), "password"),
        ("redis://:wrong-one@no-such-host.invalid:6379".to_owned(), "no host"),
        ("http://:wrong-one@127.0.0.1:6379".to_owned(), "`http`"),
    ] {
        let words = refused(&url, &Tls::default()).await;
        assert!(words.contains(expected), "expected {expected:?} for {url}: {words}");
        assert!(!words.contains("wrong-one"), "expected no password in: {words}");
    }
    let good = coordinator(&format!("redis://:right-one@127.0.0.1:{port}")).await;
    good.put(b"x").await;
    assert!(!format!("{:?}", good.stores).contains("right-one"), "expected no password in the debug form");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_redis_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let words = refused(&format!("redis://127.0.0.1:{port}"), &Tls::default()).await;
    assert!(words.contains("does not speak Redis"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_that_changed_a_little_costs_redis_its_changed_chunks() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let one = coordinator(&redis.url()).await;
    let before = noise(1, 24 * MIB);
    one.put(&before).await;
    let keys = redis.keys("kiln:*").len();
    assert!(keys > 20, "expected a blob of 24 MiB in many parts, found {keys} keys");
    let mut after = before.clone();
    after.splice(10 * MIB..10 * MIB + 5, *b"a change of another length");
    let digest = one.put(&after).await;
    let added = redis.keys("kiln:*").len() - keys;
    assert!(added <= 4, "expected a list and at most 3 new chunks, found {added} new keys");
    assert_eq!(coordinator(&redis.url()).await.blobs().get(&digest).await.unwrap(), after);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shrinks_is_stored_compressed() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let one = coordinator(&redis.url()).await;
    let digest = one.put(&vec![b'a'; MIB]).await;
    let key = redis.keys("kiln:*").remove(0);
    let stored: usize = redis.cli(&["STRLEN", &key]).parse().unwrap();
    assert!(stored < 10_000, "expected a MiB of one letter to shrink, found {stored} bytes");
    assert_eq!(coordinator(&redis.url()).await.blobs().get(&digest).await.unwrap(), vec![b'a'; MIB]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_in_parts_is_invisible_until_whole() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let data = noise(3, 10 * MIB);
    let digest = SHA256.digest(&data);
    let mut writer = one.blobs().write(&digest).await.unwrap();
    writer.write(Bytes::copy_from_slice(&data[..9 * MIB])).await.unwrap();
    assert!(!other.has(&digest).await);
    drop(writer);
    assert!(!other.has(&digest).await);
    one.put(&data).await;
    // Any part that is evicted makes the whole absent, and no read of it wrong.
    for key in redis.keys("kiln:*") {
        let value = redis.cli(&["DUMP", &key]);
        assert!(!value.is_empty());
        redis.cli(&["RENAME", &key, "aside"]);
        assert!(!other.has(&digest).await, "expected the blob to be absent without `{key}`");
        assert!(matches!(other.blobs().get(&digest).await, Err(Error::NotFound { .. })));
        redis.cli(&["RENAME", "aside", &key]);
    }
    assert_eq!(other.blobs().get(&digest).await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_absent_and_removed() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let (small, large) = (one.put(&noise(1, 1_000)).await, one.put(&noise(2, 6 * MIB)).await);
    let key = |digest: &Digest| format!("kiln:1:b:sha256:{}-{}", digest.hex(), digest.size);
    redis.cli(&["SETRANGE", &key(&small), "100", "damage"]);
    redis.cli(&["SETRANGE", &key(&large), "50", "damage"]);
    for digest in [small, large] {
        assert!(matches!(other.blobs().get(&digest).await, Err(Error::NotFound { .. })), "expected {digest} absent");
        assert_eq!(redis.cli(&["EXISTS", &key(&digest)]), "0", "expected what is damaged to be removed");
        assert!(one.blobs().get(&digest).await.is_ok(), "expected the writer's own copy to be whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_a_hit_through_the_other_coordinator_only_while_it_is_whole() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let (action, result, blobs) = one.put_result("team/a", 1).await;
    assert_eq!(other.stores.cached_result("team/a", &action).await.unwrap(), Some(result.clone()));
    assert_eq!(other.stores.cached_result("team/b", &action).await.unwrap(), None, "expected tenants to be apart");
    assert_eq!(other.stores.cached_result("", &action).await.unwrap(), None);
    for blob in &blobs {
        let key = format!("kiln:1:b:sha256:{}-{}", blob.hex(), blob.size);
        redis.cli(&["DEL", &key]);
        assert_eq!(other.stores.cached_result("team/a", &action).await.unwrap(), None, "expected none without {blob}");
        // The one who still has it shares it again with the next result.
        one.stores.actions.put("team/a", &action, result.clone()).await.unwrap();
        assert_eq!(other.stores.cached_result("team/a", &action).await.unwrap(), Some(result.clone()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_result_is_removed_for_every_coordinator() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let (action, result, _) = one.put_result("", 1).await;
    other.stores.actions.remove("", &action).await.unwrap();
    assert_eq!(one.stores.cached_result("", &action).await.unwrap(), None);
    other.stores.actions.put("", &action, result.clone()).await.unwrap();
    assert_eq!(one.stores.cached_result("", &action).await.unwrap(), Some(result));
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_a_blob_and_hitting_a_result_extend_their_life() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let (action, _, blobs) = one.put_result("", 1).await;
    let lives = |redis: &Redis| {
        redis.keys("kiln:*").iter().map(|key| redis.cli(&["TTL", key]).parse::<i64>().unwrap()).min().unwrap()
    };
    let shorten = |redis: &Redis| redis.keys("kiln:*").iter().for_each(|key| drop(redis.cli(&["EXPIRE", key, "100"])));
    assert!(lives(&redis) > 1_000_000);
    shorten(&redis);
    assert!(other.stores.cached_result("", &action).await.unwrap().is_some());
    assert!(lives(&redis) > 1_000_000, "expected a hit to extend the life of all that it names, and its own");
    shorten(&redis);
    assert!(other.blobs().find_missing(&blobs).await.unwrap().is_empty());
    let blob_keys = redis.keys("kiln:1:b:*");
    let shortest = blob_keys.iter().map(|key| redis.cli(&["TTL", key]).parse::<i64>().unwrap()).min().unwrap();
    assert!(shortest > 1_000_000, "expected FindMissingBlobs to extend the life of what it finds");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_programs_keys_and_older_layouts_are_left_alone() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    redis.cli(&["SET", "session:1", "theirs"]);
    redis.cli(&["LPUSH", "kiln", "theirs"]);
    redis.cli(&["SET", "kiln:0:b:sha256:00-1", "an older layout"]);
    let data = noise(1, 100);
    let digest = SHA256.digest(&data);
    let key = format!("kiln:1:b:sha256:{}-{}", digest.hex(), digest.size);
    redis.cli(&["LPUSH", &key, "not even a string"]);
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    assert!(matches!(one.blobs().get(&digest).await, Err(Error::NotFound { .. })));
    one.put(&data).await;
    assert_eq!(one.blobs().get(&digest).await.unwrap(), data);
    assert_eq!(other.blobs().get(&digest).await.unwrap(), data);
    assert_eq!(redis.cli(&["GET", "session:1"]), "theirs");
    assert_eq!(redis.cli(&["LRANGE", "kiln", "0", "-1"]), "theirs");
    assert_eq!(redis.cli(&["GET", "kiln:0:b:sha256:00-1"]), "an older layout");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_runs_out_evicts_and_never_fails_or_lies() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::with(&["--maxmemory", "12mb", "--maxmemory-policy", "allkeys-lru"]);
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let mut blobs = Vec::new();
    for seed in 0..100 {
        let data = noise(seed, if seed % 10 == 0 { 3 * MIB } else { 300_000 });
        blobs.push((one.put(&data).await, data));
    }
    let mut there = 0;
    for (digest, data) in &blobs {
        match other.blobs().get(digest).await {
            Ok(found) => {
                assert_eq!(found, *data);
                there += 1;
            }
            Err(error) => assert!(matches!(error, Error::NotFound { .. }), "expected a miss, found {error}"),
        }
    }
    assert!((1..100).contains(&there), "expected some of 57 MiB in 12 MiB, found {there} of 100 blobs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_is_done_without_and_used_again_when_it_is_back() {
    if !redis_or_skip() {
        return;
    }
    let mut redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let (action, result, blobs) = one.put_result("", 1).await;
    redis.kill();
    one.becomes(|health| matches!(health, Health::Away(_))).await;
    let digest = one.put(b"while it is away").await;
    let (built_meanwhile, meanwhile, _) = one.put_result("", 9).await;
    assert!(one.has(&digest).await && one.has(&blobs[0]).await, "expected the coordinator's own copies");
    assert_eq!(one.stores.cached_result("", &action).await.unwrap(), Some(result.clone()));
    assert!(!other.has(&digest).await);
    assert_eq!(other.stores.cached_result("", &action).await.unwrap(), None, "expected a miss and no error");
    redis.restart();
    one.becomes(|health| *health == Health::Up).await;
    other.becomes(|health| *health == Health::Up).await;
    let after = one.put(b"after it came back").await;
    assert!(other.has(&after).await);
    // What was built in the meantime is shared without anybody asking for it.
    while other.stores.cached_result("", &built_meanwhile).await.unwrap() != Some(meanwhile.clone()) {
        tokio::task::yield_now().await;
    }
    // What one still has of its own is shared again by its next use.
    one.stores.actions.put("", &action, result.clone()).await.unwrap();
    assert_eq!(other.stores.cached_result("", &action).await.unwrap(), Some(result));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_waited_for_once() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let one = coordinator(&redis.url()).await;
    let known = one.put(b"known").await;
    redis.signal("STOP");
    // Many callers at once wait together for one time-out, and those after them not at all.
    let puts = (0..500_u32).map(|seed| {
        let one = &one;
        async move { one.put(&seed.to_le_bytes()).await }
    });
    futures::future::join_all(puts).await;
    assert!(matches!(&*one.stores.redis.as_ref().unwrap().health().borrow(), Health::Away(_)));
    for seed in 1_000..2_000_u32 {
        one.put(&seed.to_le_bytes()).await;
    }
    assert!(one.has(&known).await);
    redis.signal("CONT");
    one.becomes(|health| *health == Health::Up).await;
    let digest = one.put(b"after").await;
    assert!(coordinator(&redis.url()).await.has(&digest).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_is_still_read_and_written_again_when_it_has_room() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let known = one.put(b"before it was full").await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let digest = one.put(b"no room for this").await;
    assert!(matches!(&*one.stores.redis.as_ref().unwrap().health().borrow(), Health::NoWrites(_)));
    assert!(one.has(&digest).await, "expected the coordinator's own copy");
    assert!(other.has(&known).await && !other.has(&digest).await);
    assert_eq!(other.blobs().get(&known).await.unwrap(), "before it was full");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let mut seed = 0_u64;
    while *one.stores.redis.as_ref().unwrap().health().borrow() != Health::Up {
        seed += 1;
        one.put(&seed.to_le_bytes()).await;
    }
    let digest = one.put(b"room again").await;
    assert!(other.has(&digest).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_read_and_not_written() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let one = coordinator(&redis.url()).await;
    let known = one.put(b"before the failover").await;
    let large = one.put(&noise(1, 5 * MIB)).await;
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    redis.cli(&["CONFIG", "SET", "replica-serve-stale-data", "yes"]);
    let digest = one.put(b"lost to others").await;
    assert!(matches!(&*one.stores.redis.as_ref().unwrap().health().borrow(), Health::NoWrites(_)));
    let other = coordinator(&redis.url()).await;
    assert!(other.has(&known).await && other.has(&large).await && !other.has(&digest).await);
    assert_eq!(other.blobs().get(&known).await.unwrap(), "before the failover");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_the_bound_stays_out_of_redis() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (coordinator(&redis.url()).await, coordinator(&redis.url()).await);
    let digest = one.put(&noise(1, 33 * MIB)).await;
    assert!(one.has(&digest).await && !other.has(&digest).await);
    assert!(redis.keys("*").is_empty());
}
