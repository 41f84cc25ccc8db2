//! Two coordinators, four workers and one Redis: what one user built, another has from the cache, whichever coordinator they reach.

#![allow(clippy::unwrap_used)]

mod real;
#[path = "../../coordinator/tests/support/redis.rs"]
mod redis;
#[path = "../../coordinator/tests/support/s3.rs"]
mod s3;
mod support {
    pub use super::real::cannot_run;
}

use real::{Farm, cannot_run, copy, example, project, until};
use redis::Redis;
use s3::S3;

fn two_farms() -> Option<(Redis, Farm, Farm)> {
    if !redis::is_installed() {
        cannot_run("redis-server is not installed");
        return None;
    }
    let redis = Redis::start();
    let one = Farm::with_redis(Some(&redis.url()), &["one", "two"]);
    let other = Farm::with_redis(Some(&redis.url()), &["three", "four"]);
    Some((redis, one, other))
}

/// Every language's example that builds without a registry, and one each whose registry is at hand on any machine with Cargo,
/// pip and npm; `languages.rs` builds the others.
const EXAMPLES: [&str; 9] =
    ["c-cmake", "c-make", "c-meson", "java-plain", "rust", "rust-workspace", "python-pip", "python-uv", "node-npm"];

/// An example in a directory of its own name, as checkouts of one repository are: it names a project that has no manifest.
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
                let digest = |built: &real::Built| built.of_type("artifact")[0]["digest"].clone();
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
    // The second step runs until the tests have seen what they wait for, told by a service on this machine's loopback.
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
    until("the coordinator to notice", || one.log("coordinator").contains("Redis is away").then_some(()));
    drop(held);
    let first = build.end().well();
    assert_eq!(one.log("coordinator").matches("Redis is away").count(), 1, "expected one warning");
    let answer = std::thread::spawn(move || while gate.accept().is_ok() {});
    redis.restart();
    for farm in [&one, &other] {
        until("the coordinators to use Redis again", || farm.log("coordinator").contains("is back").then_some(()));
    }
    // The first coordinator has all of it, and shares it again; what is cached is what was built.
    let again = one.build(dir.path(), &[]).well();
    assert!(again.caches().values().all(|cache| cache == "hit"), "{:?}", again.caches());
    let digest = |built: &real::Built| built.of_type("artifact")[0]["digest"].clone();
    assert_eq!(digest(&first), digest(&again));
    let third = until("the other coordinator to find all of it", || {
        let built = other.build(dir.path(), &[]).well();
        built.caches().values().all(|cache| cache == "hit").then_some(built)
    });
    assert_eq!(digest(&first), digest(&third));
    drop(answer);
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
    assert_eq!(farm.log("coordinator").matches("the bucket is away").count(), 1, "expected one warning");
    assert!(!farm.log("coordinator").contains(&s3.secret), "expected no secret in the log");
    s3.up();
    until("the bucket to be used again", || farm.log("coordinator").contains("the bucket is back").then_some(()));
    farm.build(tree("after").path(), &[]).well();
}
