//! The farm waits for workers that will come, refuses what no worker can run, and reports which it does. Real
//! processes.

#![allow(clippy::unwrap_used)]

use kiln_harness::guarded::{Guarded, access, certificate, local, refused, well};
use kiln_harness::{Built, Farm, Ran, Running, project, until};
use serde_json::Value;

#[track_caller]
fn json(ran: Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// Bytes of all files in a directory.
fn size_of(dir: &std::path::Path) -> u64 {
    let of = |entry: std::fs::DirEntry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => size_of(&entry.path()),
        _ => entry.metadata().unwrap().len(),
    };
    std::fs::read_dir(dir).unwrap().flatten().map(of).sum()
}

/// A step that runs until the file exists.
fn until_file(path: &std::path::Path, name: &str) -> String {
    format!(
        "name = \"{name}\"\n[steps.wait]\nrun = \"echo begun; until [ -e {} ]; do sleep 0.1; done; echo made > out\"\n\
         outputs = [\"out\"]\ncache = false\n[artifacts.out]\nfrom = \"wait\"\nfiles = [\"out\"]\nkind = \"archive\"\n",
        path.display()
    )
}

fn quick(name: &str) -> tempfile::TempDir {
    let text = format!(
        "name = \"{name}\"\n[steps.make]\nrun = \"echo {} > out\"\noutputs = [\"out\"]\n\
         [artifacts.out]\nfrom = \"make\"\nfiles = [\"out\"]\nkind = \"archive\"\n",
        std::process::id()
    );
    project(&[("kiln.toml", &text)])
}

fn waits(event: &Value, words: &str) -> bool {
    event["type"] == "waiting" && event["what"].as_str().is_some_and(|what| what.contains(words))
}

#[test]
fn a_worker_that_restarts_in_order_fails_no_build_and_whoever_waits_sees_for_whom() {
    let farm = Farm::start(&["one"]);
    let dir = quick("patient");
    assert_eq!(farm.stop_worker("one"), Some(0));
    let mut build = farm.start_build(dir.path(), &[]);
    build.until("it waits for the worker", |event| waits(event, "`one` was last seen"));
    // After its restart the coordinator still knows which workers it waits for.
    farm.start_worker("one");
    build.end().well();
    assert_eq!(farm.stop_worker("one"), Some(0));
    farm.restart_coordinator();
    farm.wait_until_up();
    let again = quick("again");
    let mut build = farm.start_build(again.path(), &[]);
    build.until("it waits for the worker", |event| waits(event, "`one` was last seen"));
    farm.start_worker("one");
    build.end().well();
    // The wait has a configurable limit, and a platform that no worker has is refused at once.
    assert_eq!(farm.stop_worker("one"), Some(0));
    let late = farm.build(dir.path(), &["--queue-timeout", "1s", "--no-cache"]);
    assert!(late.0.code == 3 && late.message().contains("--queue-timeout"), "{late:?}");
    farm.start_worker("one");
    farm.wait_for_worker("one");
    let other = if cfg!(target_arch = "x86_64") { "linux/arm64" } else { "linux/amd64" };
    let refused = farm.build(dir.path(), &["--platform", other]);
    assert!(refused.0.code == 3 && refused.of_type("waiting").is_empty(), "{refused:?}");
}

#[test]
fn whoever_waits_behind_another_build_is_told_which_and_a_drained_worker_is_named() {
    let farm = Farm::start(&[]);
    farm.start_worker_with("one", &["--cpus", "1"]);
    farm.wait_for_worker("one");
    let gate = tempfile::tempdir().unwrap();
    let file = gate.path().join("open");
    let first = project(&[("kiln.toml", &until_file(&file, "first"))]);
    let mut first = farm.start_build(first.path(), &[]);
    first.started("wait");
    let second = quick("second");
    let mut second = farm.start_build(second.path(), &[]);
    let waiting = second.until("it waits behind the first", |event| waits(event, "capacity on worker `one`"));
    let what = waiting["what"].as_str().unwrap();
    assert!(what.contains("(first, by"), "expected the build that holds the worker: {what}");
    // All builds of a user end together; a drained worker accepts no more.
    let user = json(farm.kiln(&["builds", "--json"]))[0]["user"].as_str().unwrap().to_owned();
    assert_eq!(farm.kiln(&["farm", "drain", "one"]).code, 0);
    let cancelled = farm.kiln(&["cancel", "--user", &user]);
    assert!(cancelled.code == 0 && cancelled.err.matches("cancelling").count() == 2, "{cancelled:?}");
    assert_eq!((first.end().0.code, second.end().0.code), (130, 130));
    let third = quick("third");
    let mut third = farm.start_build(third.path(), &[]);
    third.until("it waits for the drained worker", |event| waits(event, "`one` is draining"));
    let listed = json(farm.kiln(&["farm", "list", "--json"]));
    assert_eq!((&listed[0]["name"], &listed[0]["state"]), (&"one".into(), &"draining".into()));
    // Draining survives a restart of the coordinator.
    farm.restart_coordinator();
    until("the worker to come back and be drained", || {
        farm.workers().iter().any(|worker| worker["state"] == "draining").then_some(())
    });
    assert_eq!(farm.kiln(&["farm", "undrain", "one"]).code, 0);
    third.end().well();
    assert_ne!(farm.kiln(&["farm", "drain", "nobody"]).code, 0);
}

