//! Builds on a farm of real processes: what runs, what is reused, what goes wrong and what is said then.

#![allow(clippy::unwrap_used)]

mod real;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use real::{Farm, Ran, cannot_run, commit, output, project, unpack, until, write};
use serde_json::Value;

/// A `kiln.toml` of one step `work` with this command.
fn work(run: &str, more: &str) -> tempfile::TempDir {
    let config = format!("name = \"p\"\nversion = \"1\"\n[steps.work]\nrun = '''{run}'''\n{more}\n");
    project(&[("kiln.toml", &config), ("in", "input\n")])
}

/// Something that no other build of this run has.
fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

const CHAIN: &str = r#"
name = "chain"
version = "1.0"
[steps.one]
inputs = ["in"]
run = "tr a-z A-Z < in > one; echo ran-one"
outputs = ["one"]
[steps.two]
needs = ["one"]
inputs = ["extra"]
run = "mkdir -p d; cat one extra > d/two; ln -s two d/link; chmod +x d/two; echo ran-two"
outputs = ["d"]
[steps.test]
needs = ["two"]
inputs = ["in"]
run = "test -x d/two; cat d/link; echo shard $KILN_SHARD of $KILN_SHARDS"
shards = 3
[artifacts.chain]
from = "two"
files = ["d"]
kind = "archive"
"#;

#[test]
fn steps_get_what_they_need_and_only_what_changed_runs_again() {
    let farm = Farm::shared();
    let dir = project(&[("kiln.toml", CHAIN), ("in", &format!("abc {}\n", unique())), ("extra", "extra\n")]);
    let first = farm.build(dir.path(), &[]).well();
    let finished = first.of_type("step_finished");
    assert_eq!(finished.len(), 5);
    assert!(first.caches().values().all(|cache| cache == "miss"));
    let log = first.log();
    for shard in 1..=3 {
        assert!(log.contains(&format!("shard {shard} of 3")), "{log}");
    }
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert!(std::fs::read_to_string(unpacked.path().join("d/link")).unwrap().ends_with("extra\n"));
    assert_eq!(std::fs::metadata(unpacked.path().join("d/two")).unwrap().permissions().mode() & 0o777, 0o755);

    let second = farm.build(dir.path(), &[]).well();
    assert!(second.caches().values().all(|cache| cache == "hit"));
    assert!(second.of_type("step_started").is_empty(), "a hit runs nowhere");
    write(dir.path(), "extra", "other\n");
    let third = farm.build(dir.path(), &[]).well().caches();
    assert_eq!([&third["one"], &third["two"]], ["hit", "miss"]);
    write(dir.path(), "unrelated", "nobody names this\n");
    let fourth = farm.build(dir.path(), &[]).well().caches();
    assert!(fourth.values().all(|cache| cache == "hit"), "{fourth:?}");
    let again = farm.build(dir.path(), &["--no-cache"]).well().caches();
    assert!(again.values().all(|cache| cache == "miss"), "{again:?}");
}

#[test]
fn shards_are_spread_over_the_workers() {
    let dir = work(&format!("echo {}; sleep 1", unique()), "shards = 4");
    let built = Farm::shared().build(dir.path(), &[]).well();
    let mut workers: Vec<String> =
        built.of_type("step_finished").iter().map(|event| event["worker"].as_str().unwrap().to_owned()).collect();
    workers.sort();
    workers.dedup();
    assert_eq!(workers, ["one", "two"]);
}

#[test]
fn equal_steps_of_two_builds_run_once() {
    let farm = Farm::shared();
    let run = format!("echo {}; sleep 2; od -An -N8 -tx8 /dev/urandom > out; cat out", unique());
    let (one, two) = (work(&run, "outputs = [\"out\"]"), work(&run, "outputs = [\"out\"]"));
    let mut first = farm.start_build(one.path(), &[]);
    first.started("work");
    let second = farm.build(two.path(), &[]).well();
    let first = first.end().well();
    assert_eq!(first.caches()["work"], "miss");
    assert_eq!(second.caches()["work"], "merged");
    assert_eq!(first.log(), second.log(), "both see the output of the one run");
}

