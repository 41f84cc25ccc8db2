//! Tests that are divided among shards, with real runners.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_harness::{Built, Farm, write};
use serde_json::Value;

use super::printed::{CARGO, has_nextest, tested, tested_by};
use super::report;

/// How often each test ran, and in which shards of how many.
fn ran(farm: &Farm, dir: &Path, code: i32) -> (Built, BTreeMap<String, Vec<u64>>, usize) {
    let built = tested_by(farm, dir);
    assert_eq!(built.0.code, code, "{:?}", built.0);
    let mut tests: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let all = report(farm, dir, &built.id());
    for test in all.iter().filter(|test| test["outcome"] != "skipped") {
        let name = test["name"].as_str().unwrap().to_owned();
        tests.entry(name).or_default().push(test["shard"].as_u64().unwrap());
    }
    let shards = built.of_type("step_finished").len();
    (built, tests, shards)
}

fn once(tests: &BTreeMap<String, Vec<u64>>) -> bool {
    tests.values().all(|shards| shards.len() == 1)
}

fn caches(built: &Built) -> Vec<String> {
    built.of_type("step_finished").iter().map(|event| event["cache"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_test_of_each_runner_runs_in_one_shard() {
    let farm = Farm::shared();
    let divided = |keys: &str, files: &[(&str, &str)], expected: usize| {
        let dir = tested(&format!("{keys}shards = 2\n"), files);
        let (built, tests, shards) = ran(farm, dir.path(), 0);
        assert!(tests.len() == expected && once(&tests) && shards == 2, "{tests:?} {}", built.log());
        let of = |shard: u64| tests.values().filter(|shards| shards[0] == shard).count();
        assert!(of(1) > 0 && of(2) > 0, "{tests:?}");
    };
    let lib = "//! ```\n//! assert!(true);\n//! ```\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn a() {}\n    #[test]\n    fn b() {}\n    #[test]\n    fn c() {}\n}\n";
    let keys = "run = \"CARGO_HOME=/build/.cargo cargo test --offline\"\nreports = [\"-\"]\n";
    divided(keys, &[("Cargo.toml", CARGO), ("src/lib.rs", lib), ("tests/it.rs", "#[test]\nfn whole() {}\n")], 5);

    if has_nextest() {
        let keys = "run = \"HOME=/build CARGO_HOME=/build/.cargo cargo nextest run --offline\"\nreports = [\"-\"]\n";
        divided(keys, &[("Cargo.toml", CARGO), ("src/lib.rs", lib)], 3);
    }

    let python = "import pytest\n\n@pytest.mark.parametrize('n', ['a::b', 'c', 'd'])\ndef test_of(n):\n    pass\n\nclass TestCart:\n    def test_adds(self):\n        pass\n";
    let keys =
        "run = \"/opt/kiln-test-tools/bin/pytest --junit-xml=r.xml\"\noutputs = [\"r.xml\"]\nreports = [\"r.xml\"]\n";
    divided(keys, &[("tests/test_cart.py", python)], 4);

    let test = |package: &str, name: &str| {
        format!("package {package}\n\nimport \"testing\"\n\nfunc Test{name}(t *testing.T) {{}}\n")
    };
    let (one, two) = (test("one", "One"), test("two", "Two"));
    let files = [
        ("go.mod", "module example.org/shop\n\ngo 1.19\n"),
        ("one/one_test.go", one.as_str()),
        ("two/two_test.go", two.as_str()),
    ];
    divided("run = \"export GOCACHE=/build/.go HOME=/build; go test -v ./...\"\nreports = [\"-\"]\n", &files, 2);

    let cmake = "cmake_minimum_required(VERSION 3.10)\nproject(shop NONE)\nenable_testing()\nforeach(n a b c)\n  add_test(NAME ${n} COMMAND true)\nendforeach()\n";
    divided("run = \"cmake -S . -B b && cd b && ctest\"\nreports = [\"-\"]\n", &[("CMakeLists.txt", cmake)], 3);

    let python = "import unittest\n\n\nclass Cart(unittest.TestCase):\n    def test_adds(self): pass\n    def test_totals(self): pass\n";
    let keys = "run = \"python3 -m unittest discover -v\"\nreports = [\"-\"]\n";
    divided(keys, &[("test_cart.py", python)], 2);

    let node = |name: &str| format!("require('node:test').test('{name}', () => {{}});\n");
    let (one, two) = (node("one"), node("two"));
    let keys = "run = \"node --test --test-reporter=tap\"\nreports = [\"-\"]\n";
    divided(keys, &[("one.test.js", &one), ("two.test.js", &two)], 2);

    let vitest = |name: &str| format!("import {{ test }} from 'vitest';\ntest('{name}', () => {{}});\n");
    let (one, two) = (vitest("one"), vitest("two"));
    let keys = "run = \"HOME=/build vitest run --reporter=tap\"\nreports = [\"-\"]\n";
    divided(keys, &[("package.json", "{\"type\": \"module\"}"), ("one.test.js", &one), ("two.test.js", &two)], 2);

    let js = |name: &str| format!("test('{name}', () => {{}});\n");
    let (one, two) = (js("one"), js("two"));
    let keys = "run = \"HOME=/build jest --json --outputFile=jest.json\"\noutputs = [\"jest.json\"]\nreports = [\"jest.json\"]\n";
    divided(keys, &[("package.json", "{\"name\": \"shop\"}"), ("one.test.js", &one), ("two.test.js", &two)], 2);
}

/// A project whose tests say that they took 200 s in all, of which one has half.
fn long() -> tempfile::TempDir {
    let python: String = ["long", "a", "b", "c", "d"].map(|name| format!("def test_{name}(): pass\n")).concat();
    let slow = "import pytest\n\n@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_logreport(report):\n    if report.when == 'call':\n        report.duration = 100.0 if 'test_long' in report.nodeid else 25.0\n";
    let keys = "run = \"/opt/kiln-test-tools/bin/pytest -p slow --junit-xml=r.xml\"\nenv = { PYTHONPATH = \"/build\" }\noutputs = [\"r.xml\"]\nreports = [\"r.xml\"]\nshards = \"auto\"\n";
    tested(keys, &[("tests/test_times.py", &python), ("slow.py", slow)])
}

#[test]
fn the_number_of_shards_follows_what_tests_took_and_stays_while_the_sources_do() {
    let farm = Farm::shared();
    let dir = long();
    let (_, tests, shards) = ran(farm, dir.path(), 0);
    assert_eq!((tests.len(), shards), (5, 1), "nothing is known");
    // The same sources have the same shards, and so everything is in the cache.
    let (built, _, shards) = ran(farm, dir.path(), 0);
    assert_eq!((shards, caches(&built)), (1, vec!["hit".to_owned()]));
    let mut command = farm.command(&["plan", "--test"]);
    command.current_dir(dir.path());
    let planned = kiln_harness::Ran::from(command);
    assert!(planned.out.contains("4 shards as its tests take time"), "{planned:?}");
    // 200 s are four shards of 50 s; the longest test has one to itself.
    write(dir.path(), "salt", &uuid::Uuid::new_v4().to_string());
    let (_, tests, shards) = ran(farm, dir.path(), 0);
    assert!(shards == 4 && tests.len() == 5 && once(&tests), "{tests:?}");
    assert!(tests.iter().all(|(name, shards)| name == "test_long" || *shards != tests["test_long"]), "{tests:?}");
    let (built, again, _) = ran(farm, dir.path(), 0);
    assert_eq!((again, caches(&built)), (tests, vec!["hit".to_owned(); 4]));
}

/// Runs a project's tests, and again as other sources, in two shards: by then it is known which of them takes long.
fn twice(keys: &str, files: &[(&str, &str)]) -> BTreeMap<String, Vec<u64>> {
    let farm = Farm::shared();
    let dir = tested(&format!("{keys}shards = 2\n"), files);
    let (_, first, _) = ran(farm, dir.path(), 0);
    write(dir.path(), "salt", &uuid::Uuid::new_v4().to_string());
    let (built, tests, shards) = ran(farm, dir.path(), 0);
    assert!(shards == 2 && first.keys().eq(tests.keys()) && once(&tests), "{first:?} {tests:?} {}", built.log());
    tests
}

#[test]
fn nextest_and_jest_have_the_longest_test_alone_in_a_shard() {
    let alone = |tests: BTreeMap<String, Vec<u64>>, long: &str| {
        let shard = &tests[long];
        assert!(tests.iter().all(|(name, shards)| name == long || shards != shard), "{tests:?}");
    };
    // The times are made up: nothing waits for them.
    let files =
        ["a", "b", "c", "long"].map(|name| (format!("{name}.test.js"), format!("test('{name}', () => {{}});\n")));
    let mut files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let slow = "const fs = require('fs');\nconst all = JSON.parse(fs.readFileSync('jest.json'));\nfor (const file of all.testResults) for (const test of file.assertionResults) test.duration = test.title === 'long' ? 100000 : 1000;\nfs.writeFileSync('jest.json', JSON.stringify(all));\n";
    files.extend([("package.json", "{\"name\": \"shop\"}"), ("slow.js", slow)]);
    let keys = "run = \"HOME=/build jest --json --outputFile=jest.json; node slow.js\"\noutputs = [\"jest.json\"]\nreports = [\"jest.json\"]\n";
    alone(twice(keys, &files), "long");
    if has_nextest() {
        let lib = ["a", "b", "c", "long"].map(|name| format!("#[test]\nfn {name}() {{}}\n")).concat();
        let slow = "s/\\\\[ *[0-9.]*s\\\\] \\\\(.* long\\\\)$/[ 100.000s] \\\\1/";
        let keys = format!(
            "run = \"HOME=/build CARGO_HOME=/build/.cargo cargo nextest run --offline --color never 2>&1 | sed '{slow}'\"\nreports = [\"-\"]\n"
        );
        alone(twice(&keys, &[("Cargo.toml", CARGO), ("src/lib.rs", &lib)]), "long");
    }
}

#[test]
fn a_shard_that_fails_fails_the_step_and_all_tests_are_told_of() {
    let farm = Farm::shared();
    let python = "import time\n\ndef test_a():\n    assert False\n\ndef test_b():\n    time.sleep(1)\n";
    let keys = "run = \"/opt/kiln-test-tools/bin/pytest --junit-xml=r.xml\"\noutputs = [\"r.xml\"]\nreports = [\"r.xml\"]\nshards = 2\n";
    let (built, tests, shards) = ran(farm, tested(keys, &[("tests/test_ab.py", python)]).path(), 1);
    assert!(shards == 2 && tests.len() == 2 && once(&tests), "{tests:?} {}", built.log());
}

#[test]
fn shards_that_write_a_file_differently_are_told_of_and_others_are_merged() {
    let farm = Farm::shared();
    let run = "mkdir -p out; echo same > out/same; echo $KILN_SHARD > out/different; echo x > out/only-$TEST_SHARD_INDEX; test $GTEST_TOTAL_SHARDS = 2";
    let keys = format!(
        "run = \"{run}\"\noutputs = [\"out\"]\nshards = 2\n[steps.after]\nneeds = [\"test\"]\nrun = \"ls out; cat out/different\"\ntest = true\n"
    );
    let dir = tested(&keys, &[]);
    let built = tested_by(farm, dir.path());
    assert_eq!(built.0.code, 0, "{:?}", built.0);
    let warnings: Vec<Value> = built.of_type("warning");
    let told = warnings
        .iter()
        .filter(|warning| warning["text"].as_str().unwrap().contains("`out/different` differently"))
        .count();
    assert_eq!((told, warnings.len()), (1, 1), "{warnings:?}");
    let log = built.log();
    for file in ["only-0", "only-1", "same", "different"] {
        assert!(log.contains(file), "{log}");
    }
    assert!(log.lines().any(|line| line.trim_end().ends_with('2')), "expected the last shard's file: {log}");
}

#[test]
fn failed_tests_of_a_shard_run_again() {
    let farm = Farm::shared();
    let python = "import os\n\ndef test_a():\n    assert 'KILN_RETRY' in os.environ\n\ndef test_b():\n    assert 'KILN_RETRY' in os.environ\n\ndef test_c(): pass\n";
    let keys = "run = \"/opt/kiln-test-tools/bin/pytest -v --junit-xml=r.xml\"\noutputs = [\"r.xml\"]\nreports = [\"r.xml\"]\nshards = 2\nretries = 1\n";
    let dir = tested(keys, &[("tests/test_abc.py", python)]);
    let (built, tests, _) = ran(farm, dir.path(), 0);
    assert!(tests.len() == 3 && once(&tests), "{tests:?}");
    let log = built.log();
    assert_eq!((log.matches("test_c PASSED").count(), log.matches("test_a PASSED").count()), (1, 1), "{log}");
    let (again, _, _) = ran(farm, dir.path(), 0);
    assert_eq!(caches(&again), ["hit", "hit"]);
}

/// A runner that takes the options of `ctest` which Kiln uses, and fails one test unless it runs again.
const RUNNER: &str = r#"#!/bin/sh
case " $* " in *' -N '*) printf 'Test project x\n  Test #1: luck\n  Test #2: steady\n'; exit ;; esac
echo 'Test project x'
code=0
case "$*" in *,1*) if [ -n "$KILN_RETRY" ]; then echo '1/1 Test #1: luck ...   Passed    0.01 sec'; else echo '1/1 Test #1: luck ...***Failed    0.01 sec'; code=8; fi ;; esac
case "$*" in *,2*) echo '1/1 Test #2: steady ...   Passed    0.01 sec' ;; esac
echo '100% tests passed, 0 tests failed out of 1'
exit $code
"#;

#[test]
fn the_tests_of_a_step_in_an_image_need_nothing_of_it_but_a_shell_and_its_tools() {
    let farm = Farm::shared();
    let keys = "run = \"chmod +x bin/ctest; PATH=/build/bin:$PATH; ctest -j2\"\nimage = \"./base\"\ninputs = [\"bin\"]\nreports = [\"-\"]\nshards = 2\nretries = 1\n";
    let dir = tested(keys, &[("bin/ctest", RUNNER)]);
    std::fs::create_dir(dir.path().join("base")).unwrap();
    let Some(_) = kiln_harness::bases::busybox_layout(&dir.path().join("base")) else { return };
    let (built, tests, shards) = ran(farm, dir.path(), 0);
    let expected = [("luck".to_owned(), vec![1]), ("steady".to_owned(), vec![2])].into();
    assert_eq!((tests, shards), (expected, 2), "{}", built.log());
    assert_eq!(built.log().matches("luck ...").count(), 2, "{}", built.log());
}
