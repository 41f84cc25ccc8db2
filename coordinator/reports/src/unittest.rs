//! What Python's `unittest` prints with `-v`, on the standard error. Without it, only the tests that failed are known.

use std::collections::HashMap;

use crate::found::Found;
use crate::text::{add, cut, seconds};
use crate::{Error, Outcome, Test};

/// Reads lines such as `test_adds (test_cart.Cart.test_adds) ... ok`, and the sections about tests that failed.
#[derive(Default)]
pub(crate) struct Reading {
    /// The tests of this run, by suite and name.
    known: HashMap<(String, String), usize>,
    /// A test whose outcome is on a later line, behind its description or what it printed.
    pending: Option<(String, String)>,
    /// The test that a section is about, and whether its text has begun.
    section: Option<(usize, bool)>,
    /// What a line of equals signs said: that a section begins.
    begins: bool,
}

impl Reading {
    /// Reads a line; returns whether it is one of its own.
    pub(crate) fn line(&mut self, line: &str, found: &mut Found<'_>) -> Result<bool, Error> {
        let is_rule = |sign: u8| line.len() == 70 && line.bytes().all(|byte| byte == sign);
        if is_rule(b'=') {
            (self.begins, self.section) = (true, None);
            return Ok(true);
        }
        if std::mem::take(&mut self.begins) {
            let failed = line.strip_prefix("FAIL: ").or_else(|| line.strip_prefix("ERROR: "));
            if let Some((key, _)) = failed.and_then(test) {
                let place = self.told(key, Outcome::Failed, found)?;
                self.section = Some((place, false));
                return Ok(true);
            }
        }
        if let Some((place, has_begun)) = &mut self.section {
            match (is_rule(b'-'), *has_begun) {
                (true, false) => *has_begun = true,
                (true, true) => self.section = None,
                (false, _) => {
                    if let Some(test) = found.tests.get_mut(*place) {
                        add(&mut test.output, &format!("{line}\n"), found.limits.text);
                        // The last line of a traceback that is not indented is the exception.
                        if !line.is_empty() && !line.starts_with([' ', '\t']) && !line.starts_with("Traceback ") {
                            test.message = cut(line, found.limits.name);
                        }
                    }
                }
            }
            return Ok(true);
        }
        if line.starts_with("Ran ") && line.contains(" test") && line.contains(" in ") {
            (found.is_report, *self) = (true, Self::default());
            return Ok(true);
        }
        if let Some(place) = self.duration(line).and_then(|(key, took)| Some((*self.known.get(&key)?, took))) {
            if let Some(test) = found.tests.get_mut(place.0) {
                test.duration = seconds(place.1);
            }
            return Ok(true);
        }
        self.result(line, found)
    }

    /// A line with a test, its outcome, or both.
    fn result(&mut self, line: &str, found: &mut Found<'_>) -> Result<bool, Error> {
        let (before, status) = line.rsplit_once(" ... ").unwrap_or(("", line));
        let outcome = outcome(status);
        // Before Python 3.11, a test with subtests that fail leaves its line open.
        let named = test(before.rsplit(" ... ").next().filter(|last| !last.is_empty()).unwrap_or(line).trim_start());
        match (named, outcome) {
            (Some((key, _)), Some(outcome)) if !before.is_empty() => {
                self.pending = None;
                self.told(key, outcome, found)?;
            }
            // Its outcome follows, behind its description or whatever it prints.
            (Some((key, rest)), _) if rest.is_empty() || rest.starts_with(" ... ") => self.pending = Some(key),
            (_, Some(outcome)) => match self.pending.take() {
                Some(key) => drop(self.told(key, outcome, found)?),
                None => return Ok(false),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Adds a test, or changes its outcome: one subtest that fails is enough.
    fn told(&mut self, key: (String, String), outcome: Outcome, found: &mut Found<'_>) -> Result<usize, Error> {
        if let Some(place) = self.known.get(&key) {
            // What it was told beside may have been taken back, and it with that.
            if let Some(test) = found.tests.get_mut(*place) {
                test.outcome = if outcome == Outcome::Failed { outcome } else { test.outcome };
                return Ok(*place);
            }
        }
        let place = found.add(Test::new(&key.0, &key.1, outcome, found.limits))?;
        self.known.insert(key, place);
        Ok(place)
    }

    /// A line of the list of the slowest: `0.201s     test_adds (test_cart.Cart.test_adds)`.
    fn duration<'a>(&self, line: &'a str) -> Option<((String, String), &'a str)> {
        let (took, rest) = line.split_once("s ")?;
        took.parse::<f64>().ok()?;
        Some((test(rest.trim_start())?.0, took))
    }
}

/// The suite and name at the beginning of a line, and what follows: `test_adds (test_cart.Cart.test_adds)`. Before Python 3.11, the name is not
/// repeated in the brackets.
fn test(line: &str) -> Option<((String, String), &str)> {
    let (name, rest) = line.split_once(" (")?;
    let (place, rest) = rest.split_once(')')?;
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_');
    let is_path = place.split('.').all(|part| is_name(part) || part == "<locals>");
    if !is_name(name) || !is_path {
        return None;
    }
    let suite = place.strip_suffix(name).and_then(|suite| suite.strip_suffix('.')).unwrap_or(place);
    Some(((suite.to_owned(), name.to_owned()), rest))
}

fn outcome(status: &str) -> Option<Outcome> {
    match status.trim() {
        "ok" | "expected failure" => Some(Outcome::Passed),
        "FAIL" | "ERROR" | "unexpected success" => Some(Outcome::Failed),
        status if status.starts_with("skipped") => Some(Outcome::Skipped),
        _ => None,
    }
}
