//! `kiln test`: which steps it runs, and how a project's own tests become steps.

use super::{options, planned, tree};
use crate::plan::{PRINTED, Plan, Scope, Step, plan_for, to_kiln_toml};

fn scoped(files: &[(&str, &str)], scope: Scope) -> Result<Plan, String> {
    plan_for(&tree(files), &options(), scope).map_err(|error| error.to_string())
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.name.as_str()).collect()
}

/// The last step of a project's tests, which runs them. Asserts what must hold for all: an ordinary build has no test
/// step, and what `kiln init` writes gives the same tests.
fn test_step(files: &[(&str, &str)]) -> Step {
    assert!(planned(files).steps.iter().all(|step| !step.test), "expected no test step in a build");
    let tests = scoped(files, Scope::Tests).unwrap();
    assert!(tests.artifacts.is_empty());
    let mut with = files.to_vec();
    let text = to_kiln_toml(&scoped(files, Scope::All).unwrap());
    with.push(("kiln.toml", &text));
    assert_eq!(scoped(&with, Scope::Tests).unwrap().steps, tests.steps);
    assert_eq!(planned(&with).steps, planned(files).steps);
    tests.steps.into_iter().last().unwrap()
}

const WRITTEN: &str = r#"
[steps.generate]
run = "./generate"
outputs = ["gen"]
[steps.build]
needs = ["generate"]
run = "make"
outputs = ["app"]
[steps.fixtures]
run = "./fixtures"
outputs = ["fixtures"]
test = true
[steps.unit]
needs = ["generate", "fixtures"]
run = "./unit"
test = true
[artifacts.app]
from = "build"
files = ["app"]
"#;

#[test]
fn a_build_leaves_test_steps_out_and_a_test_runs_them_with_what_they_need() {
    let files = [("kiln.toml", WRITTEN)];
    let build = scoped(&files, Scope::Build).unwrap();
    assert_eq!((names(&build), build.artifacts.len()), (vec!["generate", "build"], 1));
    let tests = scoped(&files, Scope::Tests).unwrap();
    assert_eq!((names(&tests), tests.artifacts.len()), (vec!["generate", "fixtures", "unit"], 0));
    assert_eq!(names(&scoped(&files, Scope::All).unwrap()), ["generate", "build", "fixtures", "unit"]);
}

#[test]
fn a_test_step_that_a_build_needs_is_part_of_it() {
    let gated = WRITTEN.replace("needs = [\"generate\"]\nrun = \"make\"", "needs = [\"unit\"]\nrun = \"make\"");
    let build = scoped(&[("kiln.toml", &gated)], Scope::Build).unwrap();
    assert_eq!(names(&build), ["generate", "fixtures", "unit", "build"]);
}

#[test]
fn a_project_without_tests_or_with_nothing_else_is_told_so() {
    let none = scoped(&[("kiln.toml", "[steps.a]\nrun = \"true\"\n")], Scope::Tests).unwrap_err();
    assert!(none.contains("no test steps") && none.contains("test = true"), "{none}");
    let only = scoped(&[("kiln.toml", "[steps.a]\nrun = \"true\"\ntest = true\n")], Scope::Build).unwrap_err();
    assert!(only.contains("`kiln test`"), "{only}");
}

#[test]
fn cargo_tests_have_a_dependency_layer_of_their_own() {
    let manifest = "[package]\nname = \"shop\"\nversion = \"1.0.0\"\n[dependencies]\nanyhow = \"1\"\n";
    let lock = "version = 4\n[[package]]\nname = \"anyhow\"\nversion = \"1.0.0\"\n\
                source = \"registry+https://github.com/rust-lang/crates.io-index\"\n\
                [[package]]\nname = \"shop\"\nversion = \"1.0.0\"\ndependencies = [\"anyhow\"]\n";
    let files = [("Cargo.toml", manifest), ("Cargo.lock", lock), ("src/main.rs", "fn main() {}")];
    let test = test_step(&files);
    assert_eq!(
        (test.run.as_str(), test.needs.as_slice()),
        ("cargo test --offline --locked", &["fetch".into(), "test-deps".into()][..])
    );
    let tests = scoped(&files, Scope::Tests).unwrap();
    let layer = &tests.steps[1];
    assert_eq!(names(&tests), ["fetch", "test-deps", "test"]);
    assert!(
        layer.run.starts_with("cargo test --no-run --offline --locked\ncargo clean --offline -p shop"),
        "{}",
        layer.run
    );
    assert_eq!(layer.env["CARGO_TARGET_DIR"], "/build/.kiln/test-target");
}

#[test]
fn each_language_runs_its_own_tool() {
    let go = [("go.mod", "module example.com/shop\n\ngo 1.21\n"), ("main.go", "package main"), ("main_test.go", "")];
    let cmake = "project(shop VERSION 1.0)\nenable_testing()\nadd_test(NAME a COMMAND a)\n";
    let npm = r#"{"name": "shop", "version": "1.0.0", "scripts": {"test": "node --test", "build": "node b.js"}}"#;
    for (files, run) in [
        (&go[..], "go test -v ./..."),
        (&[("CMakeLists.txt", cmake)], "cd .kiln/build\nctest --output-on-failure"),
        (&[("Makefile", "all:\n\tcc a.c\ncheck: all\n\t./a\n"), ("a.c", "")], "make check"),
        (&[("package.json", npm), ("index.js", "")], "npm run build\nnpm test"),
        (
            &[("pyproject.toml", "[project]\nname = \"shop\"\nversion = \"1\"\n"), ("tests/test_a.py", "")],
            "python3 -m unittest discover -v",
        ),
        (
            &[
                (
                    "pyproject.toml",
                    "[project]\nname = \"shop\"\nversion = \"1\"\n[dependency-groups]\ndev = [\"pytest>=8\"]\n",
                ),
                ("tests/test_a.py", ""),
            ],
            "python3 -m pytest -p no:cacheprovider --junit-xml=/build/.kiln/reports/pytest.xml",
        ),
    ] {
        let test = test_step(files);
        assert!(test.run.ends_with(run), "expected `{run}` in: {}", test.run);
        let named: Vec<&String> = test.reports.iter().filter(|report| *report != PRINTED).collect();
        assert!(!test.network && test.outputs.iter().eq(named), "{test:?}");
    }
}

#[test]
fn what_is_not_set_up_is_not_run() {
    let default = r#"{"name": "shop", "scripts": {"test": "echo \"Error: no test specified\" && exit 1"}}"#;
    for files in [
        &[("package.json", default)][..],
        &[("CMakeLists.txt", "project(shop)\nadd_executable(a a.c)\n"), ("a.c", "")],
        &[("Makefile", "all:\n\tcc a.c\ntest := yes\n"), ("a.c", "")],
        &[("go.mod", "module example.com/shop\n\ngo 1.21\n"), ("main.go", "package main")],
    ] {
        let refused = scoped(files, Scope::Tests).unwrap_err();
        assert!(refused.contains("no test steps"), "{refused}");
    }
}
