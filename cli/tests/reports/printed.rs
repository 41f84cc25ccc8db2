//! Reports that need no converter: what real test runners print, and the JSON that they write.

use std::path::Path;

use kiln_harness::{Built, Farm, project, write};
use serde_json::Value;

use super::{report, tests};

/// A project with these keys of its step `test`.
pub(super) fn tested(keys: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = project(files);
    let name = format!("tested-{}", uuid::Uuid::new_v4().simple());
    write(dir.path(), "kiln.toml", &format!("name = \"{name}\"\n[steps.test]\ntest = true\nmemory = \"2GiB\"\n{keys}"));
    write(dir.path(), "salt", &uuid::Uuid::new_v4().to_string());
    dir
}

/// `kiln test`, with JSON events.
pub(super) fn tested_by(farm: &Farm, dir: &Path) -> Built {
    let mut command = farm.command(&["test", "--progress", "json"]);
    command.current_dir(dir);
    Built(kiln_harness::Ran::from(command))
}

/// What `kiln test` reports of a project: suite, name and outcome, sorted, and all of it.
fn run(dir: &tempfile::TempDir, code: i32) -> (Vec<String>, Vec<Value>) {
    let farm = Farm::shared();
    let built = tested_by(farm, dir.path());
    assert_eq!(built.0.code, code, "{:?}", built.0);
    let counts = tests(&built);
    assert_eq!(counts["unread"].as_array().map(Vec::len), Some(0), "{counts}");
    let all = report(farm, dir.path(), &built.id());
    let word = |test: &Value, key: &str| test[key].as_str().unwrap().to_owned();
    let line = |test: &Value| format!("{} {} {}", word(test, "suite"), word(test, "name"), word(test, "outcome"));
    let mut lines: Vec<String> = all.iter().map(line).collect();
    lines.sort();
    (lines, all)
}

/// Whether steps find cargo-nextest.
pub(super) fn has_nextest() -> bool {
    let has = ["/usr/local/bin", "/usr/bin"].iter().any(|place| Path::new(place).join("cargo-nextest").exists());
    if !has {
        kiln_harness::cannot_run("no cargo-nextest in /usr/local/bin; `.ci/test` installs it");
    }
    has
}

pub(super) const CARGO: &str = "[package]\nname = \"shop\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";

#[test]
fn cargo_test_needs_nothing_else() {
    let lib = "//! ```\n//! assert_eq!(2, 2);\n//! ```\n#[test]\nfn adds() {}\n#[test]\n#[ignore = \"not yet\"]\nfn later() {}\n";
    let totals =
        "#[test]\nfn totals() {\n    println!(\"the cart has 8\");\n    assert_eq!(7, 8, \"expected 7\");\n}\n";
    let run_it = "run = \"CARGO_HOME=/build/.cargo cargo test --offline --no-fail-fast\"\nreports = [\"-\"]\n";
    let dir = tested(run_it, &[("Cargo.toml", CARGO), ("src/lib.rs", lib), ("tests/it.rs", totals)]);
    let (lines, all) = run(&dir, 1);
    let expected = [
        "it totals failed",
        "shop (documentation) src/lib.rs - (line 1) passed",
        "shop adds passed",
        "shop later skipped",
    ];
    assert_eq!(lines, expected);
    let message = all[0]["message"].as_str().unwrap();
    assert_eq!(message, "assertion `left == right` failed: expected 7 (tests/it.rs:4:5)", "{all:?}");
    assert!(all[0]["output"].as_str().unwrap().starts_with("the cart has 8"), "{all:?}");
    assert_eq!(all[0]["file"], "what it printed");
}

#[test]
fn a_detected_cargo_project_has_a_report() {
    let lock = "version = 4\n\n[[package]]\nname = \"shop\"\nversion = \"0.1.0\"\n";
    let lib = format!("// {}\n#[test]\nfn adds() {{}}\n", uuid::Uuid::new_v4());
    let dir =
        project(&[("Cargo.toml", CARGO), ("Cargo.lock", lock), ("src/lib.rs", &lib), ("src/main.rs", "fn main() {}")]);
    assert_eq!(run(&dir, 0).0, ["shop adds passed"]);
}

