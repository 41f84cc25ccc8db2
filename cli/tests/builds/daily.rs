//! Everyday commands: tests, names instead of ids, the farm's state.

use crate::unique;
use kiln_harness::{Farm, Ran, project};

const CONFIG: &str = r#"
name = "daily"
version = "1.0"
[steps.work]
run = "cp in daily; echo built"
outputs = ["daily"]
[steps.check]
needs = ["work"]
run = "grep input daily; echo shard $KILN_SHARD of $KILN_SHARDS"
shards = 2
test = true
[artifacts.daily]
from = "work"
files = ["daily"]
kind = "archive"
"#;

#[test]
fn tests_run_when_they_are_asked_for_and_builds_go_by_short_names() {
    let farm = Farm::shared();
    let dir = project(&[("kiln.toml", CONFIG), ("in", &format!("input {}\n", unique()))]);
    let kiln = |arguments: &[&str]| {
        let mut command = farm.command(arguments);
        command.current_dir(dir.path());
        Ran::from(command)
    };
    let built = farm.build(dir.path(), &[]).well();
    assert_eq!(built.log(), "built\n", "expected no test in a build");

    let tested = kiln(&["test", "--progress", "json"]);
    assert_eq!(tested.code, 0, "{} {}", tested.out, tested.err);
    let events: Vec<serde_json::Value> = tested.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shards: std::collections::BTreeSet<(u64, String)> = events
        .iter()
        .filter(|event| event["type"] == "log" && event["step"] == "check")
        .map(|event| (event["shard"].as_u64().unwrap(), event["text"].as_str().unwrap().to_owned()))
        .collect();
    let said =
        |shard: u64| shards.iter().any(|(of, text)| *of == shard && text.contains(&format!("shard {shard} of 2")));
    assert!(said(1) && said(2), "expected shards to be numbered as `KILN_SHARD` does: {shards:?}");
    assert!(!events.iter().any(|event| event["type"] == "artifact"), "expected a test to produce no artifact");

    let id = built.id();
    let logs = kiln(&["logs", &id[..id.len() - 1], "work"]);
    assert_eq!((logs.code, logs.out.as_str()), (0, "built\n"), "{}", logs.err);
    let fetched = kiln(&["fetch", "daily", "--output", "fetched"]);
    assert_eq!(fetched.code, 0, "{}", fetched.err);
    assert!(dir.path().join("fetched/daily").exists(), "{}", fetched.out);

    let status = kiln(&["status"]);
    assert!(status.out.contains("ready") && status.out.lines().count() <= 10, "{}", status.out);
    let broken = project(&[("kiln.toml", &CONFIG.replace("grep input", "grep absent")), ("in", "input\n")]);
    let mut command = farm.command(&["test"]);
    command.current_dir(broken.path());
    assert_eq!(Ran::from(command).code, 1, "expected a failing test to be the project's fault");
}

#[test]
fn logs_follow_a_build_to_its_end() {
    let farm = Farm::shared();
    let config =
        "name = \"followed\"\nversion = \"1\"\n[steps.work]\nrun = \"echo one; sleep 1; echo two\"\ncache = false\n";
    let dir = project(&[("kiln.toml", config)]);
    let mut command = farm.command(&["build", "--detach"]);
    command.current_dir(dir.path());
    let detached = Ran::from(command);
    assert!(detached.err.contains("kiln attach"), "{}", detached.err);
    let followed = farm.kiln(&["logs", "--follow", detached.out.trim(), "work"]);
    assert_eq!((followed.code, followed.out.as_str()), (0, "one\ntwo\n"), "{}", followed.err);
}
