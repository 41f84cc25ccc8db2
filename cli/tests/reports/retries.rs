//! Failed tests that run again, with real runners: only those where the runner can, and flaky if they pass.

use std::path::Path;

use kiln_harness::{Built, Farm};
use serde_json::Value;

use super::printed::{CARGO, has_nextest, tested, tested_by};
use super::{report, tests};

/// Rust tests: one that passes, and one that fails unless it runs again.
const LUCK: &str = "#[test]\nfn steady() {}\n#[test]\nfn luck() {\n    assert!(std::env::var_os(\"KILN_RETRY\").is_some(), \"unlucky\");\n}\n";

/// Passed, failed, flaky and how often it was tried again.
fn counts(built: &Built) -> [u64; 4] {
    let told = tests(built);
    ["passed", "failed", "flaky", "retries"].map(|name| told[name].as_u64().unwrap())
}

fn passed(farm: &Farm, dir: &Path) -> Built {
    let built = tested_by(farm, dir);
    assert_eq!(built.0.code, 0, "{:?}", built.0);
    built
}

#[test]
fn a_flaky_test_of_cargo_passes_when_it_runs_again_alone() {
    let farm = Farm::shared();
    let keys = "run = \"CARGO_HOME=/build/.cargo cargo test --offline --no-fail-fast; touch done\"\noutputs = [\"done\"]\nreports = [\"-\"]\nretries = 2\n";
    let dir = tested(keys, &[("Cargo.toml", CARGO), ("src/lib.rs", LUCK), ("tests/it.rs", "#[test]\nfn whole() {}\n")]);
    let built = passed(farm, dir.path());
    assert_eq!(counts(&built), [3, 0, 1, 1], "{}", tests(&built));
    assert_eq!(tests(&built)["flaky_tests"], serde_json::json!(["shop luck"]));
    let log = built.log();
    assert!(log.contains("kiln: 1 test failed: running what failed again (retry 1 of 2)"), "{log}");
    assert_eq!((log.matches("test steady ...").count(), log.matches("test luck ...").count()), (1, 2), "{log}");
    let all = report(farm, dir.path(), &built.id());
    let first = (&all[0]["name"], &all[0]["outcome"], &all[0]["flaky"], &all[0]["message"]);
    assert_eq!(first, (&"luck".into(), &"passed".into(), &true.into(), &"unlucky (src/lib.rs:5:5)".into()), "{all:?}");
    let words = farm.kiln(&["test-report", &built.id()]).out;
    assert!(words.starts_with("flaky: shop luck passed, and has failed with the same inputs: unlucky"), "{words}");
    // A flaky result is a result: the next build has it, and says the same.
    let second = passed(farm, dir.path());
    assert_eq!(second.caches()["test"], "hit");
    assert_eq!(counts(&second)[..3], [3, 0, 1]);
    let whole = farm.kiln(&["logs", &built.id(), "test"]).out;
    assert!(
        whole.contains("test result: FAILED") && whole.contains("2 filtered out") || whole.contains("1 filtered out"),
        "{whole}"
    );
}

#[test]
fn a_test_that_fails_every_time_fails_the_step() {
    let farm = Farm::shared();
    let keys =
        "run = \"CARGO_HOME=/build/.cargo cargo test --offline --no-fail-fast\"\nreports = [\"-\"]\nretries = 2\n";
    let lib = format!("{LUCK}#[test]\nfn broken() {{\n    panic!(\"always\");\n}}\n");
    let dir = tested(keys, &[("Cargo.toml", CARGO), ("src/lib.rs", &lib)]);
    let built = tested_by(farm, dir.path());
    assert_eq!((built.0.code, counts(&built)), (1, [2, 1, 1, 2]), "{:?}", built.0);
    let log = built.log();
    let ran = ["steady", "luck", "broken"].map(|name| log.matches(&format!("test {name} ...")).count());
    assert_eq!(ran, [1, 2, 3], "{log}");
    let all = report(farm, dir.path(), &built.id());
    assert_eq!((&all[0]["name"], &all[1]["name"]), (&"broken".into(), &"luck".into()), "{all:?}");
}

#[test]
fn what_a_runner_did_not_reach_is_never_left_out() {
    let farm = Farm::shared();
    // Without `--no-fail-fast`, cargo does not start the second program.
    let keys = "run = \"CARGO_HOME=/build/.cargo cargo test --offline\"\nreports = [\"-\"]\nretries = 1\n";
    let broken = "#[test]\nfn broken() {\n    panic!(\"always\");\n}\n";
    let dir = tested(keys, &[("Cargo.toml", CARGO), ("src/lib.rs", LUCK), ("tests/it.rs", broken)]);
    let built = tested_by(farm, dir.path());
    assert_eq!((built.0.code, counts(&built)), (1, [2, 1, 1, 1]), "{:?}", built.0);
    assert!(built.log().contains("all tests run again"), "{}", built.log());
    assert_eq!(report(farm, dir.path(), &built.id())[0]["name"], "broken");
}

