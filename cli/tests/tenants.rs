//! Tenants of one farm: they share workers, but nothing that any of them stored or built.

#![allow(clippy::unwrap_used)]

use futures::StreamExt;
use kiln_harness::guarded::{Guarded, access, certificate, refused, well};
use kiln_harness::redis::Redis;
use kiln_harness::{Built, Ran, Running, cannot_run, project, until};
use kiln_proto::bytestream::WriteRequest;
use kiln_proto::bytestream::byte_stream_client::ByteStreamClient;
use kiln_proto::channel::{self, Access};
use kiln_proto::digest::DigestFunction;
use kiln_proto::longrunning;
use kiln_proto::longrunning::operations_client::OperationsClient;
use kiln_proto::transfer::{Blob, Client};

const PROJECT: &str = r#"
name = "hello"
[steps.make]
run = "echo made > out"
outputs = ["out"]
[artifacts.out]
from = "make"
files = ["out"]
kind = "archive"
"#;

const WAITS: &str = r#"
name = "waits"
[steps.wait]
run = "echo a-secret-of-shop; until [ -e /nowhere ]; do sleep 0.1; done"
outputs = ["out"]
cache = false
[artifacts.out]
from = "wait"
files = ["out"]
kind = "archive"
"#;

type Variables = Vec<(String, String)>;

fn someone(guarded: &Guarded, name: &str, tenant: &str) -> Variables {
    let made = certificate(&guarded.dir(), name, &["--role", "builder", "--tenant", tenant]);
    access(&guarded.dir(), Some(&made))
}

fn build(guarded: &Guarded, who: &Variables, dir: &std::path::Path) -> Built {
    let mut command = guarded.as_other(who.clone(), &["build", "--progress", "json"]);
    command.current_dir(dir);
    Built(Ran::from(command))
}

fn access_of(who: &Variables) -> Access {
    let of = |name: &str| who.iter().find(|(variable, _)| variable == name).map(|(_, value)| value.into());
    Access { ca: of("KILN_CA"), cert: of("KILN_CERT"), key: of("KILN_KEY"), token_file: None }
}

#[test]
fn a_tenant_hits_sees_and_cancels_only_its_own() {
    let guarded = Guarded::start(&[]);
    guarded.worker("one");
    let (shop, bank) = (someone(&guarded, "ann", "shop"), someone(&guarded, "bob", "bank"));
    let dir = project(&[("kiln.toml", PROJECT)]);
    let first = build(&guarded, &shop, dir.path()).well();
    assert_eq!(first.caches()["make"], "miss");
    assert_eq!(
        build(&guarded, &shop, dir.path()).well().caches()["make"],
        "hit",
        "expected a tenant to share its own cache"
    );
    let colleague = someone(&guarded, "amy", "shop");
    assert_eq!(
        build(&guarded, &colleague, dir.path()).well().caches()["make"],
        "hit",
        "expected its members to share it too"
    );

    let others = build(&guarded, &bank, dir.path()).well();
    assert_eq!(others.caches()["make"], "miss", "expected no hit on another tenant's result");
    let artifact = first.of_type("artifact")[0]["id"].as_str().unwrap().to_owned();
    let listed = well(guarded.ran(bank.clone(), &["builds", "--json"]));
    assert!(!listed.contains(&first.id()) && listed.contains(&others.id()), "expected only its own builds: {listed}");
    refused(&guarded.ran(bank.clone(), &["logs", &first.id()]), 2, "no build");
    refused(&guarded.ran(bank.clone(), &["cancel", &first.id()]), 2, "no build");
    // The harness's admin belongs to the default tenant, and sees neither.
    let listed = guarded.farm.kiln(&["builds", "--json"]).out;
    assert!(!listed.contains(&first.id()) && !listed.contains(&others.id()), "{listed}");
    refused(&guarded.farm.kiln(&["fetch", &artifact]), 2, "no artifact");
    well(guarded.ran(shop.clone(), &["fetch", &artifact, "--output", dir.path().join("again").to_str().unwrap()]));
    // Its builds are still there after a restart.
    guarded.farm.restart_coordinator();
    guarded.farm.wait_until_up();
    let listed = well(guarded.ran(shop, &["builds", "--json"]));
    assert!(listed.contains(&first.id()), "expected the tenant's builds to outlive the coordinator: {listed}");
}

