//! A worker whose results are not to be believed: what it made does not count, it gets no work, and what depends on it is listed.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::net::TcpListener;

use kiln_harness::{Built, Farm, project, until};
use serde_json::Value;

/// A project whose artifact differs each time that it is really built.
const PROJECT: &str = r#"
name = "shop"
[steps.make]
run = "head -c 16 /dev/urandom | base64 > made"
outputs = ["made"]
[steps.pack]
needs = ["make"]
run = "cp made packed"
outputs = ["packed"]
[artifacts.shop]
from = "pack"
files = ["packed"]
kind = "archive"
"#;

fn ids(listed: &Value) -> Vec<&str> {
    listed["artifacts"].as_array().unwrap().iter().map(|artifact| artifact["id"].as_str().unwrap()).collect()
}

fn id(built: &Built) -> String {
    built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned()
}

/// The workers that the steps of a build ran on.
fn workers(built: &Built) -> Vec<String> {
    let finished = built.of_type("step_finished");
    finished.iter().map(|step| step["worker"].as_str().unwrap_or_default().to_owned()).collect()
}

fn distrust(farm: &Farm, worker: &str, more: &[&str]) -> Value {
    let ran = farm.kiln(&[&["farm", "distrust", worker, "--since", "1h", "--json"], more].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn nothing_that_a_distrusted_worker_made_counts_until_it_is_trusted_and_then_what_it_makes_from_then_on() {
    let farm = Farm::start(&["liar"]);
    let dir = project(&[("kiln.toml", PROJECT)]);
    let first = farm.build(dir.path(), &[]).well();
    assert_eq!(workers(&first), ["liar", "liar"]);
    assert!(farm.build(dir.path(), &[]).well().caches().values().all(|cache| cache == "hit"));

    let would = distrust(&farm, "liar", &["--dry-run"]);
    assert_eq!(ids(&would), [id(&first)]);
    assert_eq!(would["artifacts"][0]["steps"], serde_json::json!(["make", "pack"]));
    assert!(farm.build(dir.path(), &[]).well().caches().values().all(|cache| cache == "hit"), "nothing was changed");

    farm.start_worker("honest");
    farm.wait_for_worker("honest");
    let found = distrust(&farm, "liar", &[]);
    assert_eq!((ids(&found), &found["total"]), (vec![id(&first).as_str()], &Value::from(1)));
    let second = farm.build(dir.path(), &[]).well();
    assert_eq!(workers(&second), ["honest", "honest"]);
    assert_ne!(id(&first), id(&second), "it was built again");
    let listed = farm.kiln(&["farm", "list"]).out;
    assert!(listed.contains("distrusted"), "{listed}");
    let state = |name: &str| {
        let workers: Value = serde_json::from_str(&farm.kiln(&["farm", "list", "--json"]).out).unwrap();
        let is = |row: &&Value| row["kind"] == "worker" && row["name"] == name;
        workers.as_array().unwrap().iter().find(is).unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!((state("liar").as_str(), state("honest").as_str()), ("distrusted", "ready"));

    // It survives a restart, of the coordinator and of the worker.
    farm.restart_coordinator();
    farm.wait_for_worker("honest");
    farm.kill_worker("liar");
    farm.start_worker("liar");
    until("it to come back", || {
        farm.workers().into_iter().find(|worker| worker["worker"] == "liar" && worker["state"] == "distrusted")
    });
    assert_eq!(state("liar"), "distrusted");
    assert_eq!(id(&farm.build(dir.path(), &[]).well()), id(&second));

    let trusted = farm.kiln(&["farm", "trust", "liar"]);
    assert_eq!(trusted.code, 0, "{}", trusted.err);
    farm.stop_worker("honest");
    assert_eq!(id(&farm.build(dir.path(), &[]).well()), id(&second), "what it made before still does not count");
    let other = project(&[("kiln.toml", &PROJECT.replace("shop", "bank").replace("16", "17"))]);
    assert_eq!(workers(&farm.build(other.path(), &[]).well()), ["liar", "liar"]);
    assert!(farm.build(other.path(), &[]).well().caches().values().all(|cache| cache == "hit"));
}

#[test]
fn what_a_worker_runs_when_it_is_distrusted_runs_elsewhere() {
    let gate = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gate.local_addr().unwrap().port();
    let farm = Farm::start(&[]);
    // A step waits for a test on the machine's loopback.
    farm.start_worker_with("liar", &["--network-isolation", "off"]);
    farm.wait_for_worker("liar");
    let step = format!(
        "[steps.wait]\nnetwork = true\noutputs = [\"made\"]\nrun = '''\npython3 -c 'import socket; print(socket.create_connection((\"127.0.0.1\", {port})).recv(9).decode())' > made; cat made\n'''\n[artifacts.out]\nfrom = \"wait\"\nfiles = [\"made\"]\nkind = \"archive\"\n"
    );
    let dir = project(&[("kiln.toml", &format!("name = \"waits\"\n{step}"))]);
    let build = farm.start_build(dir.path(), &[]);
    let (mut held, _) = gate.accept().unwrap();
    farm.start_worker_with("honest", &["--network-isolation", "off"]);
    farm.wait_for_worker("honest");
    distrust(&farm, "liar", &[]);
    let (mut other, _) = gate.accept().unwrap();
    // What the first one says now comes too late.
    let _ = held.write_all(b"lie");
    drop(held);
    other.write_all(b"truth").unwrap();
    drop(other);
    let built = build.end().well();
    assert_eq!(workers(&built), ["honest"]);
    assert!(built.log().contains("truth") && !built.log().contains("lie"), "{}", built.log());
}

#[test]
fn a_wrong_name_or_time_is_said_and_changes_nothing() {
    let farm = Farm::start(&["one"]);
    for (arguments, expected) in [
        (&["farm", "distrust", "nobody", "--since", "1h"][..], "the farm has no worker `nobody`"),
        (&["farm", "distrust", "one"], "--since"),
        (&["farm", "distrust", "one", "--since", "yesterday"], "expected a date and time such as"),
        (&["farm", "distrust", "one", "--since", "2999-01-01T00:00:00Z"], "is in the future"),
        (&["farm", "distrust", "a/b", "--since", "1h", "--unknown"], "worker"),
        (&["farm", "trust", "one"], "`one` is not distrusted"),
    ] {
        let ran = farm.kiln(arguments);
        assert!(ran.code != 0 && ran.err.contains(expected), "{arguments:?}: {}", ran.err);
    }
    let ran = farm.kiln(&["farm", "distrust", "gone", "--since", "2020-01-01T00:00:00Z", "--unknown"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!farm.kiln(&["farm", "list"]).out.contains("one  distrusted"));
    farm.build(project(&[("kiln.toml", PROJECT)]).path(), &[]).well();
}
