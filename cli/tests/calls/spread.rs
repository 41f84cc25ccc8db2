//! Calls that run on other workers than their step.

use kiln_harness::bases::gcc_layout;
use kiln_harness::{Farm, copy, project, until, write};

use super::faults::endless;
use super::project::{Gate, calls, config, outputs};

/// A C++ project whose files take long to compile, for as many compilers at once as the farm has room for. The header is made by the step.
fn slow(name: &str, files: usize, more: &str) -> tempfile::TempDir {
    let run = "printf '#define MADE 1\\n' > made.h; make -s -j${KILN_JOBS:-2} && mkdir out && cp obj/* out && echo jobs $KILN_JOBS";
    let makefile = "OBJECTS = $(patsubst src/%.cc,obj/%.o,$(sort $(wildcard src/*.cc)))\n\
        all: $(OBJECTS)\n\
        obj/%.o: src/%.cc\n\t@mkdir -p obj empty\n\tc++ -Wall -Iempty -Iinclude -I. -MMD -c -o $@ $<\n";
    let dir = project(&[
        ("kiln.toml", &config(name, run, &format!("cpus = 1\n{more}"))),
        ("Makefile", makefile),
        ("include/own.h", "#define OWN 3\n"),
    ]);
    for number in 0..files {
        let text = format!(
            "// {name}\n#include <map>\n#include <string>\n#include <regex>\n#include \"own.h\"\n#include <made.h>\n\
             int f{number}(std::string text) {{ int unused; std::map<std::string, int> all; all[text] = OWN + MADE;\n\
             return std::regex_match(text, std::regex(\"a+{number}\")) + all.size(); }}\n"
        );
        write(dir.path(), &format!("src/f{number}.cc"), &text);
    }
    dir
}

fn farm_of(workers: usize) -> Farm {
    let farm = Farm::start(&[]);
    for number in 0..workers {
        farm.start_worker_with(&format!("vm{number}"), &["--cpus", "1"]);
    }
    (0..workers).for_each(|number| farm.wait_for_worker(&format!("vm{number}")));
    farm
}

#[test]
fn calls_run_on_workers_that_are_free_and_come_out_the_same() {
    let farm = farm_of(3);
    // What the step makes is not new to the farm, which others gave it to.
    let known = project(&[("kiln.toml", &config("known", "cp -r made.h out", "")), ("made.h", "#define MADE 1\n")]);
    farm.build(known.path(), &[]).well();
    let dir = slow("spread", 8, "");
    let built = farm.build(dir.path(), &[]).well();
    let calls = calls(&built, "build");
    assert!(calls.elsewhere >= 2 && calls.compiled >= 1, "{calls:?}");
    assert_eq!((calls.hits, calls.compiled + calls.elsewhere, calls.refused.len()), (0, 8, 0), "{calls:?}");
    let log = built.log();
    assert!(log.contains("jobs 3"), "expected one place here and two elsewhere: {log}");
    assert_eq!(log.matches("unused variable").count(), 8, "{log}");
    let spread = outputs(dir.path());

    let plain = slow("spread", 8, "split = false");
    farm.build(plain.path(), &[]).well();
    assert_eq!(outputs(plain.path()), spread);

    let cached = slow("not_spread", 2, "split = \"cache\"");
    let built = farm.build(cached.path(), &[]).well();
    let calls = self::calls(&built, "build");
    assert_eq!((calls.compiled, calls.elsewhere), (2, 0), "{calls:?}");
    assert!(built.log().contains("jobs 1"), "{}", built.log());
}

#[test]
fn calls_of_a_step_in_an_image_run_on_other_workers_in_the_same_root() {
    let Some(base) = gcc_layout() else { return };
    let in_image = |more: &str| {
        let run = "printf '#define MADE 1\\n' > made.h; for n in 1 2 3 4 5 6 7 8; do gcc -O2 -I. -c s$n.c -o s$n.o & done; wait\n\
            mkdir out; cp *.o out; echo jobs $KILN_JOBS";
        let more = format!("image = \"./base\"\ncpus = 1\n{more}");
        let dir = project(&[("kiln.toml", &config("spread-in-image", run, &more))]);
        copy(base, &dir.path().join("base"));
        for number in 1..=8 {
            // Many functions, so that a call takes a while.
            let function = |at: usize| format!("int f{at}(int x) {{ return x * {at} + MADE + {number}; }}\n");
            let functions: String = (0..3000).map(function).collect();
            write(dir.path(), &format!("s{number}.c"), &format!("#include <stdio.h>\n#include <made.h>\n{functions}"));
        }
        dir
    };
    let farm = farm_of(3);
    let dir = in_image("");
    let built = farm.build(dir.path(), &["--executor", "sandbox"]).well();
    let calls = calls(&built, "build");
    assert!(calls.elsewhere >= 2 && calls.compiled >= 1, "{calls:?}");
    assert_eq!((calls.hits, calls.compiled + calls.elsewhere, calls.refused.len()), (0, 8, 0), "{calls:?}");
    let spread = outputs(dir.path());
    let plain = in_image("split = false");
    farm.build(plain.path(), &["--executor", "sandbox"]).well();
    assert!(outputs(plain.path()) == spread, "expected the same outputs without splitting");
}

