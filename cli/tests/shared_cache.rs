//! Two coordinators, four workers and one Redis: what one user built is a hit for another, whichever coordinator they
//! use.

#![allow(clippy::unwrap_used)]

use kiln_harness::proxy::Proxy;
use kiln_harness::redis::Redis;
use kiln_harness::s3::S3;
use kiln_harness::{Farm, cannot_run, copy, example, project, until};
use kiln_proto::chunking::Chunker;
use kiln_proto::digest::{Digest, DigestFunction};
use serde_json::Value;

fn two_farms() -> Option<(Redis, Farm, Farm)> {
    if !kiln_harness::redis::is_installed() {
        cannot_run("redis-server is not installed");
        return None;
    }
    let redis = Redis::start();
    let farm = |names: [&str; 2]| {
        let farm = Farm::with_redis(Some(&redis.url()), &[]);
        for name in names {
            // A step waits for a test on the machine's loopback.
            farm.start_worker_with(name, &["--network-isolation", "off"]);
            farm.wait_for_worker(name);
        }
        farm
    };
    let (one, other) = (farm(["one", "two"]), farm(["three", "four"]));
    Some((redis, one, other))
}

/// Every language's example that builds without a registry, and one for each registry that is available on any machine
/// with Cargo, pip and npm; `languages.rs` builds the others.
const EXAMPLES: [&str; 9] =
    ["c-cmake", "c-make", "c-meson", "java-plain", "rust", "rust-workspace", "python-pip", "python-uv", "node-npm"];

/// An example in a directory of its name, like checkouts of one repository: it names a project that has no manifest.
fn checkout(name: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(name)).unwrap();
    copy(example(name).path(), &home.path().join(name));
    home
}

#[test]
fn what_one_user_built_is_a_hit_for_another_through_the_other_coordinator() {
    let Some((_redis, one, other)) = two_farms() else { return };
    std::thread::scope(|scope| {
        let (one, other) = (&one, &other);
        let builds = EXAMPLES.map(|name| {
            scope.spawn(move || {
                let (mine, theirs) = (checkout(name), checkout(name));
                let first = one.build(&mine.path().join(name), &[]).well();
                let second = other.build(&theirs.path().join(name), &[]).well();
                let caches = second.caches();
                let logs = || format!("{}{}", one.log("coordinator"), other.log("coordinator"));
                let hits = !caches.is_empty() && caches.values().all(|cache| cache == "hit");
                assert!(hits, "{name}: {caches:?}; the coordinators said {}", logs());
                let digest = |built: &kiln_harness::Built| built.of_type("artifact")[0]["digest"].clone();
                assert_eq!(digest(&first), digest(&second), "expected the same artifact of {name}");
            })
        });
        for build in builds {
            build.join().unwrap();
        }
    });
}

