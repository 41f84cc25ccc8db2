//! Messages for steps that do not form a valid build.

use insta::assert_snapshot;

use super::{planned, refused};

fn kiln(text: &str) -> String {
    refused(&[("kiln.toml", text)])
}

#[test]
fn an_empty_project_and_an_empty_plan_are_refused() {
    assert_snapshot!(refused(&[]), @"the project is empty: there is no file to build from");
    assert_snapshot!(kiln("detect = false"), @"the plan has no step: add one as `[steps.NAME]` with a `run`");
    assert_snapshot!(refused(&[("notes.txt", "")]), @"nothing here says how to build this project (found `notes.txt`): expected a manifest that describes a project, such as `Cargo.toml`, `go.mod`, `pom.xml`, `package.json`, `deno.json`, `pyproject.toml`, `Gemfile`, `composer.json`, `build.zig`, `CMakeLists.txt`, `meson.build` or `Makefile`, or a `kiln.toml`");
}

#[test]
fn a_cycle_is_named() {
    assert_snapshot!(kiln(
        "[steps.a]\nrun = \"x\"\nneeds = [\"b\"]\n[steps.b]\nrun = \"x\"\nneeds = [\"c\"]\n\
         [steps.c]\nrun = \"x\"\nneeds = [\"b\"]"
    ), @"steps form a cycle: `b` needs `c` needs `b`: remove one of these `needs`");
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\nneeds = [\"a\"]"), @"steps form a cycle: `a` needs `a`: remove one of these `needs`");
}

#[test]
fn an_unknown_step_names_the_nearest() {
    assert_snapshot!(kiln("[steps.compile]\nrun = \"x\"\n[steps.test]\nrun = \"x\"\nneeds = [\"complie\"]"), @"step `test` needs unknown step `complie`: did you mean `compile`?");
    assert_snapshot!(kiln("[steps.test]\nrun = \"x\"\nneeds = [\"z\"]"), @"step `test` needs unknown step `z`: there are no others");
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\noutputs = [\"o\"]\n[artifacts.z]\nfrom = \"b\"\nfiles = [\"o\"]"), @"artifact `z` is from unknown step `b`: did you mean `a`?");
}

#[test]
fn outputs_stay_in_the_tree_and_apart() {
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\noutputs = [\"/etc/passwd\"]"), @"step `a` has `/etc/passwd` in `outputs`, which is absolute: expected a path relative to the project's root");
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\noutputs = [\"a/../../b\"]"), @"step `a` has `a/../../b` in `outputs`, which leaves the tree by `..`: expected a path relative to the project's root");
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\noutputs = [\".\"]"), @"step `a` has `.` in `outputs`, which names no file: expected a path relative to the project's root");
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\ninputs = [\"../other\"]"), @"step `a` has `../other` in `inputs`, which leaves the tree by `..`: expected a path relative to the project's root");
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\noutputs = [\"o\", \"o/p\"]"), @"step `a` names the output `o` twice: name it once");
    assert_snapshot!(
        kiln("[steps.a]\nrun = \"x\"\noutputs = [\"o\"]\n[steps.b]\nrun = \"x\"\noutputs = [\"o/p\"]"), @"steps `a` and `b` both write `o/p`, and neither needs the other: give one another output, or name it in the other's `needs`"
    );
}

#[test]
fn steps_whose_outputs_never_meet_may_write_the_same_path() {
    let two = "[steps.a]\nrun = \"x\"\noutputs = [\"o\"]\n[steps.b]\nrun = \"x\"\noutputs = [\"o\"]\n";
    let artifact = |name: &str, from: &str| format!("[artifacts.{name}]\nfrom = {from}\nfiles = [\"o\"]\n");
    let apart = format!("{two}{}{}", artifact("a", "\"a\""), artifact("b", "\"b\""));
    assert_eq!(planned(&[("kiln.toml", &apart)]).artifacts.len(), 2);
    let refused = |more: &str| {
        let words = kiln(&format!("{two}{more}"));
        assert!(words.starts_with("steps `a` and `b` both write `o`"), "{words}");
    };
    refused(&artifact("a", "[\"a\", \"b\"]"));
    refused(&artifact("a", "\"a\""));
    refused("[steps.c]\nrun = \"x\"\nneeds = [\"a\", \"b\"]\n");
    refused("[steps.c]\nrun = \"x\"\nneeds = [\"a\"]\n[steps.d]\nrun = \"x\"\nneeds = [\"b\", \"c\"]\n");
}