#[test]
fn detected_projects_of_go_cmake_and_meson_have_reports() {
    let salt = uuid::Uuid::new_v4();
    let test = format!("package main\n\n// {salt}\nimport \"testing\"\n\nfunc TestAdds(t *testing.T) {{}}\n");
    let go = [
        ("go.mod", "module example.org/shop\n\ngo 1.19\n"),
        ("main.go", "package main\n\nfunc main() {}\n"),
        ("main_test.go", test.as_str()),
    ];
    assert_eq!(run(&project(&go), 0).0, ["example.org/shop TestAdds passed"]);
    let source = format!("/* {salt} */\nint main(void) {{ return 0; }}\n");
    let cmake = "cmake_minimum_required(VERSION 3.10)\nproject(shop C)\nenable_testing()\nadd_executable(shop main.c)\ninstall(TARGETS shop)\nadd_test(NAME adds COMMAND shop)\n";
    assert_eq!(run(&project(&[("CMakeLists.txt", cmake), ("main.c", &source)]), 0).0, [" adds passed"]);
    let meson = "project('shop', 'c')\nshop = executable('shop', 'main.c', install: true)\ntest('adds', shop)\n";
    assert_eq!(run(&project(&[("meson.build", meson), ("main.c", &source)]), 0).0, ["shop adds passed"]);
}

const GO: &str = "package shop\n\nimport \"testing\"\n\nfunc TestAdds(t *testing.T) {}\n\nfunc TestTotals(t *testing.T) {\n\tt.Run(\"big\", func(t *testing.T) { t.Error(\"expected 7\") })\n}\n";

#[test]
fn go_tests_are_read_as_text_and_as_json() {
    let files =
        [("go.mod", "module example.org/shop\n\ngo 1.19\n"), ("shop_test.go", GO), ("sub/s.go", "package sub\n")];
    let expected = [
        "example.org/shop TestAdds passed",
        "example.org/shop TestTotals failed",
        "example.org/shop TestTotals/big failed",
    ];
    let environment = "export GOCACHE=/build/.go HOME=/build";
    let text = format!("run = \"{environment}; go test -v ./...\"\nreports = [\"-\"]\n");
    let (lines, all) = run(&tested(&text, &files), 1);
    assert_eq!(lines, expected);
    let big = all.iter().find(|test| test["name"] == "TestTotals/big").unwrap();
    assert_eq!(big["message"], "shop_test.go:8: expected 7");
    let json = format!(
        "run = \"{environment}; go test -json ./... > test.json\"\noutputs = [\"test.json\"]\nreports = [\"**/junit.xml\", \"test.json\"]\n"
    );
    let (lines, all) = run(&tested(&json, &files), 1);
    assert_eq!((lines.as_slice(), &all[0]["file"]), (&expected.map(String::from)[..], &Value::from("test.json")));
}

#[test]
fn the_output_of_ctest_and_the_json_of_jest_are_read() {
    let cmake = "cmake_minimum_required(VERSION 3.10)\nproject(shop NONE)\nenable_testing()\nadd_test(NAME good COMMAND true)\nadd_test(NAME bad COMMAND sh -c \"echo said; exit 1\")\n";
    let ctest = "run = \"cmake -S . -B b && cd b && ctest --output-on-failure\"\nreports = [\"-\"]\n";
    let (lines, all) = run(&tested(ctest, &[("CMakeLists.txt", cmake)]), 1);
    assert_eq!(lines, [" bad failed", " good passed"]);
    assert_eq!((&all[0]["output"], &all[0]["message"]), (&"said".into(), &"Failed".into()));
    let jest = "run = \"HOME=/build jest --json --outputFile=jest.json\"\noutputs = [\"jest.json\"]\nreports = [\"jest.json\"]\n";
    let js = "test('adds', () => {});\ntest('totals', () => { expect(8).toBe(7); });\n";
    let (lines, _) = run(&tested(jest, &[("package.json", "{\"name\": \"shop\"}"), ("cart.test.js", js)]), 1);
    assert_eq!(lines, ["cart.test.js adds passed", "cart.test.js totals failed"]);
}