#[test]
fn knowing_a_digest_or_a_name_opens_nothing_of_another_tenant() {
    let guarded = Guarded::start(&[]);
    guarded.worker("one");
    let (shop, bank) = (someone(&guarded, "ann", "shop"), someone(&guarded, "bob", "bank"));
    let dir = project(&[("kiln.toml", WAITS)]);
    let mut command = guarded.as_other(shop.clone(), &["build", "--progress", "json"]);
    command.current_dir(dir.path());
    let mut running = Running::start(command);
    running
        .until("the step's output", |event| event["type"] == "log" && event.to_string().contains("a-secret-of-shop"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let sha256 = DigestFunction::Sha256;
        let secret = bytes::Bytes::from_static(b"what shop uploaded");
        let digest = sha256.digest(&secret);
        let of = async |who: &Variables, instance: &str| {
            let channel = channel::connect(&guarded.farm.url, &access_of(who)).await.unwrap();
            (Client::new(channel.clone(), instance, sha256), channel)
        };
        let (theirs, _) = of(&shop, "").await;
        theirs.upload(vec![(digest, Blob::Bytes(secret.clone()))]).await.unwrap();
        assert!(theirs.find_missing(&[digest]).await.unwrap().is_empty());
        // Neither by the digest, nor by using the other's scope as an instance.
        for instance in ["", "@shop/"] {
            let (mine, _) = of(&bank, instance).await;
            assert_eq!(mine.find_missing(&[digest]).await.unwrap().len(), 1, "expected `{instance}` to learn nothing");
            assert!(mine.get(&digest).await.is_err(), "expected `{instance}` to read nothing");
        }
        // Operations and live output are numbered, but the numbers give no access.
        let (_, channel) = of(&bank, "").await;
        let request = longrunning::ListOperationsRequest::default();
        let listed = OperationsClient::new(channel.clone()).list_operations(request).await.unwrap().into_inner();
        assert!(listed.operations.is_empty(), "expected no operation of another tenant: {listed:?}");
    });
    running.interrupt();
    running.end();
}

#[test]
fn what_ends_while_a_colleague_waits_for_room_does_not_run_again() {
    let quotas = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(quotas.path(), "[tenants.shop]\nactions = 1\n").unwrap();
    let guarded = Guarded::start(&["--quotas", quotas.path().to_str().unwrap()]);
    guarded.worker_with("one", &["--network-isolation", "off"]);
    let shop = someone(&guarded, "ann", "shop");
    let gate = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (host, port) = ("127.0.0.1", gate.local_addr().unwrap().port());
    let held = format!("bash -c 'read -N 1 < /dev/tcp/{host}/{port}; true' && echo made > out");
    let dir =
        project(&[("kiln.toml", &PROJECT.replace("\"echo made > out\"", &format!("\"{held}\"\nnetwork = true")))]);
    let made = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let output = made.path().join(name);
        let arguments = ["build", "--progress", "json", "--output", output.to_str().unwrap()];
        let mut command = guarded.as_other(shop.clone(), &arguments);
        command.current_dir(dir.path());
        Running::start(command)
    };
    let (mut first, mut second) = (start("one"), start("two"));
    let (open, _) = gate.accept().unwrap();
    // Both look into the cache and find nothing: one runs, and the other waits for its capacity.
    for build in [&mut first, &mut second] {
        build.until("the build to begin", |event| event["type"] == "build_started");
    }
    drop(open);
    // A retry is admitted, and counted.
    std::thread::spawn(move || gate.incoming().for_each(drop));
    let mut ran = 0;
    for build in [first, second] {
        let built = build.end().well();
        ran += usize::from(built.caches()["make"] == "miss");
    }
    assert_eq!(ran, 1, "expected the step to run once");
}