#[test]
fn a_step_may_write_over_what_it_needs() {
    let plan = planned(&[(
        "kiln.toml",
        "[steps.a]\nrun = \"x\"\noutputs = [\"o\"]\n[steps.b]\nrun = \"x\"\nneeds = [\"a\"]\noutputs = [\"o/p\"]",
    )]);
    assert_eq!(plan.steps.len(), 2);
}

#[test]
fn names_globs_and_variables_are_held_to_their_form() {
    assert_snapshot!(kiln("[steps.Compile]\nrun = \"x\""), @"invalid step name `Compile`: expected lower-case letters, digits, `-` and `_`");
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\ninputs = [\"a[\"]"), @"step `a` has the pattern `a[` in `inputs`, which cannot be read: unclosed character class; missing ']'");
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\nenv = { KILN_SHARD = \"1\" }"), @"step `a` sets `KILN_SHARD`, but variables that start with `KILN_` are the farm's own");
}

#[test]
fn an_artifact_takes_only_outputs_of_its_steps() {
    let step = "[steps.a]\nrun = \"x\"\noutputs = [\"out\"]\n";
    assert_snapshot!(kiln(&format!("{step}[artifacts.z]\nfrom = \"a\"\nfiles = [\"target/z\"]")), @"artifact `z` takes `target/z`, which is not an output of `a`: their outputs are `out`");
    assert_snapshot!(
        kiln(&format!("{step}[artifacts.z]\nfrom = \"a\"\nfiles = [{{ path = \"out/z\", dest = \"../z\" }}]")), @"artifact `z` puts a file at `../z`, which leaves the tree by `..`: expected a path inside the artifact"
    );
    planned(&[("kiln.toml", &format!("{step}[artifacts.z]\nfrom = \"a\"\nfiles = [\"out/*.jar\", \"out\"]"))]);
}

#[test]
fn secrets_are_named_as_variables_are_and_once() {
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\nsecrets = [\"A-B\"]"), @"step `a` asks for the secret `A-B`, which cannot name a variable: expected letters, digits and `_`, no digit first");
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\nsecrets = [\"KILN_X\"]"), @"step `a` asks for the secret `KILN_X`, but variables that start with `KILN_` are the farm's own");
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\nenv = { A = \"1\" }\nsecrets = [\"A\"]"), @"step `a` asks for the secret `A`, which it also has in `env`: leave one out");
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\nsecrets = [\"A\", \"A\"]"), @"step `a` asks for the secret `A`, twice: name it once");
}

#[test]
fn reports_retries_and_shards_are_of_use() {
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\nreports = [\"junit.xml\"]"), @r#"step `a` has no `outputs`, so nothing is kept that `junit.xml` in `reports` could name: add what its tests write to `outputs`, or give `reports = ["-"]`, which reads what `cargo test`, `go test` and `ctest` print"#);
    assert_snapshot!(kiln("[steps.a]\nrun = \"x\"\nretries = 2"), @r#"step `a` has `retries` but no `reports`, so which of its tests fail is unknown: add `reports`, such as `reports = ["-"]` for `cargo test`, `go test` and `ctest`"#);
    assert_snapshot!(kiln("[steps.a]\nrun = \"cargo test\"\nshards = \"auto\""), @r#"step `a` has `shards = "auto"` but no `reports`, so what its tests take is unknown: add `reports`, or give `shards` a number"#);
    assert_snapshot!(kiln("[steps.a]\nrun = \"./run-tests\"\nshards = 4"), @"step `a` has `shards`, but each would run all tests: Kiln divides those of `cargo test`, `cargo nextest run`, `go test`, `pytest`, `python3 -m unittest`, `jest`, `vitest run`, `node --test`, `ctest` when `run` starts one of them alone; another command divides them itself, as in `./run-tests --shard $KILN_SHARD/$KILN_SHARDS`, or `KILN_SHARD=$KILN_SHARD ./run-tests` if that reads the variable");
    // A runner that is known, variables, and one shard.
    for keys in [
        "run = \"go test ./...\"\nshards = \"auto\"\nreports = [\"-\"]",
        "run = \"./run-tests $TEST_SHARD_INDEX\"\nshards = 4",
        "run = \"KILN_SHARD=$KILN_SHARD ./run-tests\"\nshards = 4",
        "run = \"./run-tests\"\nshards = 1",
    ] {
        assert_eq!(planned(&[("kiln.toml", &format!("[steps.a]\n{keys}"))]).steps.len(), 1, "{keys}");
    }
}
