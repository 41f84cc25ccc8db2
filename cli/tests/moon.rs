//! moon (npm's `@moonrepo/cli`) with a farm as its remote cache: it runs its tasks itself, and finds their cached
//! outputs.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use kiln_harness::{Farm, Ran, cannot_run, project};

const TASKS: &str = "\
tasks:
  shout:
    script: 'mkdir -p out/deep; tr a-z A-Z < src/in.txt > out/deep/loud.txt; echo shouted'
    inputs: ['src/**/*']
    outputs: ['out']
    toolchains: ['system']
  count:
    script: 'wc -c < out/deep/loud.txt > count.txt; echo counted'
    deps: ['~:shout']
    inputs: ['out/**/*']
    outputs: ['count.txt']
    toolchains: ['system']
";

fn moon(dir: &Path, home: &Path) -> Ran {
    let mut command = Command::new("moon");
    command.args(["run", "app:count", "--color", "--log", "warn", "--summary", "detailed"]);
    command.current_dir(dir).env("HOME", home).env("NO_COLOR", "1").env_remove("CI").env_remove("FORCE_COLOR");
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "expected moon to succeed, found\n{}\n{}", ran.out, ran.err);
    ran
}

#[test]
fn moon_finds_in_the_farm_what_an_emptied_cache_no_longer_has() {
    if !Command::new("moon").arg("--version").output().is_ok_and(|ran| ran.status.success()) {
        return cannot_run("moon of npm's `@moonrepo/cli`");
    }
    let farm = Farm::start(&[]);
    let host = farm.url.replace("http://", "grpc://");
    let workspace = format!(
        "projects: ['app']\ntelemetry: false\nremote:\n  host: '{host}'\n  cache:\n    instanceName: 'team/moon'\n"
    );
    let files = [
        (".moon/workspace.yml", workspace.as_str()),
        (".gitignore", "out\ncount.txt\n.moon/cache\n"),
        ("app/moon.yml", TASKS),
        ("app/src/in.txt", "one farm\n"),
    ];
    let hits =
        |ran: &Ran| ran.out.matches("cached from remote").count() + ran.err.matches("cached from remote").count();

    let (first, home) = (project(&files), tempfile::tempdir().unwrap());
    kiln_harness::commit(first.path());
    let ran = moon(first.path(), home.path());
    assert_eq!(hits(&ran), 0, "expected nothing to be cached yet:\n{}", ran.out);
    assert!(!ran.err.contains("Failed to store") && !ran.out.contains("Failed to store"), "{}\n{}", ran.out, ran.err);

    // A colleague: another directory and home, both empty.
    let (second, home) = (project(&files), tempfile::tempdir().unwrap());
    kiln_harness::commit(second.path());
    let ran = moon(second.path(), home.path());
    assert!(hits(&ran) >= 2, "expected both tasks from the farm:\n{}\n{}", ran.out, ran.err);
    let read = |path: &str| std::fs::read_to_string(second.path().join("app").join(path)).unwrap();
    assert_eq!((read("out/deep/loud.txt"), read("count.txt").trim()), ("ONE FARM\n".to_owned(), "9"));
}