#[test]
fn a_failed_step_ends_the_build_and_its_whole_log_stays() {
    let farm = Farm::shared();
    let dir = work("i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo line $i; done; echo oh no >&2; exit 7", "");
    let built = farm.build(dir.path(), &[]);
    assert_eq!(built.0.code, 1);
    assert_eq!(built.finished()["status"], "failed");
    assert!(built.message().contains("step `work` failed with exit code 7"), "{}", built.message());
    let plain = Ran::from({
        let mut command = farm.command(&["build", "--progress", "plain"]);
        command.current_dir(dir.path());
        command
    });
    assert!(
        plain.err.contains("line 500") && plain.err.contains("oh no") && plain.err.contains("kiln logs"),
        "{}",
        plain.err
    );
    let logs = farm.kiln(&["logs", &built.id(), "work"]);
    let lines: Vec<&str> = logs.out.lines().filter(|line| line.contains("line ")).collect();
    assert_eq!((logs.code, lines.len()), (0, 500), "{}", logs.err);
    assert!(logs.out.contains("oh no"));
}

#[test]
fn what_goes_wrong_in_a_step_is_said_in_words() {
    for (run, more, expected) in [
        ("true", "outputs = [\"absent\"]", "did not leave its output `absent`"),
        ("sleep 1000", "timeout = \"1s\"", "after its 1 s timeout"),
        ("head -c 900M /dev/zero | tail | wc -c; exit 1", "memory = \"64MiB\"", "memory"),
        ("nothing-of-this-name", "", "exit code 127: a command was not found"),
        ("true", "tools = [\"nothing-of-this-name\"]", "exit code 127: a command was not found"),
        ("kill -ABRT $$", "", "ended by signal 6"),
        ("mkfifo pipe", "outputs = [\"pipe\"]", "`pipe` is a socket, a pipe or a device"),
        ("mkdir d; touch \"d/$(printf '\\377')\"", "outputs = [\"d\"]", "has a name that is no UTF-8"),
        ("rmdir d; ln -s /etc d", "outputs = [\"d/passwd\"]", "behind the symbolic link `d`"),
        ("i=0; while :; do sleep 1000 & done", "", "processes"),
    ] {
        let built = Farm::shared().build(work(run, more).path(), &[]);
        assert_eq!(built.0.code, 1, "{run}: {}", built.0.err);
        assert!(built.message().contains(expected), "{run}: expected `{expected}` in `{}`", built.message());
        assert!(built.message().contains("work"), "{run}: expected the step in `{}`", built.message());
    }
}

#[test]
fn much_output_and_output_that_is_no_text_comes_through() {
    let farm = Farm::shared();
    let built = farm.build(work("printf 'a\\377b\\n'", "").path(), &[]).well();
    assert!(built.log().contains("a\u{fffd}b"), "{}", built.log());
    let built =
        farm.build(work("head -c 30000000 /dev/zero | tr '\\0' x | fold -w 99; echo the end", "").path(), &[]).well();
    let logs = farm.kiln(&["logs", &built.id(), "work"]);
    assert!(logs.out.len() > 30_000_000 && logs.out.contains("the end"), "{} bytes", logs.out.len());
    assert!(built.log().len() < 10_000_000, "the live log is bounded; the whole is in the store");
    let run = "head -c 30000000 /dev/zero | tr '\\0' x | fold -w 99; echo oh no; exit 3";
    let mut command = farm.command(&["build", "--progress", "plain"]);
    let dir = work(run, "");
    command.current_dir(dir.path());
    let failed = Ran::from(command);
    assert!(
        failed.err.contains("bytes are left out") && failed.err.contains("oh no"),
        "expected the end of the output"
    );
}

