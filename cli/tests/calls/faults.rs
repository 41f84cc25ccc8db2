//! Processes that go away while calls are under way.

use kiln_harness::{Farm, project, until, write};

use super::project::{config, counts, outputs};

fn slow(name: &str) -> tempfile::TempDir {
    let run =
        "mkdir out; for n in 1 2 3 4 5 6; do cc -O1 -c f$n.c -o out/f$n.o || exit 1; echo done $n; sleep 0.3; done";
    let dir = project(&[("kiln.toml", &config(name, run, ""))]);
    for number in 1..=6 {
        write(
            dir.path(),
            &format!("f{number}.c"),
            &format!("#include <stdio.h>\nint {}_{number};\n", name.replace('-', "_")),
        );
    }
    dir
}

#[test]
fn a_step_goes_on_while_the_coordinator_is_away_and_comes_out_the_same() {
    let farm = Farm::start(&["one"]);
    let dir = slow("away");
    let mut running = farm.start_build(dir.path(), &[]);
    running.until("the first call", |event| event["text"].as_str().is_some_and(|text| text.contains("done 2")));
    farm.restart_coordinator();
    let built = running.end().well();
    let (hits, compiled) = counts(&built);
    assert!(hits + compiled >= 2, "{hits} {compiled}");
    let with = outputs(dir.path());
    let plain = slow("away");
    let toml = std::fs::read_to_string(plain.path().join("kiln.toml")).unwrap();
    write(plain.path(), "kiln.toml", &toml.replace("outputs =", "split = false\noutputs ="));
    farm.build(plain.path(), &[]).well();
    assert_eq!(outputs(plain.path()), with);
}

#[test]
fn a_step_whose_worker_is_lost_runs_elsewhere_and_finds_what_was_kept() {
    let farm = Farm::start(&["one", "two"]);
    let dir = slow("lost");
    let mut running = farm.start_build(dir.path(), &[]);
    let worker = running.started("build")["worker"].as_str().unwrap().to_owned();
    running.until("some calls", |event| event["text"].as_str().is_some_and(|text| text.contains("done 4")));
    farm.kill_worker(&worker);
    let built = running.end().well();
    let (hits, compiled) = counts(&built);
    assert!(hits >= 2 && hits + compiled == 6, "{hits} hits, {compiled} compiled");
}

/// A source with this name over which a compiler takes hours: it includes itself twice, and again twice.
pub(crate) fn endless(name: &str) -> String {
    format!("#if __INCLUDE_LEVEL__ < 60\n#include \"{name}\"\n#include \"{name}\"\n#endif\n")
}

#[test]
fn a_cancelled_build_leaves_no_call_running() {
    let farm = Farm::start(&["one"]);
    let run = "mkdir out; for n in 1 2 3 4; do cc -c endless.c -o out/endless.o & done; wait";
    let dir = project(&[("kiln.toml", &config("endless", run, "")), ("endless.c", &endless("endless.c"))]);
    let mut running = farm.start_build(dir.path(), &[]);
    running.started("build");
    let compilers = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines
            .filter(|line| {
                line.windows(5).any(|part| part == b"cc1\0-") || line.windows(9).any(|part| part == b"endless.c")
            })
            .count()
    };
    until("a call to run", || (compilers() > 0).then_some(()));
    running.interrupt();
    running.end();
    until("all calls to have ended", || (compilers() == 0).then_some(()));
}