#[test]
fn a_build_ends_well_though_redis_dies_and_comes_back_under_it() {
    let Some((mut redis, one, other)) = two_farms() else { return };
    // The second step runs until the tests have seen what they wait for, signalled by a service on this machine's
    // loopback.
    let gate = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gate.local_addr().unwrap().port();
    let files = [
        ("in.txt", "input".to_owned()),
        (
            "kiln.toml",
            format!(
                r#"
name = "outage"
[steps.deps]
inputs = ["in.txt"]
run = "head -c 5000000 /dev/urandom > layer; cp in.txt text"
outputs = ["layer", "text"]
[steps.compile]
needs = ["deps"]
network = true
run = "cp text made; python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port})).recv(1)'"
outputs = ["made"]
[steps.last]
needs = ["compile", "deps"]
run = "cat made layer | sha256sum > sum; cat made >> sum"
outputs = ["sum"]
[artifacts.outage]
from = "last"
files = ["sum"]
kind = "archive"
"#
            ),
        ),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let dir = project(&files);
    let mut build = one.start_build(dir.path(), &[]);
    build.started("compile");
    let (held, _) = gate.accept().unwrap();
    redis.kill();
    until("the coordinator to notice", || one.log("coordinator").contains("Redis is unreachable").then_some(()));
    drop(held);
    let first = build.end().well();
    assert_eq!(one.log("coordinator").matches("Redis is unreachable").count(), 1, "expected one warning");
    let answer = std::thread::spawn(move || while gate.accept().is_ok() {});
    redis.restart();
    for farm in [&one, &other] {
        until("the coordinators to use Redis again", || farm.log("coordinator").contains("is back").then_some(()));
    }
    // The first coordinator has all of it and shares it again; what was built is what is cached.
    let again = one.build(dir.path(), &[]).well();
    assert!(again.caches().values().all(|cache| cache == "hit"), "{:?}", again.caches());
    let digest = |built: &kiln_harness::Built| built.of_type("artifact")[0]["digest"].clone();
    assert_eq!(digest(&first), digest(&again));
    // Before they are shared, the other coordinator would build it itself, with other random bytes.
    until("the results to be shared", || (redis.keys("kiln:2:a:*").len() >= 3).then_some(()));
    let third = until("the other coordinator to find all of it", || {
        let built = other.build(dir.path(), &[]).well();
        built.caches().values().all(|cache| cache == "hit").then_some(built)
    });
    assert_eq!(digest(&first), digest(&third));
    drop(answer);
}

/// Incompressible bytes.
fn noise(length: usize) -> Vec<u8> {
    let mut hash = [7; 32];
    let mut data = Vec::with_capacity(length + 32);
    while data.len() < length {
        hash = DigestFunction::Blake3.digest(&hash).hash;
        data.extend_from_slice(&hash);
    }
    data.truncate(length);
    data
}

/// Waits until the farm knows the chunks of a blob, which it determines after receiving it.
fn wait_for_chunks(farm: &Farm, data: &[u8]) {
    let mut chunker = Chunker::new();
    chunker.push(data);
    let mut chunks: Vec<Digest> = Vec::new();
    while let Some(chunk) = chunker.next_last() {
        chunks.push(DigestFunction::Sha256.digest(&chunk));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async {
        let channel = kiln_proto::channel::connect(&farm.url, &Default::default()).await.unwrap();
        kiln_proto::transfer::Client::new(channel, "", DigestFunction::Sha256)
    });
    until("the farm to know the chunks", || {
        runtime.block_on(client.find_missing(&chunks)).unwrap().is_empty().then_some(())
    });
}

#[test]
fn of_a_large_file_that_changed_a_little_only_what_changed_moves() {
    const MIB: u64 = 1 << 20;
    let farm = Farm::start(&[]);
    let (user, worker) = (Proxy::to(&farm.url), Proxy::to(&farm.url));
    farm.start_worker_by(&worker.url, "far", &[]);
    farm.wait_for_worker("far");
    let dir = project(&[(
        "kiln.toml",
        "name = \"large\"\n[steps.copy]\nrun = \"mkdir out; cat head big > out/big\"\noutputs = [\"out\"]\n[artifacts.large]\nfrom = \"copy\"\nfiles = [\"out/big\"]\nkind = \"binary\"\ncheck_elf = false\n",
    )]);
    let mut data = noise(40 << 20);
    std::fs::write(dir.path().join("head"), "one").unwrap();
    std::fs::write(dir.path().join("big"), &data).unwrap();
    let build = || {
        let mut command = farm.build_command(dir.path(), &[]);
        command.env("KILN_FARM", &user.url);
        kiln_harness::Built(kiln_harness::Ran::from(command)).well()
    };
    build();
    let (sent, moved) = (user.passed(), worker.passed());
    let whole = sent.up.min(sent.down).min(moved.down);
    assert!(whole > 40 * MIB, "expected it to be sent whole: {sent:?} {moved:?}");

    wait_for_chunks(&farm, &data);
    wait_for_chunks(&farm, &[b"one", &data[..]].concat());
    data.splice(20 << 20..20 << 20, *b"something new");
    std::fs::write(dir.path().join("big"), &data).unwrap();
    let built = build();
    assert_eq!(built.caches()["copy"], "miss", "expected the step to run again");
    let (sent, moved) = (user.passed(), worker.passed());
    for (what, bytes) in
        [("user sent", sent.up), ("user fetched", sent.down), ("worker fetched", moved.down), ("worker sent", moved.up)]
    {
        assert!(bytes < 6 * MIB, "expected a few chunks, but the {what} {bytes} bytes");
    }
}

fn cache(farm: &Farm, arguments: &[&str]) -> Value {
    let ran = farm.kiln(&[&["cache"], arguments, &["--json"]].concat());
    assert_eq!(ran.code, 0, "{} {}", ran.err, farm.log("coordinator"));
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn kiln_cache_tells_the_same_through_every_coordinator() {
    let Some((mut redis, one, other)) = two_farms() else { return };
    let config = "name = \"told\"\nversion = \"1\"\n[steps.deps]\ninputs = [\"lock\"]\nrun = \"cp lock out\"\noutputs = [\"out\"]\n";
    let dir = project(&[("kiln.toml", config), ("lock", "one")]);
    one.build(dir.path(), &[]).well();
    let listed = cache(&one, &["list"]);
    assert_eq!(listed[0]["step"], "deps", "{listed}");
    assert_eq!(cache(&other, &["list"]), listed);

    // A hit through one coordinator and a miss through the other are counted and explained by both.
    assert_eq!(other.build(dir.path(), &[]).well().caches()["deps"], "hit");
    kiln_harness::write(dir.path(), "lock", "two");
    assert_eq!(other.build(dir.path(), &[]).well().caches()["deps"], "miss");
    // A query to the coordinator that built waits until its records are written, a moment after the build.
    for farm in [&other, &one] {
        let explained = cache(farm, &["explain", "deps", dir.path().to_str().unwrap()]);
        assert_eq!(
            (&explained[0]["reason"], &explained[0]["differences"][0]["name"]),
            (&"changed".into(), &"lock".into())
        );
        let total = &cache(farm, &["stats"])["total"];
        assert_eq!((&total["hits"], &total["misses"]), (&1.into(), &2.into()), "{total}");
        assert_eq!(cache(farm, &["list"]).as_array().unwrap().len(), 2);
    }

    // What one coordinator prunes is gone for both, and both know why the step then missed.
    assert_eq!(cache(&one, &["prune", "--older-than", "0s"])["layers"].as_array().unwrap().len(), 2);
    assert_eq!(cache(&other, &["list"]), Value::Array(Vec::new()));
    assert_eq!(other.build(dir.path(), &[]).well().caches()["deps"], "miss");
    for farm in [&other, &one] {
        let explained = cache(farm, &["explain", "deps", dir.path().to_str().unwrap()]);
        assert_eq!(explained[0]["reason"], "pruned", "{explained}");
    }

    // Without Redis each reports only what it knows; pruning for all is refused with an explanation.
    redis.kill();
    for farm in [&one, &other] {
        cache(farm, &["list"]);
        until("the coordinator to notice", || farm.log("coordinator").contains("Redis is unreachable").then_some(()));
    }
    assert_eq!(cache(&other, &["list"])[0]["user"], "tester");
    let refused = one.kiln(&["cache", "prune", "--older-than", "0s"]);
    assert_eq!((refused.code, refused.err.contains("Redis is unreachable")), (3, true), "{}", refused.err);
    assert_eq!(one.build(dir.path(), &[]).well().caches().len(), 1);
}

#[test]
fn builds_end_well_though_the_bucket_goes_away_under_them_and_it_is_used_again() {
    let Some(s3) = S3::start() else { return };
    let tree = |name: &str| {
        let config = format!(
            r#"
name = "{name}"
[steps.deps]
inputs = ["in.txt"]
run = "head -c 9000000 /dev/urandom > layer"
outputs = ["layer"]
[steps.compile]
needs = ["deps"]
run = "sha256sum layer in.txt > sum"
outputs = ["sum"]
[artifacts.out]
from = "compile"
files = ["sum"]
kind = "archive"
"#
        );
        project(&[("in.txt", name), ("kiln.toml", &config)])
    };
    let farm = Farm::with_variables(s3.variables(), &["--s3", "s3://kiln/builds"], &["one"]);
    let before = tree("before");
    farm.build(before.path(), &[]).well();
    let under = tree("under");
    let mut build = farm.start_build(under.path(), &[]);
    build.started("deps");
    s3.down();
    build.end().well();
    for (dir, expected) in [(before.path(), "hit"), (under.path(), "hit"), (tree("without").path(), "miss")] {
        let caches = farm.build(dir, &[]).well().caches();
        assert!(caches.values().all(|cache| cache == expected), "expected every step to be a {expected}: {caches:?}");
    }
    assert_eq!(farm.log("coordinator").matches("the bucket is unreachable").count(), 1, "expected one warning");
    assert!(!farm.log("coordinator").contains(&s3.secret), "expected no secret in the log");
    s3.up();
    until("the bucket to be used again", || farm.log("coordinator").contains("the bucket is back").then_some(()));
    farm.build(tree("after").path(), &[]).well();
}