#[test]
fn pytest_go_ctest_and_jest_run_what_failed_again() {
    let farm = Farm::shared();
    let again = |keys: &str, files: &[(&str, &str)]| {
        let built = passed(farm, tested(&format!("{keys}retries = 1\n"), files).path());
        assert_eq!(counts(&built), [2, 0, 1, 1], "{}", built.log());
        let log = built.log();
        assert_eq!(log.lines().filter(|line| line.trim_end().ends_with("steady ran")).count(), 1, "{log}");
        tests(&built)["flaky_tests"][0].as_str().unwrap().to_owned()
    };
    let python = "import os\n\ndef test_steady():\n    print('steady ran')\n\ndef test_luck():\n    assert 'KILN_RETRY' in os.environ\n";
    let keys = "run = \"/opt/kiln-test-tools/bin/pytest -s --junit-xml=r.xml\"\noutputs = [\"r.xml\"]\nreports = [\"r.xml\"]\n";
    assert_eq!(again(keys, &[("tests/test_luck.py", python)]), "tests.test_luck test_luck");

    let go = "package shop\n\nimport (\n\t\"fmt\"\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestSteady(t *testing.T) { fmt.Println(\"steady ran\") }\n\nfunc TestLuck(t *testing.T) {\n\tif os.Getenv(\"KILN_RETRY\") == \"\" {\n\t\tt.Fatal(\"unlucky\")\n\t}\n}\n";
    let keys = "run = \"export GOCACHE=/build/.go HOME=/build; go test -v ./...\"\nreports = [\"-\"]\n";
    let files = [("go.mod", "module example.org/shop\n\ngo 1.19\n"), ("shop_test.go", go)];
    assert_eq!(again(keys, &files), "example.org/shop TestLuck");

    let cmake = "cmake_minimum_required(VERSION 3.10)\nproject(shop NONE)\nenable_testing()\nadd_test(NAME steady COMMAND echo steady ran)\nadd_test(NAME luck COMMAND sh -c \"test -n \\\"$KILN_RETRY\\\"\")\n";
    let keys = "run = \"cmake -S . -B b && cd b && ctest -V\"\nreports = [\"-\"]\n";
    let built = passed(farm, tested(&format!("{keys}retries = 1\n"), &[("CMakeLists.txt", cmake)]).path());
    assert_eq!(counts(&built), [2, 0, 1, 1], "{}", built.log());
    assert_eq!(built.log().matches("1: steady ran").count(), 1, "{}", built.log());

    let js = "test('steady', () => { process.stdout.write('steady ran\\n'); });\ntest('luck (once)', () => { expect(process.env.KILN_RETRY).toBeDefined(); });\n";
    let keys = "run = \"HOME=/build jest --json --outputFile=jest.json\"\noutputs = [\"jest.json\"]\nreports = [\"jest.json\"]\n";
    assert_eq!(
        again(keys, &[("package.json", "{\"name\": \"shop\"}"), ("cart.test.js", js)]),
        "cart.test.js luck (once)"
    );
}

#[test]
fn another_runner_runs_all_of_its_command_again() {
    let farm = Farm::shared();
    let run = "if [ -n \"$KILN_RETRY\" ]; then why=; else why='<failure>unlucky</failure>'; fi\n\
               echo \"<testsuite name='s'><testcase name='luck'>$why</testcase><testcase name='same'/></testsuite>\" > r.xml\n\
               echo \"whole ${KILN_RETRY:-first}\" > made; test -z \"$why\"";
    let keys = format!(
        "run = '''\n{run}\n'''\noutputs = [\"r.xml\", \"made\"]\nreports = [\"r.xml\"]\nretries = 1\n[steps.after]\nneeds = [\"test\"]\nrun = \"cat made; test ! -e .kiln\"\ntest = true\n"
    );
    let built = passed(farm, tested(&keys, &[]).path());
    assert_eq!(counts(&built), [2, 0, 1, 1]);
    assert!(built.log().contains("whole 1"), "expected the outputs of the whole run that passed: {}", built.log());
    let finished: Vec<Value> = built.of_type("step_finished");
    assert!(finished.iter().all(|event| event["ok"] == true), "{finished:?}");
}

#[test]
fn nextest_runs_failed_tests_again_itself() {
    if !has_nextest() {
        return;
    }
    let farm = Farm::shared();
    // Each attempt is a process in the same run.
    let lib = "#[test]\nfn steady() {}\n#[test]\nfn luck() {\n    let been = std::path::Path::new(\"/tmp/been\");\n    if !been.exists() {\n        std::fs::write(been, \"\").unwrap();\n        panic!(\"unlucky\");\n    }\n}\n";
    let keys =
        "run = \"HOME=/build CARGO_HOME=/build/.cargo cargo nextest run --offline\"\nreports = [\"-\"]\nretries = 1\n";
    let built = passed(farm, tested(keys, &[("Cargo.toml", CARGO), ("src/lib.rs", lib)]).path());
    assert_eq!(counts(&built), [2, 0, 1, 0], "{}", built.log());
}
