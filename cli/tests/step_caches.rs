//! `caches` of steps in a `kiln.toml`, on a farm of real processes.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use kiln_harness::guarded::{Guarded, local, token, well};
use kiln_harness::{Built, Farm, project, write};

/// A project whose step `work` counts in its cache how often it has succeeded.
fn counting(name: &str, more: &str) -> tempfile::TempDir {
    let config = format!(
        "name = \"{name}\"\nversion = \"1\"\n[steps.work]\ninputs = [\"in\", \"fail\"]\noutputs = [\"out\"]\n\
         run = '''\necho x >> .counts/lines\necho \"count $(wc -l < .counts/lines).\"\ntest ! -s fail\ncp in out\n'''\n\
         caches = {{ \".counts\" = {{ key = \"counts\" }} }}\n{more}\n"
    );
    project(&[("kiln.toml", &config), ("in", "0\n"), ("fail", "")])
}

fn count(built: &Built) -> String {
    let log = built.log();
    let (_, rest) = log.split_once("count ").unwrap_or_else(|| panic!("no count in: {log}"));
    rest.split_once('.').unwrap().0.to_owned()
}

/// The cache mounts of a project, as `kiln cache list` shows them.
fn listed(farm: &Farm, name: &str) -> Vec<serde_json::Value> {
    let ran = farm.kiln(&["cache", "list", "--mounts", "--json", "--project", name]);
    serde_json::from_str(&well(ran)).unwrap()
}

#[test]
fn a_cache_outlives_its_step_on_every_worker_and_only_success_changes_it() {
    let farm = Farm::shared();
    let dir = counting("outlives", "");
    let mut workers = std::collections::BTreeSet::new();
    for round in 1..=4 {
        write(dir.path(), "in", &format!("{round}\n"));
        let built = farm.build(dir.path(), &[]).well();
        assert_eq!((count(&built), built.caches()["work"].as_str()), (round.to_string(), "miss"));
        workers.insert(built.of_type("step_finished")[0]["worker"].to_string());
    }
    write(dir.path(), "fail", "yes");
    let failed = farm.build(dir.path(), &[]);
    assert_eq!((failed.0.code, count(&failed).as_str()), (1, "5"));
    write(dir.path(), "fail", "");
    assert_eq!(farm.build(dir.path(), &[]).well().caches()["work"], "hit", "expected a cache to be no part of the key");
    let again = farm.build(dir.path(), &["--no-cache"]).well();
    assert_eq!(count(&again), "5", "expected the step that failed to have left nothing");
    let [mount] = &listed(farm, "outlives")[..] else { panic!("expected one cache") };
    assert_eq!(
        (&mount["id"], &mount["project"], &mount["scope"]),
        (&"counts".into(), &"outlives".into(), &serde_json::Value::Null)
    );
    assert!(mount["environment"].as_str().is_some_and(|system| !system.is_empty()), "{mount}");
    well(farm.kiln(&["cache", "prune", "--mounts", "--project", "outlives", "--older-than", "0s"]));
    assert!(listed(farm, "outlives").is_empty());
    assert_eq!(count(&farm.build(dir.path(), &["--no-cache"]).well()), "1");
}

#[test]
fn a_step_on_another_worker_begins_with_what_the_step_before_it_has_left() {
    let farm = Farm::start(&[]);
    farm.start_worker_with("fast", &["--cpus", "4", "--memory", "1GiB"]);
    farm.start_worker_with("large", &["--cpus", "1", "--memory", "4GiB"]);
    farm.wait_for_worker("fast");
    farm.wait_for_worker("large");
    // Each fits one of the two workers only, and there is much to publish.
    let config = "name = \"follows\"\nversion = \"1\"\n\
                  [steps.first]\ninputs = [\"in\"]\noutputs = [\"done\"]\ncpus = 3\nmemory = \"256MiB\"\n\
                  run = 'for i in $(seq 3000); do echo $i > .c/$i; done; cp in done'\ncaches = { \".c\" = { key = \"c\" } }\n\
                  [steps.second]\nneeds = [\"first\"]\ninputs = [\"in\"]\noutputs = [\"count\"]\nmemory = \"3GiB\"\n\
                  run = 'ls .c | wc -l | tee count'\ncaches = { \".c\" = { key = \"c\" } }\n";
    let dir = project(&[("kiln.toml", config), ("in", "0\n")]);
    let built = farm.build(dir.path(), &[]).well();
    let ran = built.of_type("step_finished");
    let on =
        |step: &str| ran.iter().find(|event| event["step"] == step).unwrap()["worker"].as_str().unwrap().to_owned();
    assert_eq!((on("first"), on("second")), ("fast".to_owned(), "large".to_owned()));
    assert!(built.log().contains("3000"), "expected all that the first step had left: {}", built.log());
}

