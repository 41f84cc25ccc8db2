//! What cargo-nextest prints.

use std::collections::HashMap;

use crate::found::Found;
use crate::text::{add, seconds};
use crate::{Error, Outcome, Test};

/// Words of a test that did not pass. Of a signal, it prints the name.
const FAILED: [&str; 4] = ["FAIL", "ABORT", "TIMEOUT", "LEAK-FAIL"];

/// Reads lines such as `PASS [   0.005s] (1/5) shop tests::adds`, between the first and the last.
#[derive(Default)]
pub(crate) struct Reading {
    is_open: bool,
    /// The tests of this run.
    known: HashMap<(String, String), usize>,
    /// The failed one that was told of last, whose output follows.
    failed: Option<usize>,
}

impl Reading {
    /// Reads a line; returns whether it is one of its own.
    pub(crate) fn line(&mut self, line: &str, found: &mut Found<'_>) -> Result<bool, Error> {
        let text = line.trim_start();
        if text.starts_with("Starting ") && text.contains(" test") && text.contains(" across ") {
            *self = Self { is_open: true, ..Self::default() };
            found.is_report = true;
            return Ok(true);
        }
        if !self.is_open {
            return Ok(false);
        }
        if text.starts_with("Summary [") {
            self.is_open = false;
        } else if let Some((outcome, took, suite, name)) = result(text) {
            self.told(outcome, took, (suite, name), found)?;
        } else if let Some(test) = self.failed.and_then(|place| found.tests.get_mut(place)) {
            let line = line.strip_prefix("    ").unwrap_or(line);
            add(&mut test.output, &format!("{line}\n"), found.limits.text);
        }
        Ok(true)
    }

    fn told(&mut self, outcome: Outcome, took: &str, key: (&str, &str), found: &mut Found<'_>) -> Result<(), Error> {
        let place = match self.known.get(&(key.0.to_owned(), key.1.to_owned())) {
            Some(place) => *place,
            None => {
                let place = found.add(Test::new(key.0, key.1, outcome, found.limits))?;
                self.known.insert((key.0.to_owned(), key.1.to_owned()), place);
                place
            }
        };
        self.failed = (outcome == Outcome::Failed).then_some(place);
        let Some(test) = found.tests.get_mut(place) else { return Ok(()) };
        // It runs a test again only after it has failed.
        test.is_flaky |= test.outcome == Outcome::Failed && outcome == Outcome::Passed;
        if outcome == Outcome::Failed {
            test.output.clear();
        }
        (test.outcome, test.duration) = (outcome, seconds(took));
        Ok(())
    }
}

/// What a line tells of a test: `TRY 2 FAIL [   0.070s] (3/5) shop tests::totals`.
fn result(line: &str) -> Option<(Outcome, &str, &str, &str)> {
    let (status, rest) = line.split_once('[')?;
    let (took, rest) = rest.split_once("s]")?;
    took.trim().parse::<f64>().ok()?;
    let word = status.trim();
    let word = match word.strip_prefix("TRY ") {
        Some(attempt) => attempt.trim_start().split_once(' ')?.1,
        None => word,
    };
    let outcome = match word {
        "PASS" | "LEAK" => Outcome::Passed,
        _ if FAILED.contains(&word) || word.starts_with("SIG") => Outcome::Failed,
        _ => return None,
    };
    let rest = rest.trim_start();
    // The count is new.
    let rest = rest.strip_prefix('(').and_then(|rest| rest.split_once(") ")).map_or(rest, |(_, rest)| rest);
    let (suite, name) = rest.split_once(' ')?;
    Some((outcome, took, suite, name))
}
