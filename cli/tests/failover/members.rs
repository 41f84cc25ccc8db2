//! What the coordinators of a farm agree on, and whom they believe.

use std::path::Path;
use std::process::Command;

use kiln_auth::relay::{self, Relayed, Sealer};
use kiln_auth::{FarmKey, Identity};
use kiln_proto::channel::Access;
use kiln_proto::v1;

use kiln_harness::replicas::{KEEPS, Replicas};
use kiln_harness::{Ran, until};

use crate::{tree, wrong};

/// The answer to a call in the name of an admin, under this key but over a connection like anybody's.
fn spoofed(url: &str, farm_dir: &Path, key: &FarmKey) -> tonic::Status {
    const PATH: &str = "/kiln.v1.Builds/List";
    let admin = Relayed { identity: Identity { name: "root".into(), ..Identity::anonymous() }, address: None };
    let access = Access { ca: Some(farm_dir.join("ca.pem")), ..Access::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let channel = kiln_proto::channel::connect(url, &access).await.unwrap();
        let mut coordinators = v1::coordinators_client::CoordinatorsClient::new(channel.clone());
        let issued = coordinators.challenge(v1::ChallengeRequest {}).await.unwrap().into_inner();
        let sealer = Sealer::new(key.clone(), url, &issued.challenge).unwrap();
        let header = sealer.seal(&admin, PATH, Some(&[0; 5])).unwrap();
        let mut request = tonic::Request::new(v1::ListRequest::default());
        request.metadata_mut().insert(relay::HEADER, header.to_str().unwrap().parse().unwrap());
        v1::builds_client::BuildsClient::new(channel).list(request).await.expect_err("expected the call to be refused")
    })
}

/// A coordinator's last words when it refuses to start.
fn refused(mut command: Command) -> String {
    command.env("KILN_LOG", "error");
    let ran = Ran::from(command);
    assert_ne!(ran.code, 0, "expected it not to start");
    ran.err
}

