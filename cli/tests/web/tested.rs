//! What became of tests, as their reports tell it: those that failed first, with what they said.

use kiln_harness::{has, project};
use serde_json::Value;

use crate::world::{browse, curl, farm, has_browser};

/// A report as JUnit writes it: 2,500 tests that passed, one that did not.
fn report(failed: &str) -> String {
    let passed: String =
        (0..2_500).map(|number| format!("<testcase classname='till' name='adds {number}' time='0.001'/>")).collect();
    format!(
        "<testsuite name='till'>{passed}<testcase classname='till' name='is short' time='1.5'>{failed}</testcase>\
         <testcase classname='till' name='later'><skipped/></testcase></testsuite>"
    )
}

#[test]
fn tests_that_failed_come_first_with_what_they_said_and_nothing_they_say_is_markup() {
    if !has_browser() || !has("curl") {
        return;
    }
    let (farm, pages) = farm(&["one"]);
    let text = "name = \"shop\"\nversion = \"1\"\n[steps.test]\nrun = \"mkdir out; cp report.xml out/; test -e passes\"\noutputs = [\"out\"]\n\
                reports = [\"out/*.xml\"]\ncache = false\n";
    let bad = "<failure message='expected 3, found &lt;b&gt;2&lt;/b&gt;'>&lt;script&gt;document.title='owned'&lt;/script&gt; at till.rs:7</failure>";
    let dir = project(&[("kiln.toml", text), ("report.xml", &report(bad))]);
    assert_eq!(farm.kiln(&["build", dir.path().to_str().unwrap()]).code, 1);
    let get = |path: &str| -> Value { serde_json::from_str(&curl(&[&format!("{pages}/api/v1{path}")]).body).unwrap() };
    let build = get("/builds")["builds"][0]["id"].as_str().unwrap().to_owned();
    let tests = get(&format!("/builds/{build}/tests?limit=2"));
    assert_eq!(
        (&tests["summary"]["failed"], &tests["summary"]["passed"], &tests["more"]),
        (&1.into(), &2500.into(), &2.into())
    );
    assert_eq!((&tests["tests"][0]["name"], &tests["tests"][0]["outcome"]), (&"is short".into(), &"failed".into()));
    assert!(tests["tests"][0]["output"].as_str().unwrap().contains("till.rs:7"), "{tests}");
    let last = get(&format!("/builds/{build}/tests?from=2501&step=1"));
    assert_eq!((last["tests"].as_array().unwrap().len(), &last["more"]), (1, &Value::Null));
    assert_eq!(get(&format!("/builds/{build}/tests?step=7"))["summary"], Value::Null);
    assert_eq!(get(&format!("/builds/{build}/steps/1"))["step"]["tests"]["skipped"], 1);
    browse("tested.cjs", &[&pages, &build]);
}