#[test]
fn a_bad_configuration_is_the_users_to_mend_and_nothing_runs() {
    for (config, expected) in [
        ("name = \"p\"\n[steps.a]\nrun = \"true\"\nnedes = [\"b\"]\n", vec!["line 4", "`nedes`", "`needs`"]),
        ("name = \"p\"\n[steps.a]\nrun = \"true\"\nneeds = [\"b\"]\n", vec!["`b`"]),
        (
            "name = \"p\"\n[steps.a]\nrun = \"true\"\nneeds = [\"b\"]\n[steps.b]\nrun = \"true\"\nneeds = [\"a\"]\n",
            vec!["cycle"],
        ),
        ("name = \"p\"\n[steps.a]\nrun = \"true\"\noutputs = [\"../x\"]\n", vec!["../x"]),
        ("name = \"p\"\n[steps.a]\nrun = \"true\"\noutputs = [\"/etc/x\"]\n", vec!["/etc/x"]),
        ("name = ", vec!["line 1"]),
    ] {
        let dir = project(&[("kiln.toml", config)]);
        let ran = Farm::shared().build(dir.path(), &[]).0;
        assert_eq!(ran.code, 2, "{config}: {} {}", ran.out, ran.err);
        for words in expected {
            assert!(ran.err.contains(words), "{config}: expected `{words}` in `{}`", ran.err);
        }
    }
    let empty = project(&[]);
    let ran = Farm::shared().build(empty.path(), &[]).0;
    assert_eq!(ran.code, 2, "{}", ran.err);
}

#[test]
fn a_tree_that_cannot_be_sent_is_refused_before_anything_is_sent() {
    let farm = Farm::shared();
    let dir = work("true", "");
    std::os::unix::fs::symlink("../../outside", dir.path().join("link")).unwrap();
    let ran = farm.build(dir.path(), &[]).0;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("`link` leaves the tree"), "{}", ran.err);

    let dir = work("true", "");
    nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let ran = farm.build(dir.path(), &[]).0;
    assert_eq!((ran.code, ran.err.contains("pipe")), (2, true), "{}", ran.err);

    let dir = work("true", "");
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"bad\xff");
    std::fs::write(dir.path().join(name), "").unwrap();
    let ran = farm.build(dir.path(), &[]).0;
    assert_eq!((ran.code, ran.err.contains("UTF-8")), (2, true), "{}", ran.err);
}

#[test]
fn a_stale_or_missing_lock_file_is_named() {
    let farm = Farm::shared();
    let dir = real::example("rust");
    std::fs::remove_file(dir.path().join("Cargo.lock")).unwrap();
    let ran = farm.build(dir.path(), &[]).0;
    assert_eq!((ran.code, ran.err.contains("Cargo.lock")), (2, true), "{}", ran.err);
    let dir = real::example("rust");
    let manifest = std::fs::read_to_string(dir.path().join("Cargo.toml")).unwrap();
    write(dir.path(), "Cargo.toml", &manifest.replace("[dependencies]", "[dependencies]\nanyhow = \"1\""));
    let ran = farm.build(dir.path(), &[]).0;
    assert_eq!(ran.code, 2, "{} {}", ran.out, ran.err);
    assert!(ran.err.contains("anyhow") && ran.err.contains("Cargo.lock"), "{}", ran.err);
}