#[test]
fn a_build_whose_kiln_was_killed_is_interrupted_and_does_not_hold_up_the_next() {
    let cache = tempfile::tempdir().unwrap();
    let gate = tempfile::tempdir().unwrap();
    let kiln = |arguments: &[&str], dir: &std::path::Path| {
        let mut command = Farm::shared().command(arguments);
        command.env_remove("KILN_FARM").env("XDG_CACHE_HOME", cache.path()).current_dir(dir);
        command
    };
    let killed = project(&[("kiln.toml", &until_file(&gate.path().join("never"), "killed"))]);
    let mut running = Running::start(kiln(&["build", "--progress", "json"], killed.path()));
    running.started("wait");
    running.kill();
    let next = quick("next");
    Built(Ran::from(kiln(&["build", "--progress", "json"], next.path()))).well();
    let builds = json(Ran::from(kiln(&["builds", "--json"], next.path())));
    let of =
        |project: &str| builds.as_array().unwrap().iter().find(|build| build["project"] == project).unwrap().clone();
    assert_eq!(of("next")["status"], "success");
    assert_eq!(of("killed")["status"], "cancelled");
    assert!(of("killed")["message"].as_str().unwrap().contains("interrupted"), "{builds}");
}

#[test]
fn pruning_removes_from_the_disk_what_it_says() {
    let farm = Farm::start(&["one"]);
    let text = "name = \"large\"\n[steps.make]\nrun = \"head -c 3000000 /dev/urandom > out\"\noutputs = [\"out\"]\n\
                [steps.use]\nneeds = [\"make\"]\nrun = \"wc -c < out > size\"\noutputs = [\"size\"]\n\
                [artifacts.size]\nfrom = \"use\"\nfiles = [\"size\"]\nkind = \"archive\"\n";
    let dir = project(&[("kiln.toml", text)]);
    farm.build(dir.path(), &[]).well();
    let on_disk = || size_of(&farm.dir.path().join("coordinator/blobs"));
    // The farm's messages about the steps are in the store as well, a moment after the build's end.
    let listed = || json(farm.kiln(&["cache", "list", "--json"])).as_array().map_or(0, Vec::len);
    until("both steps to be recorded", || (listed() == 2).then_some(()));
    let before = on_disk();
    let pruned = json(farm.kiln(&["cache", "prune", "--older-than", "0s", "--json"]));
    let freed = pruned["freed_bytes"].as_u64().unwrap();
    assert!(freed >= 3_000_000 && freed >= pruned["freeable_bytes"].as_u64().unwrap(), "{pruned}");
    // Small blobs lie together in files, whose blocks are given back.
    let small = freed - 3_000_000;
    assert!((freed - small..=freed).contains(&(before - on_disk())), "{} of {freed}", before - on_disk());
    farm.build(dir.path(), &[]).well();
}

#[test]
fn who_built_is_the_authenticated_name_and_a_revoked_persons_builds_are_cancelled() {
    let guarded = Guarded::start(&[]);
    guarded.worker("one");
    let ann = certificate(&guarded.dir(), "ann", &["--role", "builder"]);
    let gate = tempfile::tempdir().unwrap();
    let dir = project(&[("kiln.toml", &until_file(&gate.path().join("never"), "hers"))]);
    let arguments = ["build", "--progress", "json", dir.path().to_str().unwrap()];
    let mut command = guarded.as_other(access(&guarded.dir(), Some(&ann)), &arguments);
    command.env("USER", "mallory");
    let mut build = Running::start(command);
    build.started("wait");
    let admin = access(&guarded.dir(), Some(&guarded.dir().join("people/admin")));
    let hers = || well(guarded.ran(admin.clone(), &["builds", "--json"]));
    let first = |text: String| serde_json::from_str::<Value>(&text).unwrap()[0].clone();
    assert_eq!(first(hers())["user"], "ann", "expected the name of the certificate");
    let farm_dir = guarded.dir().display().to_string();
    let unknown = local(&["farm", "revoke", "annn", "--farm-dir", &farm_dir]);
    refused(&unknown, 2, "nobody on this farm is named `annn`");
    guarded.make(&["revoke", "ann"]);
    build.end();
    until("her build to be cancelled", || (first(hers())["status"] == "cancelled").then_some(()));
    assert!(first(hers())["message"].as_str().unwrap().contains("has been revoked"));
    let list = well(local(&["farm", "list", "--json", "--farm-dir", &farm_dir]));
    let list: Value = serde_json::from_str(&list).unwrap();
    let of =
        |kind: &str| list.as_array().unwrap().iter().find(|row| row["kind"] == kind && row["name"] == "ann").cloned();
    assert_eq!(of("certificate").unwrap()["state"], "revoked");
    assert!(of("revoked").is_some());
    refused(&guarded.ran(access(&guarded.dir(), Some(&ann)), &["builds"]), 2, "has been revoked");
    guarded.make(&["unrevoke", "ann"]);
    until("her access to be restored", || {
        (guarded.ran(access(&guarded.dir(), Some(&ann)), &["builds"]).code == 0).then_some(())
    });
    refused(&local(&["farm", "unrevoke", "ann", "--farm-dir", &farm_dir]), 2, "is not revoked");
}
