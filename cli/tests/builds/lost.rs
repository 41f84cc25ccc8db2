//! Processes that die or leave during a build, and damaged blobs.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{CHAIN, work};
use kiln_harness::{Farm, project, unpack, until, write};

#[test]
fn a_worker_and_then_the_coordinator_are_killed_and_the_build_ends_well() {
    let farm = Farm::start(&["one", "two"]);
    let config = r#"
name = "slow"
version = "1"
[steps.first]
run = "echo first; od -An -N8 -tx8 /dev/urandom > first.out"
outputs = ["first.out"]
[steps.second]
needs = ["first"]
run = "echo begins; while [ ! -e /tmp/never ] && [ $((i=i+1)) -lt 80 ]; do sleep 0.1; done; cat first.out > second.out"
outputs = ["second.out"]
[artifacts.slow]
from = "second"
files = ["second.out"]
kind = "archive"
"#;
    let dir = project(&[("kiln.toml", config)]);
    let mut build = farm.start_build(dir.path(), &[]);
    let worker = build.started("second")["worker"].as_str().unwrap().to_owned();
    build.until("the step's first output", |event| event["text"] == "begins\n");
    farm.kill_worker(&worker);
    let other = if worker == "one" { "two" } else { "one" };
    let again =
        build.until("the step runs elsewhere", |event| event["type"] == "step_started" && event["step"] == "second");
    assert_eq!(again["worker"], other);
    farm.restart_coordinator();
    let resumed = build.until("the build is resumed", |event| event["type"] == "build_started");
    assert_eq!(resumed["resumed"], true);
    let built = build.end().well();
    let first: Vec<Value> =
        built.of_type("step_finished").into_iter().filter(|event| event["step"] == "first").collect();
    assert_eq!(first.last().unwrap()["cache"], "hit", "expected a finished step not to run again");
    assert_eq!(unpack(&dir.path().join("kiln-out")).path().join("second.out").metadata().unwrap().len(), 18);
    let listed: Vec<Value> = serde_json::from_str(&farm.kiln(&["builds", "--json"]).out).unwrap();
    assert_eq!(listed[0]["status"], "success");
    farm.restart_coordinator();
    let logs = until("the coordinator to be back", || {
        Some(farm.kiln(&["logs", &built.id(), "second"])).filter(|ran| ran.code == 0)
    });
    assert!(logs.out.contains("begins"), "expected a build's log to outlive the coordinator: {}", logs.out);
}

#[test]
fn a_worker_keeps_what_it_runs_while_the_coordinator_is_away() {
    let farm = Farm::start(&["only"]);
    let dir = work("echo begins; sleep 4; od -An -N8 -tx8 /dev/urandom; echo ends", "");
    let mut build = farm.start_build(dir.path(), &[]);
    build.until("the step's first output", |event| event["text"] == "begins\n");
    farm.restart_coordinator();
    let built = build.end().well();
    let log = built.log();
    assert!(log.ends_with("ends\n") && !log.contains("omitted"), "{log}");
    let joined = farm.log("coordinator");
    assert!(joined.contains("running") && joined.matches("worker joined").count() == 2, "{joined}");
    assert!(!joined.contains("action runs again"), "expected the running action to be re-adopted: {joined}");
}