#[test]
fn each_tenant_has_keys_of_its_own_in_redis() {
    if !kiln_harness::redis::is_installed() {
        return cannot_run("redis-server is not installed");
    }
    let redis = Redis::start();
    let guarded = Guarded::start(&["--redis", &redis.url(), "--redis-prefix", "farm"]);
    guarded.worker("one");
    let dir = project(&[("kiln.toml", PROJECT)]);
    let (shop, bank) = (someone(&guarded, "ann", "shop"), someone(&guarded, "bob", "bank"));
    let below = |prefix: &str| -> std::collections::BTreeSet<String> {
        let keys = redis.keys("*");
        keys.iter().filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned).collect()
    };
    build(&guarded, &shop, dir.path()).well();
    // Cache records are written a moment after the build.
    until("the first tenant's results to be shared", || {
        below("farm@@shop:").iter().any(|key| key.contains(":a:")).then_some(())
    });
    assert!(below("farm@@bank:").is_empty(), "expected no keys of a tenant that did nothing");
    assert_eq!(
        build(&guarded, &bank, dir.path()).well().caches()["make"],
        "miss",
        "Redis shares nothing between tenants"
    );
    until("the other's to be shared", || below("farm@@bank:").iter().any(|key| key.contains(":a:")).then_some(()));
    let others: Vec<String> = redis.keys("*").into_iter().filter(|key| !key.starts_with("farm")).collect();
    assert!(others.is_empty(), "expected every key to begin with the farm's prefix: {others:?}");
    let stray: Vec<String> = below("farm:").into_iter().filter(|key| key.contains(":a:")).collect();
    assert!(stray.is_empty(), "expected no result of a tenant among the default one's: {stray:?}");
}

