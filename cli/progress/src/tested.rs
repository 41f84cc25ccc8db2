//! What is said about the tests of a step.

use std::time::Duration;

use super::{Board, Key};
use kiln_proto::v1::{TestCase, TestSummary, test_case::Outcome};
use kiln_terminal::{Look, colours, count, duration, harmless, last_overwrite, paint, shown};

/// Failed tests that a summary shows, and lines of what each said.
const SHOWN: usize = 10;
const LINES: usize = 20;

/// The tests of steps that succeeded which are flaky, or failed all the same.
pub(crate) fn of_successes(board: &Board) -> Vec<String> {
    let succeeded = board.steps.iter().filter(|(_, step)| step.finished.as_ref().is_some_and(|finished| finished.ok));
    let lines = succeeded.flat_map(|(key, step)| {
        let label = harmless(&board.label(key));
        in_short(&step.tests).into_iter().map(move |line| format!("{label}: {line}"))
    });
    lines.collect()
}

/// How many tests each step has, in all its shards.
pub(crate) fn of_steps(board: &Board) -> Vec<String> {
    let mut steps: Vec<(Key, TestSummary)> = Vec::new();
    for (key, step) in &board.steps {
        let Some(tests) = step.finished.as_ref().and_then(|finished| finished.tests.as_ref()) else { continue };
        let whole = Key { shard: 0, ..key.clone() };
        match steps.iter_mut().find(|(known, _)| *known == whole) {
            Some((_, all)) => add(all, tests),
            None => steps.push((whole, tests.clone())),
        }
    }
    let line = |(key, tests): (Key, TestSummary)| {
        let shards = if key.shards > 1 { format!(" in {} shards", key.shards) } else { String::new() };
        let label = harmless(&board.label(&Key { shards: 1, ..key }));
        format!("{label}: {}{shards}", counts(&tests))
    };
    steps.into_iter().map(line).collect()
}

/// Adds the tests of another shard.
fn add(all: &mut TestSummary, more: &TestSummary) {
    all.passed += more.passed;
    all.failed += more.failed;
    all.skipped += more.skipped;
    all.flaky += more.flaky;
    all.duration_ms += more.duration_ms;
    all.unread.extend(more.unread.iter().cloned());
}

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

fn why(test: &TestCase) -> String {
    if test.message.is_empty() { String::new() } else { format!(": {}", harmless(&test.message)) }
}

/// The failed tests of a step with what they said, then the names of those that are flaky; at most so many of each, and so many lines.
pub fn failures(tests: &[TestCase], (shown_tests, lines): (usize, usize)) -> Vec<String> {
    let mut out = Vec::new();
    let failed: Vec<&TestCase> = tests.iter().filter(|test| test.outcome() == Outcome::Failed).collect();
    for test in failed.iter().take(shown_tests) {
        let took = duration(Duration::from_millis(test.duration_ms));
        let flaky = if test.flaky { ", flaky" } else { "" };
        let head = format!("failed: {} ({took}{flaky}){}", name(test), why(test));
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
            .map(|test| format!("flaky: {} passed, and has failed with the same inputs{}", name(test), why(test))),
    );
    out
}

/// As [`failures`], as much as a summary has room for.
pub(crate) fn in_short(tests: &[TestCase]) -> Vec<String> {
    failures(tests, (SHOWN, LINES))
}
