//! Calls whose result was known and that are compiled again, on farms whose workers verify every one.

use std::collections::BTreeMap;

use kiln_harness::{Built, Farm, project, write};

use super::project::{c_project, calls, config, outputs};
use super::rust::{APP, LEAF, workspace};

fn farm() -> Farm {
    let farm = Farm::start(&[]);
    farm.start_worker_with("one", &["--verify-calls", "100%"]);
    farm.wait_for_worker("one");
    farm
}

/// What came of the step's calls that were compiled again.
fn verified(built: &Built) -> BTreeMap<String, u64> {
    let finished = built.of_type("step_finished").into_iter().find(|event| event["step"] == "build").unwrap();
    let verified = finished["calls"]["verified"].as_object().cloned().unwrap_or_default();
    verified.into_iter().map(|(verdict, count)| (verdict, count.as_u64().unwrap())).collect()
}

fn all_equal(count: u64) -> BTreeMap<String, u64> {
    [("equal".to_owned(), count)].into()
}

#[test]
fn what_is_known_of_c_cpp_and_rust_is_what_their_compilers_make_again() {
    let farm = farm();
    let c = c_project("verified", "");
    assert_eq!(verified(&farm.build(c.path(), &[]).well()), BTreeMap::new(), "there was nothing to verify");
    write(c.path(), "src/f2.c", "int f2(int x) { return x; } // verified\n");
    assert_eq!(verified(&farm.build(c.path(), &[]).well()), all_equal(6));

    let source = |n: u32| {
        format!(
            "#include <map>\n#include <string>\nstd::map<std::string, int> cpp_{n}() {{ return {{{{\"{n}\", {n}}}}}; }}\n"
        )
    };
    let cpp = |round: &str| {
        let run = format!(
            "mkdir out; for n in 1 2 3; do g++ -O2 -g -MD -c f$n.cc -o out/f$n.o || exit 1; done; echo {round}"
        );
        let dir = project(&[("kiln.toml", &config("verified-cpp", &run, ""))]);
        (1..=3).for_each(|n| write(dir.path(), &format!("f{n}.cc"), &source(n)));
        dir
    };
    farm.build(cpp("one").path(), &[]).well();
    assert_eq!(verified(&farm.build(cpp("two").path(), &[]).well()), all_equal(3));

    farm.build(workspace("verified-rust", APP, LEAF).path(), &[]).well();
    let edited = farm.build(workspace("verified-rust", &format!("{APP}// edited\n"), LEAF).path(), &[]).well();
    assert_eq!(verified(&edited), all_equal(calls(&edited, "build").hits));
    assert!(calls(&edited, "build").hits >= 4);
}

#[test]
fn a_compiler_that_makes_something_else_each_time_is_counted_and_its_results_are_kept() {
    let farm = farm();
    // gcc gives the file for the counters a name of random digits.
    let coverage = |round: &str| {
        let run = format!("mkdir out; cc --coverage -c one.c -o out/one.o; echo {round}");
        project(&[("kiln.toml", &config("coverage", &run, "")), ("one.c", "int coverage(void) { return 1; }\n")])
    };
    farm.build(coverage("one").path(), &[]).well();
    for round in ["two", "three"] {
        let ran = farm.build(coverage(round).path(), &[]).well();
        assert_eq!(calls(&ran, "build").hits, 1);
        assert_eq!(verified(&ran), [("unreproducible".to_owned(), 1)].into());
    }
}

#[test]
fn a_wrong_result_is_found_out_removed_and_never_used_again() {
    let farm = farm();
    // What no key can have: the macro reads from the kernel how much shared memory its job has, and that depends on the step.
    let mac = "use proc_macro::TokenStream;\n#[proc_macro]\npub fn shared(_: TokenStream) -> TokenStream {\n\
        let mounts = std::fs::read_to_string(\"/proc/self/mounts\").unwrap();\n\
        let line = mounts.lines().find(|line| line.contains(\" /dev/shm \")).unwrap();\n\
        let size = line.split_once(\"size=\").unwrap().1.split('k').next().unwrap();\n\
        format!(\"{size}u64\").parse().unwrap() }\n";
    let program = "fn main() { println!(\"{}\", shared::shared!()); }\n";
    let build = |memory: &str, round: &str| {
        let run = format!(
            "mkdir out made\n\
            kiln-call rustc --crate-name shared --edition=2021 shared.rs --crate-type proc-macro --extern proc_macro --emit=link --out-dir made\n\
            kiln-call rustc --crate-name says --edition=2021 says.rs --crate-type bin --emit=link --extern shared=made/libshared.so --out-dir made\n\
            made/says > out/said; echo {round}"
        );
        let dir = project(&[
            ("kiln.toml", &config("wrong-result", &run, &format!("memory = \"{memory}\""))),
            ("shared.rs", mac),
            ("says.rs", program),
        ]);
        let ran = farm.build(dir.path(), &[]).well();
        (ran, String::from_utf8(outputs(dir.path())["said"].clone()).unwrap())
    };
    let (ran, said) = build("1GiB", "one");
    assert_eq!((calls(&ran, "build").compiled, &said[..]), (2, "524288\n"));
    // The same call with another answer. The step that was given the wrong one runs again.
    let (ran, said) = build("2GiB", "two");
    assert_eq!(said, "1048576\n");
    assert_eq!(calls(&ran, "build").refused.get("barred"), Some(&1), "{:?}", calls(&ran, "build"));
    assert!(farm.log("one").contains("a compiler call's result was wrong"));
    // Another worker, which has not seen that itself.
    farm.start_worker_with("two", &["--verify-calls", "0"]);
    farm.wait_for_worker("two");
    assert_eq!(farm.stop_worker("one"), Some(0));
    let (ran, said) = build("1GiB", "three");
    assert_eq!((calls(&ran, "build").refused.get("barred"), &said[..]), (Some(&1), "524288\n"));
}
