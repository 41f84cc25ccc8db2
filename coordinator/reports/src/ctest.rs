//! What `ctest` prints.

use crate::found::Found;
use crate::text::{add, cut, seconds};
use crate::{Error, Outcome, Test};

/// Reads lines such as `1/3 Test #1: name ......   Passed    0.00 sec`, and what failed tests printed after theirs.
#[derive(Default)]
pub(crate) struct Reading {
    /// Whether its tests are being printed.
    is_open: bool,
    /// The failed test that was told of last.
    failed: Option<usize>,
}

impl Reading {
    /// Reads a line; returns whether it is one of its own.
    pub(crate) fn line(&mut self, line: &str, found: &mut Found<'_>) -> Result<bool, Error> {
        if line.starts_with("Test project ") {
            (self.is_open, self.failed) = (true, None);
            return Ok(true);
        }
        if !self.is_open {
            return Ok(false);
        }
        if line == "No tests were found!!!" || line.contains("% tests passed, ") {
            (self.is_open, self.failed, found.is_report) = (false, None, true);
        } else if let Some((name, outcome, word, took)) = result(line) {
            let mut test = Test::new("", name, outcome, found.limits);
            test.duration = seconds(took);
            test.message = cut(word, found.limits.name);
            let place = found.add(test)?;
            self.failed = (outcome == Outcome::Failed).then_some(place);
        } else if line.trim_start().starts_with("Start ") {
            self.failed = None;
        } else if let Some(test) = self.failed.and_then(|place| found.tests.get_mut(place)) {
            add(&mut test.output, &format!("{line}\n"), found.limits.text);
        }
        Ok(true)
    }
}

/// The name, outcome, reason and seconds of a line that tells of a test.
fn result(line: &str) -> Option<(&str, Outcome, &str, &str)> {
    let (count, rest) = line.trim_start().split_once(" Test ")?;
    let (done, all) = count.split_once('/')?;
    if ![done, all].iter().all(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    let (_, rest) = rest.trim_start().strip_prefix('#')?.split_once(": ")?;
    let (rest, took) = rest.strip_suffix(" sec")?.rsplit_once(' ')?;
    let rest = rest.trim_end();
    if let Some((name, word)) = rest.rsplit_once("***") {
        let outcome = if word.starts_with("Skipped") { Outcome::Skipped } else { Outcome::Failed };
        return Some((dotless(name), outcome, word, took));
    }
    let name = rest.strip_suffix("Passed")?;
    Some((dotless(name), Outcome::Passed, "", took))
}

/// The name without the dots that lead to the result.
fn dotless(name: &str) -> &str {
    name.trim_end().trim_end_matches('.').trim_end()
}