#[test]
fn each_quota_has_its_own_refusal() {
    let quotas = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(quotas.path(), "[tenants.shop]\nactions = 1\nqueue = 0\n[tenants.bank]\nstore = \"1MiB\"\n")
        .unwrap();
    let guarded = Guarded::start(&["--quotas", quotas.path().to_str().unwrap()]);
    guarded.worker("one");
    let (shop, bank) = (someone(&guarded, "ann", "shop"), someone(&guarded, "bob", "bank"));
    let waits = project(&[("kiln.toml", WAITS)]);
    let mut command = guarded.as_other(shop.clone(), &["build", "--progress", "json"]);
    command.current_dir(waits.path());
    let mut running = Running::start(command);
    running.started("wait");
    let hello = project(&[("kiln.toml", PROJECT)]);
    let refused_one = build(&guarded, &shop, hello.path());
    assert_ne!(refused_one.0.code, 0);
    assert!(refused_one.message().contains("the most that its quotas allow"), "{refused_one:?}");
    running.interrupt();
    running.end();
    until("room for the tenant's next action", || (build(&guarded, &shop, hello.path()).0.code == 0).then_some(()));
    let large = project(&[("kiln.toml", PROJECT)]);
    std::fs::write(large.path().join("large"), vec![b'x'; 2 << 20]).unwrap();
    let too_large = build(&guarded, &bank, large.path());
    assert_ne!(too_large.0.code, 0, "expected 2 MiB not to fit: {too_large:?}");
    let all = format!("{}{}", too_large.0.out, too_large.0.err);
    // The space for results, records and logs is subtracted from its MiB.
    let most =
        all.split_once("the store holds at most ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
    assert!(most.is_some_and(|most| (900_000..=1 << 20).contains(&most)), "expected the limit in: {all}");
    // Another tenant is not delayed by either.
    let other = someone(&guarded, "eve", "other");
    build(&guarded, &other, hello.path()).well();
}

#[test]
fn who_fills_the_store_takes_nothing_that_another_tenant_uses() {
    const MIB: u64 = 1 << 20;
    let guarded = Guarded::start(&["--store-size", "16MiB", "--collect-every", "1s"]);
    guarded.worker_with("one", &["--network-isolation", "off"]);
    let (shop, bank) = (someone(&guarded, "ann", "shop"), someone(&guarded, "bob", "bank"));
    let held = || {
        let root = guarded.farm.dir.path().join("coordinator");
        let tenants = ["shop", "bank"].map(|tenant| root.join("tenants").join(tenant));
        let stores = tenants.iter().chain([&root]).map(|tenant| tenant.join("blobs"));
        stores.flat_map(|store| ["sha256", "blake3"].map(|function| bytes_below(&store.join(function)))).sum::<u64>()
    };
    let built = project(&[("kiln.toml", PROJECT)]);
    let first = build(&guarded, &bank, built.path()).well();
    let artifact = first.of_type("artifact")[0]["id"].as_str().unwrap().to_owned();
    // A build whose second step needs a blob that was sent before the other tenant arrived.
    let gate = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gate.local_addr().unwrap().port();
    let waits = format!(
        r#"
name = "waits"
[steps.wait]
inputs = ["gate"]
run = "bash -c 'read -N 1 < /dev/tcp/127.0.0.1/{port}; true'; echo made > waited"
outputs = ["waited"]
network = true
[steps.use]
needs = ["wait"]
run = "cat waited large > out"
outputs = ["out"]
[artifacts.out]
from = "use"
files = ["out"]
kind = "archive"
"#
    );
    let waits = project(&[("kiln.toml", &waits), ("gate", ""), ("large", &"needed later\n".repeat(100_000))]);
    let mut command = guarded.as_other(bank.clone(), &["build", "--progress", "json"]);
    command.current_dir(waits.path());
    let mut running = Running::start(command);
    running.started("wait");
    let (open, _) = gate.accept().unwrap();

    let (url, access) = (guarded.farm.url.clone(), access_of(&shop));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = Client::new(channel::connect(&url, &access).await.unwrap(), "", DigestFunction::Sha256);
        for number in 0..64_u8 {
            let data = bytes::Bytes::from(vec![number; MIB as usize]);
            let digest = DigestFunction::Sha256.digest(&data);
            client.upload(vec![(digest, Blob::Bytes(data))]).await.unwrap();
            assert!(client.find_missing(&[digest]).await.unwrap().is_empty(), "expected the last upload to be there");
            assert!(held() <= 16 * MIB, "expected at most 16 MiB, found {} bytes", held());
        }
        // Nor by uploads that it leaves incomplete.
        let mut open = Vec::new();
        for number in 100..140_u8 {
            let data = vec![number; 4 * MIB as usize];
            let digest = DigestFunction::Sha256.digest(&data);
            let name = format!("uploads/{number}/blobs/{}/{}", digest.hex(), digest.size);
            let pieces = (0..3_i64).map(move |at| WriteRequest {
                resource_name: name.clone(),
                write_offset: at * MIB as i64,
                data: data[..MIB as usize].to_vec(),
                ..Default::default()
            });
            let stream = futures::stream::iter(pieces).chain(futures::stream::pending());
            let channel = channel::connect(&url, &access).await.unwrap();
            let mut writer = ByteStreamClient::new(channel);
            open.push(tokio::spawn(async move { writer.write(stream).await.map(drop) }));
        }
        // Those that do not fit are refused; the others stay incomplete while the other tenant builds.
        let refused = futures::future::select_all(open.iter_mut()).await.0.unwrap().unwrap_err();
        assert!(refused.message().contains("other tenants are writing too"), "{refused}");
        assert!(held() <= 16 * MIB, "expected at most 16 MiB, found {} bytes", held());
        let dir = project(&[("kiln.toml", &PROJECT.replace("echo made", "echo other"))]);
        build(&guarded, &bank, dir.path()).well();
        open.iter().for_each(tokio::task::JoinHandle::abort);
    });
    drop(open);
    running.end().well();
    let again = build(&guarded, &bank, built.path()).well();
    assert_eq!(again.caches()["make"], "hit", "expected recently used blobs to stay");
    guarded.farm.restart_coordinator();
    guarded.farm.wait_until_up();
    let output = built.path().join("again");
    well(guarded.ran(bank, &["fetch", &artifact, "--output", output.to_str().unwrap()]));
    assert!(held() <= 16 * MIB, "expected at most 16 MiB, found {} bytes", held());
}