#[test]
fn node_vitest_and_unittest_are_read() {
    let node = "const test = require('node:test');\ntest('adds', () => {});\ntest('cart', (t) => t.test('totals', () => { throw new Error('expected 7'); }));\n";
    let keys = "run = \"node --test --test-reporter=tap\"\nreports = [\"-\"]\n";
    let (lines, all) = run(&tested(keys, &[("cart.test.js", node)]), 1);
    assert_eq!(lines, [" adds passed", " cart failed", "cart totals failed"]);
    assert_eq!(all.iter().find(|test| test["name"] == "totals").unwrap()["message"], "expected 7");

    let vitest = "import { describe, expect, test } from 'vitest';\ntest('adds', () => {});\ndescribe('cart', () => { test('totals', () => { expect(8).toBe(7); }); });\n";
    let files = [("package.json", "{\"type\": \"module\"}"), ("cart.test.js", vitest)];
    let keys = "run = \"HOME=/build vitest run --reporter=tap\"\nreports = [\"-\"]\n";
    let (lines, all) = run(&tested(keys, &files), 1);
    assert_eq!(lines, ["cart.test.js > cart totals failed", "cart.test.js adds passed"]);
    assert!(all[0]["message"].as_str().unwrap().starts_with("expected 8 to be 7"), "{all:?}");
    let keys = "run = \"HOME=/build vitest run --reporter=json --outputFile=v.json\"\noutputs = [\"v.json\"]\nreports = [\"v.json\"]\n";
    assert_eq!(run(&tested(keys, &files), 1).0, ["cart.test.js adds passed", "cart.test.js cart totals failed"]);

    let python = "import unittest\n\n\nclass Cart(unittest.TestCase):\n    def test_adds(self): pass\n    def test_totals(self): self.assertEqual(8, 7)\n";
    let keys = "run = \"python3 -m unittest discover -v\"\nreports = [\"-\"]\n";
    let (lines, all) = run(&tested(keys, &[("test_cart.py", python)]), 1);
    assert_eq!(lines, ["test_cart.Cart test_adds passed", "test_cart.Cart test_totals failed"]);
    assert_eq!(all[0]["message"], "AssertionError: 8 != 7");
}

#[test]
fn the_file_of_pytest_is_read() {
    let pytest =
        "run = \"/opt/kiln-test-tools/bin/pytest --junit-xml=r.xml\"\noutputs = [\"r.xml\"]\nreports = [\"r.xml\"]\n";
    let python = "def test_adds():\n    pass\n\ndef test_totals():\n    assert 8 == 7\n";
    let (lines, all) = run(&tested(pytest, &[("tests/test_cart.py", python)]), 1);
    assert_eq!(lines, ["tests.test_cart test_adds passed", "tests.test_cart test_totals failed"]);
    assert_eq!(all[0]["message"], "assert 8 == 7");
}

#[test]
fn an_output_without_tests_is_mentioned_and_changes_nothing() {
    let farm = Farm::shared();
    let dir = tested("run = \"echo hello\"\nreports = [\"-\"]\n", &[]);
    let built = tested_by(farm, dir.path());
    assert_eq!(built.0.code, 0, "{:?}", built.0);
    let unread = tests(&built)["unread"][0].as_str().unwrap().to_owned();
    assert!(unread.starts_with("what it printed: expected JUnit XML") && unread.ends_with("`hello`"), "{unread}");
    let without = tested("run = \"true\"\nreports = [\"junit.xml\"]\n", &[]);
    let refused = tested_by(farm, without.path());
    assert_eq!(refused.0.code, 2, "{:?}", refused.0);
    assert!(refused.0.err.contains("no `outputs`") && refused.0.err.contains("reports = [\"-\"]"), "{:?}", refused.0);
}
