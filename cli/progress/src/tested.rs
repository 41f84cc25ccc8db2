//! What is said about the tests of a step.

use std::time::Duration;

use kiln_proto::v1::{TestCase, TestSummary, test_case::Outcome};
use kiln_terminal::{Look, colours, count, duration, harmless, last_overwrite, paint, shown};

/// Failed tests that a summary shows, and lines of what each said.
const SHOWN: usize = 10;
const LINES: usize = 20;

/// The tests of a step in a line.
pub(crate) fn counts(tests: &TestSummary) -> String {
    let all = (tests.passed + tests.failed + tests.skipped) as usize;
    let mut words = vec![count(all, "test")];
    for (number, word) in [(tests.failed, "failed"), (tests.skipped, "skipped"), (tests.flaky, "flaky")] {
        if number > 0 {
            words.push(format!("{number} {word}"));
        }
    }
    let mut line = format!("{} in {}", words.join(", "), duration(Duration::from_millis(tests.duration_ms)));
    for why in &tests.unread {
        line.push_str(&format!("; not read: {why}"));
    }
    harmless(&line)
}

/// The name of a test.
pub fn name(test: &TestCase) -> String {
    let name = if test.suite.is_empty() { test.name.clone() } else { format!("{} {}", test.suite, test.name) };
    harmless(&name)
}

/// The failed tests of a step with what they said, then the names of those that are flaky; at most so many of each, and so many lines.
pub fn failures(tests: &[TestCase], (shown_tests, lines): (usize, usize)) -> Vec<String> {
    let mut out = Vec::new();
    let failed: Vec<&TestCase> = tests.iter().filter(|test| test.outcome() == Outcome::Failed).collect();
    for test in failed.iter().take(shown_tests) {
        let took = duration(Duration::from_millis(test.duration_ms));
        let flaky = if test.flaky { ", flaky" } else { "" };
        let message = if test.message.is_empty() { String::new() } else { format!(": {}", harmless(&test.message)) };
        let head = format!("failed: {} ({took}{flaky}){message}", name(test));
        out.push(paint(Look::Bad, &head));
        let said: Vec<&str> = test.output.lines().collect();
        out.extend(said.iter().take(lines).map(|line| format!("    {}", shown(last_overwrite(line), colours()))));
        if said.len() > lines {
            out.push("    …".to_owned());
        }
    }
    if failed.len() > shown_tests {
        out.push(format!("… and {} more", failed.len() - shown_tests));
    }
    let passed = tests.iter().filter(|test| test.flaky && test.outcome() == Outcome::Passed);
    out.extend(
        passed
            .take(shown_tests)
            .map(|test| format!("flaky: {} passed, and has failed with the same inputs", name(test))),
    );
    out
}

/// As [`failures`], as much as a summary has room for.
pub(crate) fn in_short(tests: &[TestCase]) -> Vec<String> {
    failures(tests, (SHOWN, LINES))
}