#[test]
fn a_step_does_without_a_worker_that_is_lost_and_without_the_coordinator() {
    let farm = farm_of(3);
    let dir = slow("chaos", 9, "");
    let mut running = farm.start_build(dir.path(), &[]);
    let worker = running.started("build")["worker"].as_str().unwrap().to_owned();
    let others: Vec<String> = (0..3).map(|number| format!("vm{number}")).filter(|name| *name != worker).collect();
    until("a call to run elsewhere", || others.iter().any(|name| runs(&farm, name)).then_some(()));
    farm.kill_worker(&others[0]);
    running.until("some calls", |event| event["text"].as_str().is_some_and(|text| text.contains("unused variable")));
    farm.restart_coordinator();
    let built = running.end().well();
    let calls = calls(&built, "build");
    let all: u64 = calls.compiled + calls.elsewhere + calls.hits + calls.refused.values().sum::<u64>();
    assert!(all == 9 && calls.refused.is_empty(), "{calls:?}");
    let with = outputs(dir.path());
    let plain = slow("chaos", 9, "split = false");
    farm.build(plain.path(), &[]).well();
    assert_eq!(outputs(plain.path()), with);
}

#[test]
fn a_step_that_a_new_coordinator_adopted_spreads_its_calls_over_the_workers_that_join_it() {
    let farm = farm_of(2);
    let gate = Gate::new();
    let dir = slow("adopted", 8, "");
    let text = std::fs::read_to_string(dir.path().join("kiln.toml")).unwrap();
    write(dir.path(), "kiln.toml", &text.replace("make -s", &format!("{}; make -s", gate.wait())));
    let mut running = farm.start_build(dir.path(), &[]);
    let worker = running.started("build")["worker"].as_str().unwrap().to_owned();
    let other = if worker == "vm0" { "vm1" } else { "vm0" };
    // It has been told how many compilers it may call at once.
    gate.reached();
    farm.kill_worker(other);
    farm.restart_coordinator();
    until("the step to be adopted", || runs(&farm, &worker).then_some(()));
    farm.start_worker_with("late", &["--cpus", "1"]);
    farm.wait_for_worker("late");
    gate.open();
    let built = running.end().well();
    let finished = built.of_type("step_finished").into_iter().find(|event| event["step"] == "build").unwrap();
    assert_eq!(finished["worker"], worker, "expected the step to have gone on: {finished}");
    let calls = calls(&built, "build");
    assert!(calls.elsewhere >= 2 && calls.compiled >= 1, "{calls:?}");
    assert_eq!((calls.hits, calls.compiled + calls.elsewhere, calls.refused.len()), (0, 8, 0), "{calls:?}");
    let spread = outputs(dir.path());
    let plain = slow("adopted", 8, "split = false");
    farm.build(plain.path(), &[]).well();
    assert!(outputs(plain.path()) == spread, "expected the same outputs without splitting");
}

#[test]
fn when_all_workers_are_full_of_steps_each_step_goes_on_in_its_own_places() {
    let farm = farm_of(2);
    let dirs: Vec<_> = (0..2).map(|number| slow(&format!("full{number}"), 3, "")).collect();
    let mut running: Vec<_> = dirs.iter().map(|dir| farm.start_build(dir.path(), &[])).collect();
    for one in &mut running {
        one.started("build");
    }
    for one in running {
        let built = one.end().well();
        let calls = calls(&built, "build");
        assert_eq!((calls.compiled + calls.elsewhere, calls.refused.len()), (3, 0), "{calls:?}");
    }
}

#[test]
fn a_step_that_is_cancelled_withdraws_its_calls_everywhere() {
    let farm = farm_of(2);
    let run = "mkdir out; for n in 1 2 3 4; do cc -c withdrawn$n.c -o out/e$n.o & done; wait";
    let dir = project(&[("kiln.toml", &config("withdrawn", run, "cpus = 1"))]);
    for number in 1..=4 {
        let name = format!("withdrawn{number}.c");
        write(dir.path(), &name, &endless(&name));
    }
    let mut running = farm.start_build(dir.path(), &[]);
    running.started("build");
    until("both workers to run something", || (0..2).all(|number| runs(&farm, &format!("vm{number}"))).then_some(()));
    running.interrupt();
    running.end();
    until("nothing to run any more", || (0..2).all(|number| !runs(&farm, &format!("vm{number}"))).then_some(()));
}

fn runs(farm: &Farm, worker: &str) -> bool {
    let workers = farm.workers();
    workers.iter().any(|one| one["worker"] == worker && one["running"].as_u64().unwrap_or_default() > 0)
}

#[test]
fn links_run_in_the_places_of_their_step_and_a_compiler_that_calls_another_does_not_wait_for_itself() {
    let farm = farm_of(2);
    // Each link says how many of its kind run. The first program is a compiler's name for a script that calls the compiler.
    let run = "mkdir out bin; printf '#!/bin/sh\\nexec cc \"$@\"\\n' > bin/gcc; chmod +x bin/gcc\n\
        cc -c one.c -o one.o; export PATH=/kiln/call/bin:$PWD/bin:$PATH\n\
        gcc one.o -o out/nested\n\
        for n in 1 2 3 4; do cc one.o -o out/l$n & done; wait; echo jobs $KILN_JOBS";
    let dir = project(&[
        ("kiln.toml", &config("links", run, "cpus = 1")),
        ("one.c", "int main(void) { return 0; } // links\n"),
    ]);
    let built = farm.build(dir.path(), &[]).well();
    assert!(built.log().contains("jobs 2"), "{}", built.log());
    let refused = calls(&built, "build").refused;
    assert_eq!(
        refused.get("link").copied(),
        Some(6),
        "the script's own call and the compiler's, and four: {refused:?}"
    );
    assert_eq!(outputs(dir.path()).len(), 5);
}