#[test]
fn a_platform_that_no_worker_has_is_refused_at_once_with_what_there_is() {
    let dir = work(
        "true",
        "[targets.far]\nplatform = \"linux/arm64\"\n[targets.other]\nplatform = \"linux/amd64\"\nos = \"plan9:4\"\n",
    );
    let built = Farm::shared().build(dir.path(), &["--target", "far"]);
    assert_eq!((built.0.code, built.finished()["status"].as_str()), (3, Some("farm_failed")));
    for words in ["linux/arm64", "`one` is x86-64", "`two` is x86-64"] {
        assert!(built.message().contains(words), "expected `{words}` in `{}`", built.message());
    }
    let built = Farm::shared().build(dir.path(), &["--target", "other"]);
    assert!(built.message().contains("plan9:4") && built.message().contains("debian"), "{}", built.message());
}

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
    let resumed = build.until("the build is taken up", |event| event["type"] == "build_started");
    assert_eq!(resumed["resumed"], true);
    let built = build.end().well();
    let first: Vec<Value> =
        built.of_type("step_finished").into_iter().filter(|event| event["step"] == "first").collect();
    assert_eq!(first.last().unwrap()["cache"], "hit", "what was done is not done again");
    assert_eq!(unpack(&dir.path().join("kiln-out")).path().join("second.out").metadata().unwrap().len(), 18);
    let listed: Vec<Value> = serde_json::from_str(&farm.kiln(&["builds", "--json"]).out).unwrap();
    assert_eq!(listed[0]["status"], "success");
    farm.restart_coordinator();
    let logs = until("the coordinator to be back", || {
        Some(farm.kiln(&["logs", &built.id(), "second"])).filter(|ran| ran.code == 0)
    });
    assert!(logs.out.contains("begins"), "a build's log outlives the coordinator: {}", logs.out);
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
    assert!(log.ends_with("ends\n") && !log.contains("left out"), "{log}");
    let joined = farm.log("coordinator");
    assert!(joined.contains("running") && joined.matches("worker joined").count() == 2, "{joined}");
    assert!(!joined.contains("action runs again"), "the run that was under way is taken up: {joined}");
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
        let other = farm.build(work("echo other", "shards = 4").path(), &[]).well();
        let on = |event: &Value| event["worker"].as_str().unwrap().to_owned();
        assert!(other.of_type("step_finished").iter().all(|event| on(event) != worker), "{:?}", other.events());
        assert_eq!(stopped.join().unwrap(), Some(0));
    });
    let built = build.end().well();
    let ended = &built.of_type("step_finished")[0];
    assert_eq!((ended["worker"].as_str(), ended["cache"].as_str()), (Some(worker.as_str()), Some("miss")));
    assert_eq!(farm.workers().len(), 1, "one that has left is not listed");
}

#[test]
fn a_detached_build_is_attached_to_and_gives_the_same_events() {
    let farm = Farm::shared();
    let dir = project(&[
        (
            "kiln.toml",
            "name = \"p\"\nversion = \"1\"\n[steps.work]\nrun = \"echo hello; sleep 1; cp in out\"\noutputs = [\"out\"]\n[artifacts.p]\nfrom = \"work\"\nfiles = [\"out\"]\nkind = \"archive\"\n",
        ),
        ("in", &unique()),
    ]);
    let mut command = farm.command(&["build", "--detach"]);
    command.current_dir(dir.path());
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let id = ran.out.trim().to_owned();
    let mut command = farm.command(&["attach", &id, "--progress", "json"]);
    command.current_dir(dir.path());
    let built = real::Built(Ran::from(command)).well();
    assert_eq!(built.id(), id);
    assert_eq!(built.log(), "hello\n");
    assert!(dir.path().join("kiln-out").is_dir(), "attach brings the artifacts");
}

#[test]
fn ctrl_c_cancels_the_build_and_its_step() {
    let farm = Farm::shared();
    let marker = format!("{}.25", 70_000 + std::process::id() % 10_000);
    let dir = work(&format!("echo begins; sleep {marker}"), "");
    let mut build = farm.start_build(dir.path(), &[]);
    build.until("the step's first output", |event| event["text"] == "begins\n");
    build.interrupt();
    let built = build.end();
    assert_eq!((built.0.code, built.finished()["status"].as_str()), (130, Some("cancelled")));
    until("the command to end", || {
        let running = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.starts_with(b"sleep\0") && String::from_utf8_lossy(&line).contains(&marker)
        });
        (!running).then_some(())
    });
    let mut detached = farm.command(&["build", "--detach"]);
    let sleeps = work("sleep 1000", "");
    detached.current_dir(sleeps.path());
    let id = Ran::from(detached).out.trim().to_owned();
    assert_eq!(farm.kiln(&["cancel", &id]).code, 0);
    assert_eq!(farm.kiln(&["attach", &id]).code, 130);
}

