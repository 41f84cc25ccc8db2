//! Reports of tests among the outputs of steps, on a farm of real processes: also of steps that failed.

#![allow(clippy::unwrap_used)]

mod printed;
mod retries;
mod shards;

use std::path::Path;

use kiln_harness::terminal::Terminal;
use kiln_harness::{Built, Farm, project, write};
use serde_json::Value;

/// A project whose step `test` does this and has its reports in `reports`.
fn testing(run: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let config = format!(
        "name = \"tested\"\n[steps.test]\nrun = '''\nmkdir reports\n{run}\n'''\noutputs = [\"reports\"]\n\
         reports = [\"reports/**/*.xml\"]\n[artifacts.tested]\nfrom = \"test\"\nfiles = [\"reports\"]\nkind = \"archive\"\n"
    );
    let dir = project(files);
    write(dir.path(), "kiln.toml", &config);
    write(dir.path(), "salt", &uuid::Uuid::new_v4().to_string());
    dir
}

const REPORT: &str = r#"<?xml version="1.0"?>
<testsuites><testsuite name="shop">
  <testcase classname="shop.Cart" name="adds" time="0.5"/>
  <testcase classname="shop.Cart" name="totals" time="2.25">
    <failure message="expected 7, found 8">at Cart.java:12</failure>
    <system-out>the cart has 8</system-out>
  </testcase>
  <testcase classname="shop.Stock" name="refills"><skipped/></testcase>
</testsuite></testsuites>
"#;

fn tests(built: &Built) -> Value {
    let steps = built.of_type("step_finished");
    steps.iter().map(|step| &step["tests"]).find(|tests| !tests.is_null()).cloned().unwrap_or_default()
}

fn report(farm: &Farm, dir: &Path, build: &str) -> Vec<Value> {
    let mut command = farm.command(&["test-report", build, "--json"]);
    command.current_dir(dir);
    let ran = kiln_harness::Ran::from(command);
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn failed_tests_of_a_failed_step_come_first_with_what_they_said() {
    let farm = Farm::shared();
    let dir = testing("cp report.xml reports/; echo noise; exit 1", &[("report.xml", REPORT)]);
    let built = farm.build(dir.path(), &[]);
    assert_eq!(built.0.code, 1, "{:?}", built.0);
    let told = tests(&built);
    let counts = ["passed", "failed", "skipped", "flaky"].map(|name| told[name].as_u64().unwrap());
    assert_eq!((counts, told["duration_ms"].as_u64()), ([1, 1, 1, 0], Some(2750)), "{told}");
    let all = report(farm, dir.path(), &built.id());
    assert_eq!(all.len(), 3);
    assert_eq!((&all[0]["name"], &all[0]["outcome"]), (&"totals".into(), &"failed".into()), "{all:?}");
    assert_eq!(all[0]["output"], "at Cart.java:12\nthe cart has 8", "{all:?}");
    assert_eq!((&all[0]["file"], &all[0]["step"]), (&"reports/report.xml".into(), &"test".into()), "{all:?}");
    let ran = farm.kiln(&["test-report", &built.id()]);
    let first = ran.out.lines().next().unwrap();
    assert_eq!(first, "failed: shop.Cart totals (2.2 s): expected 7, found 8", "{ran:?}");
    assert!(ran.out.contains("shop.Stock refills"), "{ran:?}");
    // So does the summary for people.
    let mut command = farm.command(&["build"]);
    command.current_dir(dir.path());
    let mut terminal = Terminal::start(&command);
    let before = terminal.until("failed: shop.Cart totals");
    assert!(!before.contains("the cart has 8"), "{before}");
    terminal.until("the cart has 8");
    terminal.until("test: 3 tests, 1 failed, 1 skipped");
    assert_eq!(terminal.code(), 1);
}

#[test]
fn a_hit_tells_of_its_tests_too() {
    let farm = Farm::shared();
    let passed = REPORT.replace("<failure message=\"expected 7, found 8\">at Cart.java:12</failure>", "");
    let dir = testing(
        "mkdir reports/deep; cp report.xml reports/deep/; echo text > reports/other.txt",
        &[("report.xml", &passed)],
    );
    let first = farm.build(dir.path(), &[]).well();
    let second = farm.build(dir.path(), &[]).well();
    assert_eq!(second.caches()["test"], "hit");
    assert_eq!((tests(&first), tests(&first)["passed"].as_u64()), (tests(&second), Some(2)));
}

#[test]
fn a_test_that_passes_and_fails_with_the_same_inputs_is_flaky() {
    let farm = Farm::shared();
    let run = "if [ $(($(od -An -N1 -tu1 /dev/urandom) % 2)) = 0 ]; then why='<failure>unlucky</failure>'; fi\n\
               echo \"<testsuite name='s'><testcase name='luck'>$why</testcase><testcase name='same'/></testsuite>\" > reports/a.xml\n\
               test -z \"$why\"";
    let dir = testing(run, &[]);
    let mut seen = [false, false];
    let last = loop {
        let built = farm.build(dir.path(), &["--no-cache"]);
        seen[usize::from(built.0.code == 0)] = true;
        let told = tests(&built);
        assert_eq!(told["flaky"], u64::from(seen == [true, true]), "{told}");
        if seen == [true, true] {
            break built;
        }
    };
    let all = report(farm, dir.path(), &last.id());
    let flaky: Vec<(&Value, &Value)> = all.iter().map(|test| (&test["name"], &test["flaky"])).collect();
    assert_eq!(flaky, [(&"luck".into(), &true.into()), (&"same".into(), &false.into())]);
}

#[test]
fn reports_that_cannot_be_read_are_mentioned_and_change_nothing() {
    let farm = Farm::shared();
    let bomb = "<!DOCTYPE a [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;\">]><testsuite><testcase name=\"&b;\"/></testsuite>";
    let run = "cp bomb reports/bomb.xml; echo '<testsuite><testcase' > reports/cut.xml; ln -s /etc/passwd reports/link.xml\n\
               head -c 20000000 /dev/zero > reports/big.xml; cp evil reports/evil.xml";
    let evil = "<testsuite><testcase name=\"\u{1b}[2Jx\"><failure>\u{1b}]0;title\u{7}</failure></testcase></testsuite>";
    let dir = testing(run, &[("bomb", bomb), ("evil", evil)]);
    let built = farm.build(dir.path(), &[]).well();
    let told = tests(&built);
    let unread: Vec<&str> = told["unread"].as_array().unwrap().iter().map(|why| why.as_str().unwrap()).collect();
    assert!(unread.iter().any(|why| why.contains("`reports/bomb.xml`") && why.contains("document type")), "{unread:?}");
    assert!(unread.iter().any(|why| why.contains("`reports/cut.xml`")), "{unread:?}");
    assert!(
        unread.iter().any(|why| why.contains("`reports/big.xml`") && why.contains("more than 16 MiB")),
        "{unread:?}"
    );
    assert_eq!(told["failed"], 1, "{told}");
    let ran = farm.kiln(&["test-report", &built.id()]);
    assert!(!ran.out.contains('\u{1b}'), "expected no control sequences: {ran:?}");
    let none = farm.kiln(&["test-report", "0000nowhere"]);
    assert_eq!(none.code, 2, "{none:?}");
}