#[test]
fn whoever_ran_a_step_before_a_restart_goes_on_with_it_though_another_worker_is_back_first() {
    let farm = Farm::start(&["one", "two"]);
    let dir = work("echo run $(od -An -N8 -tx8 /dev/urandom); sleep 3; echo ends", "");
    let mut build = farm.start_build(dir.path(), &[]);
    let worker = build.started("work")["worker"].as_str().unwrap().to_owned();
    build.until("the step's first output", |event| event["text"].as_str().is_some_and(|text| text.starts_with("run ")));
    let other = if worker == "one" { "two" } else { "one" };
    farm.signal_worker(&worker, Signal::SIGSTOP);
    farm.restart_coordinator();
    farm.wait_for_worker(other);
    build.until("the build to say whom it waits for", |event| {
        let what = event["what"].as_str().unwrap_or_default();
        what.contains("since before the coordinator restarted") && what.contains(&format!("`{worker}`"))
    });
    farm.signal_worker(&worker, Signal::SIGCONT);
    let built = build.end().well();
    let ended = &built.of_type("step_finished")[0];
    assert_eq!(ended["worker"], worker.as_str(), "{ended}");
    // What it printed is told again to whoever follows the resumed build.
    let log = built.log();
    let runs: BTreeSet<&str> = log.lines().filter(|line| line.starts_with("run ")).collect();
    assert_eq!(runs.len(), 1, "expected it not to run again: {log}");
    // One that never comes back is given up, by a coordinator that then knows better.
    farm.kill_worker(&worker);
    farm.restart_coordinator();
    farm.wait_for_worker(other);
    let after = farm.build(work("echo after", "").path(), &[]).well();
    assert_eq!(after.of_type("step_finished")[0]["worker"], other);
}

#[test]
fn a_worker_that_is_told_to_stop_finishes_what_it_runs_and_gets_nothing_new() {
    let farm = Farm::start(&["one", "two"]);
    let dir = work("echo begins; sleep 3; echo ends", "");
    let mut build = farm.start_build(dir.path(), &[]);
    let worker = build.started("work")["worker"].as_str().unwrap().to_owned();
    build.until("the step's first output", |event| event["text"] == "begins\n");
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| farm.stop_worker(&worker));
        until("the farm to know", || {
            farm.workers().into_iter().find(|one| one["worker"] == worker.as_str() && one["state"] == "draining")
        });
        let other = farm.build(work("echo other $KILN_SHARD", "shards = 4").path(), &[]).well();
        let on = |event: &Value| event["worker"].as_str().unwrap().to_owned();
        assert!(other.of_type("step_finished").iter().all(|event| on(event) != worker), "{:?}", other.events());
        assert_eq!(stopped.join().unwrap(), Some(0));
    });
    let built = build.end().well();
    let ended = &built.of_type("step_finished")[0];
    assert_eq!((ended["worker"].as_str(), ended["cache"].as_str()), (Some(worker.as_str()), Some("miss")));
    assert_eq!(farm.workers().len(), 1, "expected a worker that left not to be listed");
}

#[test]
fn a_damaged_blob_is_noticed_dropped_and_built_again() {
    let farm = Farm::start(&["one"]);
    let dir = project(&[("kiln.toml", CHAIN), ("in", "abc\n"), ("extra", "extra\n")]);
    let built = farm.build(dir.path(), &[]).well();
    let before = built.of_type("artifact")[0]["digest"].clone();
    // The output of step `one` in the store, wherever it lies in a file; the workers' own copies are removed too.
    let mut stack = vec![farm.dir.path().join("coordinator/blobs")];
    let mut damaged = 0;
    while let Some(at) = stack.pop() {
        for entry in std::fs::read_dir(at).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                stack.push(entry.path());
                continue;
            }
            let mut content = std::fs::read(entry.path()).unwrap();
            let found: Vec<usize> =
                content.windows(4).enumerate().filter(|(_, part)| *part == b"ABC\n").map(|(at, _)| at).collect();
            found.iter().for_each(|at| content[*at..at + 3].copy_from_slice(b"XXX"));
            damaged += found.len();
            if !found.is_empty() {
                std::fs::write(entry.path(), content).unwrap();
            }
        }
    }
    assert!(damaged > 0, "expected the output on disk");
    farm.kill_worker("one");
    farm.restart_coordinator();
    farm.start_worker("two");
    farm.wait_for_worker("two");
    write(dir.path(), "extra", "more\n");
    let built = farm.build(dir.path(), &[]).well();
    assert_ne!(built.of_type("artifact")[0]["digest"], before);
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert_eq!(std::fs::read_to_string(unpacked.path().join("d/two")).unwrap(), "ABC\nmore\n");
}