#[test]
fn a_client_that_vanishes_leaves_its_build_to_the_farm() {
    let farm = Farm::shared();
    let dir = work(&format!("echo begins {}; sleep 2; echo ends", unique()), "");
    let mut build = farm.start_build(dir.path(), &[]);
    let id = build.until("its start", |event| event["type"] == "build_started")["build"].as_str().unwrap().to_owned();
    build.kill();
    let ended = farm.kiln(&["attach", &id, "--progress", "json"]);
    assert_eq!(ended.code, 0, "{} {}", ended.out, ended.err);
    assert!(ended.out.contains("ends"));
}

#[test]
fn an_artifact_is_traceable_to_its_commit_and_comes_back_bit_for_bit() {
    let farm = Farm::shared();
    let config = "name = \"traced\"\n[steps.work]\nrun = \"cp in out; chmod +x out\"\noutputs = [\"out\"]\n[artifacts.traced]\nfrom = \"work\"\nfiles = [\"out\"]\nkind = \"archive\"\n";
    let dir = project(&[("kiln.toml", config), ("in", &unique()), (".gitignore", "kiln-out/\n")]);
    let head = commit(dir.path());
    let built = farm.build(dir.path(), &[]).well();
    let artifact = built.of_type("artifact").remove(0);
    let id = artifact["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("traced-") && id.contains(&head[..7]) && id.contains("linux-amd64"), "{id}");

    let listed: Vec<Value> = serde_json::from_str(&farm.kiln(&["artifacts", "traced", "--json"]).out).unwrap();
    assert!(listed.iter().any(|one| one["id"] == id.as_str() && one["commit"] == head.as_str()), "{listed:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    let ran = farm.kiln(&["fetch", &id, "--output", elsewhere.path().to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let (own, fetched) = (dir.path().join("kiln-out"), elsewhere.path());
    let archive = |dir: &Path| std::fs::read(real::find(dir, ".tar.zst").unwrap()).unwrap();
    assert_eq!(archive(&own), archive(fetched));

    let provenance: Value =
        serde_json::from_slice(&std::fs::read(own.join("traced.provenance.json")).unwrap()).unwrap();
    assert_eq!(provenance["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
    assert!(provenance.to_string().contains(&head), "the commit is in the provenance");
    let subject = &provenance["subject"][0]["digest"]["sha256"];
    assert_eq!(artifact["digest"].as_str().unwrap().split('/').next(), subject.as_str());

    write(dir.path(), "in", &unique());
    let dirty = farm.build(dir.path(), &[]).well().of_type("artifact").remove(0);
    assert!(dirty["id"].as_str().unwrap().contains("-dirty"), "{dirty}");
    assert_ne!(dirty["id"], id.as_str());
    assert_eq!(farm.kiln(&["fetch", "no-such-artifact"]).code, 2);
}

const HELLO: &str =
    "#include <stdio.h>\n#include <math.h>\nint main(int c, char **v) { printf(\"%f\\n\", pow(c, 0.5)); return 0; }\n";

#[test]
fn a_binary_that_production_could_not_run_fails_the_build() {
    let farm = Farm::shared();
    let config = |target: &str, run: &str| {
        format!(
            "name = \"elf\"\nversion = \"1\"\n[targets.prod]\nplatform = \"linux/amd64\"\n{target}\n[steps.work]\nrun = \"\"\"{run}\"\"\"\noutputs = [\"app\"]\n[artifacts.elf]\nfrom = \"work\"\nfiles = [\"app\"]\nkind = \"binary\"\n"
        )
    };
    let build = |target: &str, run: &str| {
        let dir = project(&[("kiln.toml", &config(target, run)), ("main.c", HELLO)]);
        let built = farm.build(dir.path(), &[]);
        (dir, built)
    };
    let (_dir, built) = build("glibc = \"2.36\"", "cc -o app main.c -lm");
    built.well();
    let (_dir, built) = build("glibc = \"2.20\"", "cc -o app main.c -lm");
    assert_eq!(built.0.code, 1);
    for words in ["GLIBC_2.", "2.20", "app"] {
        assert!(built.message().contains(words), "expected `{words}` in `{}`", built.message());
    }
    let (_dir, built) = build(
        "glibc = \"2.36\"",
        "echo 'int own(void) { return 1; }' > own.c; cc -shared -o libown.so own.c; cc -o app main.c -L. -Wl,--no-as-needed -lown -lm",
    );
    assert_eq!(built.0.code, 1);
    assert!(built.message().contains("libown.so") && built.message().contains("app"), "{}", built.message());
    if Path::new("/usr/bin/aarch64-linux-gnu-gcc").exists() {
        let (_dir, built) = build("", "aarch64-linux-gnu-gcc -o app main.c -lm");
        assert_eq!(built.0.code, 1);
        assert!(built.message().contains("is for arm64"), "{}", built.message());
    } else {
        eprintln!("not shown here: a binary for another machine (no aarch64-linux-gnu-gcc)");
    }
}

#[test]
fn a_binary_that_is_a_link_out_of_the_artifact_is_the_projects_to_mend() {
    let more = "outputs = [\"app\"]\n[artifacts.app]\nfrom = \"work\"\nfiles = [\"app\"]\nkind = \"binary\"";
    for target in ["/usr/bin/env", "../env"] {
        let built = Farm::shared().build(work(&format!("ln -s {target} app"), more).path(), &[]);
        assert_eq!(built.0.code, 1, "{}", built.0.err);
        for words in ["artifact `app`", "symbolic link", target] {
            assert!(built.message().contains(words), "expected `{words}` in `{}`", built.message());
        }
    }
}

#[test]
fn words_that_nobody_can_hear_are_no_failure() {
    let dir = real::example("rust");
    let mut command = Farm::shared().command(&["init"]);
    command.current_dir(dir.path()).stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(command.status().unwrap().code(), Some(0));
    let mut command = Farm::shared().command(&["logs", "no-such-build"]);
    command.stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(command.status().unwrap().code(), Some(2));
}

#[test]
fn a_damaged_blob_is_noticed_dropped_and_built_again() {
    let farm = Farm::start(&["one"]);
    let dir = project(&[("kiln.toml", CHAIN), ("in", "abc\n"), ("extra", "extra\n")]);
    let built = farm.build(dir.path(), &[]).well();
    let before = built.of_type("artifact")[0]["digest"].clone();
    // The output of step `one`, as the store has it; the workers' own copies go too.
    let digest = kiln_proto::digest::DigestFunction::Sha256.digest(b"ABC\n").hex();
    let mut stack = vec![farm.dir.path().join("coordinator")];
    let mut damaged = 0;
    while let Some(at) = stack.pop() {
        for entry in std::fs::read_dir(at).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                stack.push(entry.path());
            } else if entry.file_name().to_string_lossy().contains(&digest) {
                std::fs::write(entry.path(), "XXX\n").unwrap();
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0, "expected the blob `{digest}` on disk");
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

#[test]
fn the_checklist_says_pass_or_fail_with_the_mend() {
    let farm = Farm::shared();
    let dir = real::example("rust");
    commit(dir.path());
    let mut command = farm.command(&["check"]);
    command.current_dir(dir.path());
    let ran = Ran::from(command);
    for words in ["lock", "store", "environment"] {
        assert!(ran.out.to_lowercase().contains(words), "expected `{words}` in {}", ran.out);
    }
    assert_eq!(ran.code, 1, "nothing builds it on every push yet: {}", ran.out);
    real::git(dir.path(), &["remote", "add", "origin", "https://git.example/greet.git"]);
    write(dir.path(), ".github/workflows/build.yml", "on: push\njobs:\n  b:\n    steps:\n      - run: kiln build\n");
    write(dir.path(), "kiln.toml", &output_of(farm, dir.path()));
    commit(dir.path());
    let mut command = farm.command(&["check"]);
    command.current_dir(dir.path());
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{} {}", ran.out, ran.err);
}

/// The plan of an example as `kiln.toml`, with a target that is this machine.
fn output_of(farm: &Farm, dir: &Path) -> String {
    let mut command = farm.command(&["init"]);
    command.current_dir(dir);
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let os = until("a worker's system", || {
        farm.workers().first().and_then(|one| one["environment"]["os"].as_str().map(str::to_owned))
    });
    let written = std::fs::read_to_string(dir.join("kiln.toml")).unwrap();
    format!("{written}\n[targets.prod]\nplatform = \"linux/amd64\"\nos = \"{os}\"\nglibc = \"2.36\"\n")
}

#[test]
fn without_a_farm_one_runs_inside_the_command() {
    let dir = work("cp in out; echo embedded", "outputs = [\"out\"]");
    let cache = tempfile::tempdir().unwrap();
    let build = || {
        let mut command = Farm::shared().command(&["build", "--progress", "json"]);
        command.env_remove("KILN_FARM").env("XDG_CACHE_HOME", cache.path()).current_dir(dir.path());
        real::Built(Ran::from(command)).well()
    };
    let first = build();
    assert_eq!((first.caches()["work"].as_str(), first.log().as_str()), ("miss", "embedded\n"));
    assert_eq!(build().caches()["work"], "hit", "the store outlives the command");
}

#[test]
fn up_is_a_whole_farm_and_ends_with_ctrl_c() {
    let data = tempfile::tempdir().unwrap();
    let mut command = Farm::shared().command(&["up", "--workers", "2", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data.path());
    let mut up = real::Lasting::start(command);
    let line = up.line_with("ready: ");
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    let mut command = Farm::shared().command(&["build", "--progress", "json", "--farm", &url]);
    let dir = work("echo up", "");
    command.current_dir(dir.path());
    assert_eq!(real::Built(Ran::from(command)).well().log(), "up\n");
    up.interrupt();
    assert_eq!(up.wait(), Some(0));
    let mut command = Farm::shared().command(&["workers", "--farm", &url]);
    command.current_dir(dir.path());
    assert_eq!(Ran::from(command).code, 3, "nothing answers any more");
}

#[test]
fn the_progress_on_a_terminal_is_live_and_ends_with_a_summary() {
    if std::process::Command::new("script").arg("--version").output().is_err() {
        return cannot_run("`script` of util-linux, which gives a terminal");
    }
    let dir = work(&format!("echo {}; sleep 1; echo last words", unique()), "");
    let kiln = format!("{} build", env!("CARGO_BIN_EXE_kiln"));
    let mut command = std::process::Command::new("script");
    command
        .args(["-qec", &kiln, "/dev/null"])
        .env("KILN_FARM", &Farm::shared().url)
        .env("TERM", "xterm")
        .current_dir(dir.path());
    let text = output_of_command(command);
    assert!(text.contains("\u{1b}["), "expected a live display");
    for words in ["work", "miss", "success", "sent", "reused"] {
        assert!(text.contains(words), "expected `{words}` in {text}");
    }
}

fn output_of_command(mut command: std::process::Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_git_ignored_file_is_no_input() {
    let farm = Farm::shared();
    let dir = work("ls -A", "");
    write(dir.path(), ".gitignore", "ignored\n");
    write(dir.path(), "ignored", "x");
    commit(dir.path());
    let built = farm.build(dir.path(), &[]).well();
    assert!(!built.log().lines().any(|line| line == "ignored"), "{}", built.log());
    let _ = output("true", &[], dir.path());
}