#[test]
fn a_cache_that_is_added_to_a_step_makes_nothing_run_again() {
    let farm = Farm::shared();
    let config = "name = \"added\"\nversion = \"1\"\n[steps.work]\ninputs = [\"in\"]\nrun = \"cp in out\"\noutputs = [\"out\"]\n";
    let dir = project(&[("kiln.toml", config), ("in", "added\n")]);
    farm.build(dir.path(), &[]).well();
    write(
        dir.path(),
        "kiln.toml",
        &format!("{config}caches = {{ \".c\" = {{ key = \"c\", sharing = \"private\" }} }}\n"),
    );
    assert_eq!(farm.build(dir.path(), &[]).well().caches()["work"], "hit");
}

#[test]
fn a_cache_hides_no_input_and_projects_have_their_own() {
    let farm = Farm::shared();
    let (one, other) = (counting("own-one", ""), counting("own-other", ""));
    assert_eq!(count(&farm.build(one.path(), &[]).well()), "1");
    assert_eq!(count(&farm.build(other.path(), &["--no-cache"]).well()), "1");
    let whole = counting("hides", "[steps.all]\nrun = \"ls\"\ncaches = { \"src\" = { key = \"src\" } }\n");
    write(whole.path(), "src/main", "x");
    let refused = farm.build(whole.path(), &[]);
    assert_eq!(refused.0.code, 1);
    let words = format!("{}{}", refused.0.out, refused.0.err);
    assert!(words.contains("the cache at `src` would hide the input files"), "{words}");
    assert!(words.contains("`inputs` (`\\\"!src\\\"`)") || words.contains("`inputs` (`\"!src\"`)"), "{words}");
}

#[test]
fn plan_shows_caches_and_what_is_wrong_with_one() {
    let dir = counting("shown", "");
    let shown = |more: &[&str]| local(&[&["plan", dir.path().to_str().unwrap()], more].concat());
    assert!(well(shown(&[])).contains("cache    .counts: `counts`, shared"));
    let json: serde_json::Value = serde_json::from_str(&well(shown(&["--json"]))).unwrap();
    assert_eq!(json["steps"][0]["caches"][".counts"]["key"], "counts");
    let config = std::fs::read_to_string(dir.path().join("kiln.toml")).unwrap();
    write(dir.path(), "kiln.toml", &config.replace("\".counts\"", "\"/usr/counts\""));
    let refused = shown(&[]);
    assert!(refused.code == 2 && refused.err.contains("which is read-only there: choose a path below"), "{refused:?}");
}

/// Builds with somebody's token, and says what the step counted.
fn build_as(guarded: &Guarded, by: &str, dir: &Path, round: u32) -> String {
    write(dir, "in", &format!("{round}\n"));
    let ran = guarded.ran(token(&guarded.dir(), by), &["build", dir.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let all = format!("{}{}", ran.out, ran.err);
    let (_, rest) = all.split_once("count ").unwrap_or_else(|| panic!("no count in: {all}"));
    rest.split_once('.').unwrap().0.to_owned()
}

#[test]
fn a_branch_reads_what_everyone_has_and_writes_for_itself() {
    let guarded = Guarded::start(&[]);
    guarded.worker("one");
    let made = |name: &str, more: &[&str]| guarded.make(&[&["token", name, "--role", "builder"], more].concat());
    let (main, branch) = (made("main", &[]), made("branch", &["--scope", "feature/x"]));
    let other = made("other", &["--scope", "feature/y"]);
    let farm = &guarded.farm;
    let sources = counting("scoped", "");
    let mut round = 0;
    let mut count = |by: &str| {
        round += 1;
        build_as(&guarded, by, sources.path(), round)
    };
    assert_eq!(count(&main), "1");
    assert_eq!([count(&branch), count(&branch)], ["2", "3"], "expected what the base had, and then its own");
    assert_eq!(count(&main), "2", "expected nothing of the branch");
    assert_eq!(count(&other), "3", "expected what the base has, and nothing of the other branch");
    assert_eq!(count(&branch), "4", "expected its own rather than the base's");
    // What a branch made may come from its cache, so it is no result of anybody else's; what the base has made is everyone's.
    let cached = |by: &str| {
        let arguments = ["build", "--progress", "json", sources.path().to_str().unwrap()];
        kiln_harness::Built(guarded.ran(token(&guarded.dir(), by), &arguments)).well().caches()["work"].clone()
    };
    assert_eq!([cached(&branch), cached(&other), cached(&main)], ["hit", "miss", "miss"]);
    write(sources.path(), "in", "by the base\n");
    assert_eq!([cached(&main), cached(&branch)], ["miss", "hit"]);
    // A restarted coordinator knows whose it is.
    farm.restart_coordinator();
    farm.wait_for_worker("one");
    assert_eq!(count(&branch), "5");
    assert_eq!(count(&main), "5");
    let mut scopes: Vec<String> = listed(farm, "scoped").iter().map(|mount| mount["scope"].to_string()).collect();
    scopes.sort();
    assert_eq!(scopes, ["\"feature/x\"", "\"feature/y\"", "null"]);
}