#[test]
fn what_one_of_them_is_told_all_of_them_know() {
    let Some(farm) = Replicas::start(&["ada", "ben"], &["one"]) else { return };
    let leader = farm.leader().unwrap();
    let other = farm.names().into_iter().find(|name| *name != leader).unwrap();
    let dir = tree("known", 1);
    let built = farm.build_at(&other, dir.path(), &[]);
    assert_eq!(wrong(&built, dir.path(), "known"), None);
    // The same build through the leader: nothing is sent, and nothing runs.
    let again = farm.build_at(&leader, dir.path(), &[]).well();
    assert!(again.caches().values().all(|cache| cache == "hit"), "{:?}", again.caches());
    let id = built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned();
    for name in [&leader, &other] {
        let fetched = dir.path().join(name);
        let ran = farm.kiln_at(name, &["fetch", &id, "--output", fetched.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(kiln_harness::find(&fetched, "made").is_some(), "expected the artifact from `{name}`");
    }
    // They have no signing key in common: none of them signs what only it could verify.
    let keys = farm.kiln_at(&other, &["farm", "keys"]);
    assert!(keys.code != 0 && keys.err.contains("no signing key in common"), "{keys:?}");
    assert!(farm.log(&leader).contains("artifacts are not signed"), "{}", farm.log(&leader));
    assert!(!dir.path().join("kiln-out/made.provenance.sigstore.json").exists());
    let drained = farm.kiln_at(&other, &["farm", "drain", "one"]);
    assert_eq!(drained.code, 0, "{drained:?}");
    farm.kill_coordinator(&leader);
    assert_eq!(farm.wait_for_another(&leader), other);
    until("the drain to be known to the next leader", || {
        let ran = farm.kiln_at(&other, &["workers", "--json"]);
        ran.out.contains("\"draining\"").then_some(())
    });
    // Its artifact is not lost with the coordinator that made it.
    let fetched = dir.path().join("after");
    let ran = farm.kiln_at(&other, &["fetch", &id, "--output", fetched.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn coordinators_refuse_what_could_not_work_and_say_how_it_would() {
    let Some(farm) = Replicas::start(&["ada", "ben"], &[]) else { return };
    let name = farm.names().into_iter().find(|name| Some(name) != farm.leader().as_ref()).unwrap();
    assert_eq!(farm.stop_coordinator(&name), Some(0));
    let command = |with: &[&str], without: &[&str]| {
        let mut command = farm.coordinator_command(&name);
        let kept: Vec<String> = command.get_args().map(|argument| argument.to_str().unwrap().to_owned()).collect();
        let mut bare = Command::new(command.get_program());
        bare.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut skip = false;
        for argument in kept {
            let drop = std::mem::take(&mut skip) || without.contains(&argument.as_str());
            skip = without.contains(&argument.as_str());
            if !drop {
                bare.arg(argument);
            }
        }
        bare.args(with);
        command = bare;
        command
    };
    let words = refused(command(&[], &["--s3"]));
    assert!(words.contains("--s3"), "{words}");
    let words = refused(command(&[], &["--farm-key"]));
    assert!(words.contains("need the same farm key"), "{words}");
    let other = farm.dir.path().join("other.key");
    std::fs::write(&other, "23".repeat(32) + "\n").unwrap();
    let words = refused(command(&["--farm-key", other.to_str().unwrap()], &["--farm-key"]));
    assert!(words.contains("belong to another farm") && words.contains("prefix"), "{words}");
    let words = refused(command(&["--listen", "0.0.0.0:0"], &["--listen"]));
    assert!(words.contains("--advertise"), "{words}");
    for (setting, value, fix) in
        [("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendonly", "no", "appendonly yes")]
    {
        let redis = farm.redis.lock().unwrap();
        let before = redis.cli(&["CONFIG", "GET", setting]);
        redis.cli(&["CONFIG", "SET", setting, value]);
        let words = refused(command(&[], &[]));
        assert!(words.contains(fix), "{words}");
        redis.cli(&["CONFIG", "SET", setting, before.lines().nth(1).unwrap()]);
    }
}

#[test]
fn with_tls_coordinators_know_each_other_and_their_members_by_the_farms_authority() {
    let home = tempfile::tempdir().unwrap();
    let farm_dir = home.path().join("farm");
    let kiln = |arguments: &[&str]| {
        let mut command = Command::new(kiln_harness::run::program());
        command.args(arguments).env("KILN_CONFIG", "/nowhere/config.toml").env_remove("KILN_FARM");
        let ran = Ran::from(command);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out
    };
    let dir = farm_dir.to_str().unwrap();
    kiln(&["farm", "init", dir, "--host", "127.0.0.1"]);
    let token = |name: &str, roles: &[&str]| {
        let roles: Vec<&str> = roles.iter().flat_map(|role| ["--role", role]).collect();
        kiln(&[&["farm", "token", name, "--farm-dir", dir], &roles[..]].concat()).trim().to_owned()
    };
    let (admin, ann) = (token("root", &["builder", "admin", "farm-admin"]), token("ann", &["builder"]));
    let access = |token: &str| {
        vec![
            ("KILN_TOKEN".to_owned(), token.to_owned()),
            ("KILN_CA".to_owned(), farm_dir.join("ca.pem").display().to_string()),
        ]
    };
    let Some(mut farm) = Replicas::with(&["ada", "ben"], &[], &KEEPS, &["--farm-dir", dir], "https", access(&admin))
    else {
        return;
    };
    let join = kiln(&["farm", "token", "workers", "--farm-dir", dir, "--join", "--uses", "1"]);
    farm.start_worker_with("one", &["--join", join.trim()]);
    farm.wait_for_worker("one");
    let leader = farm.leader().unwrap();
    let other = farm.names().into_iter().find(|name| *name != leader).unwrap();
    let dir = tree("trusted", 1);
    for name in [&other, &leader] {
        let built = farm.build_at(name, dir.path(), &[]);
        assert_eq!(wrong(&built, dir.path(), "trusted"), None);
    }
    // Whoever is revoked by a call to one of them is refused by all.
    let as_ann = access(&ann);
    let admins = std::mem::replace(&mut farm.access, as_ann);
    for name in [&other, &leader] {
        assert_eq!(farm.kiln_at(name, &["builds"]).code, 0, "expected ann to be let in by `{name}`");
    }
    let anns = std::mem::replace(&mut farm.access, admins);
    let ran = farm.kiln_at(&other, &["farm", "revoke", "ann"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let admins = std::mem::replace(&mut farm.access, anns);
    for name in [&leader, &other] {
        until(&format!("`{name}` to refuse whoever was revoked"), || {
            (farm.kiln_at(name, &["builds"]).err.contains("revoked")).then_some(())
        });
    }
    farm.access = admins;
    // A revocation in a file is not undone by a call, which says where it is.
    let directory = farm_dir.to_str().unwrap();
    kiln(&["farm", "revoke", "ann", "--farm-dir", directory]);
    let refused = farm.kiln_at(&other, &["farm", "unrevoke", "ann"]);
    assert!(refused.code != 0 && refused.err.contains("kiln farm unrevoke ann --farm-dir"), "{refused:?}");
    kiln(&["farm", "unrevoke", "ann", "--farm-dir", directory]);
    let ran = farm.kiln_at(&other, &["farm", "unrevoke", "ann"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // A caller who is not a coordinator cannot speak for others, not even with the farm's key.
    let key = std::fs::read_to_string(farm_dir.join("farm.key")).unwrap();
    let key: [u8; 32] = hex::decode(key.lines().next().unwrap()).unwrap().try_into().unwrap();
    for (key, words) in [(key, "not a coordinator's"), ([5; 32], "not from a coordinator of this farm")] {
        let refused = spoofed(&farm.url_of(&other), &farm_dir, &FarmKey::of(&key));
        assert!(refused.code() == tonic::Code::Unauthenticated && refused.message().contains(words), "{refused:?}");
    }
    // The token for workers has one use, whoever counts it.
    farm.kill_coordinator(&leader);
    assert_eq!(farm.wait_for_another(&leader), other);
    // What one of them signed is verified with the keys that the other one tells: they share the farm's directory.
    let made = dir.path().join("kiln-out/made");
    let verified = farm.kiln_at(&other, &["verify", made.to_str().unwrap()]);
    assert_eq!(verified.code, 0, "{verified:?}");
    farm.start_worker_with("two", &["--join", join.trim()]);
    until("a second worker to be refused", || farm.log("two").contains("no uses left").then_some(()));
}

#[test]
fn a_coordinator_that_was_alone_brings_its_builds_and_artifacts_into_the_farm() {
    let alone = kiln_harness::Farm::start(&["one"]);
    let dir = tree("alone", 1);
    let built = alone.build(dir.path(), &[]);
    assert_eq!(wrong(&built, dir.path(), "alone"), None);
    let (build, artifact) = (built.id(), built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned());
    alone.kill_coordinator();
    let Some(farm) = Replicas::beginning_with("ada", &alone.dir.path().join("coordinator"), &["ada", "ben"]) else {
        return;
    };
    let logs = farm.kiln(&["logs", &build]);
    assert!(logs.code == 0 && logs.out.contains("compile 1"), "{logs:?}");
    until("the artifact to be in the bucket", || {
        let fetched = tempfile::tempdir_in(dir.path()).unwrap();
        farm.kill_coordinator("ada");
        farm.wait_for_another("ada");
        let ran = farm.kiln(&["fetch", &artifact, "--output", fetched.path().join("out").to_str().unwrap()]);
        farm.start_coordinator("ada");
        (ran.code == 0 && kiln_harness::find(fetched.path(), "made").is_some()).then_some(())
    });
}

#[test]
fn a_call_is_passed_on_once_even_if_a_coordinator_takes_itself_for_the_leader() {
    let Some(farm) = Replicas::start(&["ada", "ben"], &[]) else { return };
    for name in farm.names() {
        assert_eq!(farm.stop_coordinator(&name), Some(0));
    }
    // Whoever leads says that it is where the other one is, as with a copied configuration.
    farm.start_coordinator_with("ben", &["--advertise", &farm.url_of("ada")]);
    until("it to lead", || farm.leader().filter(|name| name == "ben"));
    farm.start_coordinator("ada");
    until("the other one to answer", || farm.metrics("ada"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refused = runtime.block_on(async {
        let channel = kiln_proto::channel::connect(&farm.url_of("ada"), &Access::default()).await.unwrap();
        let mut builds = v1::builds_client::BuildsClient::new(channel);
        builds.list(v1::ListRequest::default()).await.expect_err("expected no answer from itself")
    });
    assert!(refused.code() == tonic::Code::Unavailable && refused.message().contains("try again"), "{refused:?}");
    assert_eq!(farm.kiln_at("ben", &["builds"]).code, 0, "expected the one that leads to answer");
}

#[test]
fn a_full_redis_refuses_builds_and_ends_nothing() {
    let Some(farm) = Replicas::start(&["ada", "ben"], &["one"]) else { return };
    let leader = farm.leader().unwrap();
    let lease = || farm.redis.lock().unwrap().cli(&["HGET", "{kiln}:lease", "until"]).parse::<u64>().unwrap();
    farm.redis.lock().unwrap().cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let before = lease();
    until("the lease to be renewed for longer than it lasts", || (lease() > before + 6_000).then_some(()));
    assert_eq!(farm.leader(), Some(leader.clone()));
    let mut command = farm.command_at(&farm.url_of(&leader), &["builds"]);
    command.env("KILN_LOG", "error");
    assert_eq!(Ran::from(command).code, 0, "expected what is there to be read");
    farm.redis.lock().unwrap().cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let dir = tree("room", 1);
    let built = until("there to be room", || Some(farm.build(dir.path(), &[])).filter(|built| built.0.code == 0));
    assert_eq!(wrong(&built, dir.path(), "room"), None);
    assert_eq!(farm.leader(), Some(leader));
}

#[test]
fn a_coordinator_passes_on_a_bounded_number_of_calls_and_says_so() {
    let more = ["--insecure", "--max-connections", "40"];
    let Some(farm) = Replicas::with(&["ada", "ben"], &[], &KEEPS, &more, "http", Vec::new()) else { return };
    let leader = farm.leader().unwrap();
    let other = farm.names().into_iter().find(|name| *name != leader).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let channel = runtime.block_on(kiln_proto::channel::connect(&farm.url_of(&other), &Access::default())).unwrap();
    let list = || {
        let mut builds = v1::builds_client::BuildsClient::new(channel.clone());
        runtime.block_on(async { builds.list(v1::ListRequest::default()).await })
    };
    // Workers that never say who they are, and come back when they are refused or sent away.
    let links: Vec<_> = (0..50)
        .map(|_| {
            let mut workers = v1::workers_client::WorkersClient::new(channel.clone());
            runtime.spawn(async move {
                loop {
                    let _ = workers.link(futures::stream::pending::<v1::WorkerMessage>()).await;
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            })
        })
        .collect();
    let refused = until("no more calls to be passed on", || list().err());
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("passes 40 calls on to others"), "{refused:?}");
    assert_eq!(farm.kiln_at(&leader, &["builds"]).code, 0, "expected the one that leads to answer");
    links.iter().for_each(|link| link.abort());
    until("there to be room again", || list().ok());
}