/// Size of the files below a directory; some may disappear meanwhile.
fn bytes_below(directory: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_below(&entry.path()),
        data => data.map_or(0, |data| data.len()),
    };
    entries.map(bytes).sum()
}

#[test]
fn a_quota_counts_results_artifacts_and_logs() {
    let quotas = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(quotas.path(), "[tenants.shop]\nstore = \"20MiB\"\n").unwrap();
    let guarded = Guarded::start(&["--quotas", quotas.path().to_str().unwrap()]);
    guarded.worker("one");
    let held = || {
        let held = kiln_harness::output("du", &["-sb", "coordinator/tenants/shop"], guarded.farm.dir.path());
        held.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 20
    };
    // Results of 60 KiB each, which reference nothing: a hundred MiB of them.
    let made = certificate(&guarded.dir(), "cacher", &["--role", "cache-writer", "--tenant", "shop"]);
    let access = access_of(&access(&guarded.dir(), Some(&made)));
    let url = guarded.farm.url.clone();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let channel = channel::connect(&url, &access).await.unwrap();
        let client = Client::new(channel.clone(), "", DigestFunction::Sha256);
        let mut cache = kiln_proto::reapi::action_cache_client::ActionCacheClient::new(channel);
        for number in 0..1700_u32 {
            let data = bytes::Bytes::from(format!("of the client's own {number}"));
            let action = DigestFunction::Sha256.digest(&data);
            client.upload(vec![(action, Blob::Bytes(data))]).await.unwrap();
            let link = |at: u32| kiln_proto::reapi::OutputSymlink {
                path: format!("{number}-{at}"),
                target: "x".repeat(2000),
                ..Default::default()
            };
            let result =
                kiln_proto::reapi::ActionResult { output_symlinks: (0..30).map(link).collect(), ..Default::default() };
            let request = kiln_proto::reapi::UpdateActionResultRequest {
                action_digest: Some(action.to_wire()),
                action_result: Some(result),
                ..Default::default()
            };
            cache.update_action_result(request).await.unwrap();
        }
    });
    let after_results = held();
    assert!(after_results < 20, "expected results to stay within the quota, found {after_results} MiB");
    // Artifacts are never removed: in the end nothing more can be built, and every artifact that was made is still
    // there.
    let shop = someone(&guarded, "ann", "shop");
    let config = PROJECT.replace("echo made > out", "head -c 3000000 /dev/urandom > out");
    let mut artifacts = Vec::new();
    let words = loop {
        let dir = project(&[("kiln.toml", &config), ("salt", &artifacts.len().to_string())]);
        let built = build(&guarded, &shop, dir.path());
        if built.0.code != 0 {
            break format!("{}{}", built.0.out, built.0.err);
        }
        artifacts.push(built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned());
        assert!(artifacts.len() < 10, "expected {} MiB to use up the quota", held());
    };
    assert!(words.contains("quota") || words.contains("no space"), "{words}");
    assert!(artifacts.len() >= 3, "expected a few to fit: {words}");
    let listed = well(guarded.ran(shop.clone(), &["artifacts", "--json"]));
    assert!(artifacts.iter().all(|id| listed.contains(id)), "expected none to be dropped: {listed}");
    let after_artifacts = held();
    assert!(
        after_artifacts <= 26,
        "expected the tenant to hold its quota and empty databases, found {after_artifacts} MiB"
    );
}
