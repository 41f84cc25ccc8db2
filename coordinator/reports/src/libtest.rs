//! What Rust's own test runner prints, as text and as JSON, with `cargo test` around it.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;

use crate::found::{Found, lines};
use crate::text::{add, cut, end_of, seconds};
use crate::{Error, Outcome, Test};

/// What it says after the name of a test about how that is run.
const MODES: [&str; 3] = [" - should panic", " - compile fail", " - compile"];

/// Reads the lines of one program after the other.
pub(crate) struct Reading {
    /// The programs that cargo announced on the other stream and that have not begun.
    announced: VecDeque<String>,
    suite: String,
    open: Option<Program>,
}

/// A program of tests that is running.
struct Program {
    tests: usize,
    told: usize,
    /// A test that has begun, and whose result is behind what it prints.
    pending: Option<String>,
    /// Its failed tests.
    failed: HashMap<String, usize>,
    /// Whether what follows is about failures, and of which test.
    about: Option<Option<usize>>,
}

impl Reading {
    /// `err` is the standard error beside the lines: what cargo announces there is in the same order.
    pub(crate) fn new(err: &[u8]) -> Self {
        let announced = lines(err).filter_map(|line| program(&line)).take(10_000).collect();
        Self { announced, suite: String::new(), open: None }
    }

    /// Reads a line; returns whether it is one of its own.
    pub(crate) fn line(&mut self, line: &str, found: &mut Found<'_>) -> Result<bool, Error> {
        if line.starts_with('{') {
            return self.event(line, found);
        }
        if let Some(tests) = beginning(line) {
            self.end(found)?;
            found.is_report = true;
            // Several runs of the last program are its documentation's.
            if let Some(next) = self.announced.pop_front() {
                self.suite = next;
            }
            self.open = Some(Program { tests, told: 0, pending: None, failed: HashMap::new(), about: None });
            return Ok(true);
        }
        if let Some(suite) = program(line) {
            self.end(found)?;
            self.suite = suite;
            return Ok(true);
        }
        let Some(open) = &mut self.open else { return Ok(false) };
        if line.starts_with("test result: ") {
            self.open = None;
            return Ok(true);
        }
        open.line(line, &self.suite, found)?;
        Ok(true)
    }

    fn event(&mut self, line: &str, found: &mut Found<'_>) -> Result<bool, Error> {
        let Ok(event) = serde_json::from_str::<Event>(line) else { return Ok(false) };
        match (event.kind.as_str(), event.event.as_str()) {
            ("suite", "started") => self.suite = self.announced.pop_front().unwrap_or_default(),
            ("suite", _) => {}
            ("test", "ok" | "failed" | "ignored" | "timeout") => {
                let outcome = match event.event.as_str() {
                    "ok" => Outcome::Passed,
                    "ignored" => Outcome::Skipped,
                    // It is told again when it has ended.
                    "timeout" => return Ok(true),
                    _ => Outcome::Failed,
                };
                let mut test = Test::new(&self.suite, named(&event.name), outcome, found.limits);
                test.duration = event.exec_time.map(|time| seconds(&time.to_string())).unwrap_or_default();
                if outcome == Outcome::Failed {
                    test.output = end_of(event.stdout.trim(), found.limits.text).to_owned();
                    test.message = cut(&event.message, found.limits.name);
                }
                found.add(test)?;
            }
            ("test", "started") => {}
            _ => return Ok(false),
        }
        found.is_report = true;
        Ok(true)
    }

    /// What is running has ended, and has not said so.
    pub(crate) fn end(&mut self, found: &mut Found<'_>) -> Result<(), Error> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let mut test = Test::new(&self.suite, "(the program)", Outcome::Failed, found.limits);
        test.message = format!("it ended after {} of {} tests", open.told, open.tests);
        if let Some(pending) = &open.pending {
            test.message.push_str(&format!(", in `{}`", cut(pending, found.limits.name)));
        }
        found.add(test).map(drop)
    }
}

impl Program {
    fn line(&mut self, line: &str, suite: &str, found: &mut Found<'_>) -> Result<(), Error> {
        if line == "failures:" {
            self.about = Some(None);
            return Ok(());
        }
        if let Some(about) = &mut self.about {
            let told = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----"));
            if let Some((name, _)) = told.and_then(|told| told.rsplit_once(' ')) {
                let name = named(name).to_owned();
                // Where only dots are printed, this is the first that is heard of it.
                let place = match self.failed.get(&name) {
                    Some(place) => *place,
                    None => found.add(Test::new(suite, &name, Outcome::Failed, found.limits))?,
                };
                self.failed.insert(name, place);
                *about = Some(place);
            } else if let Some(test) = about.and_then(|place| found.tests.get_mut(place)) {
                add(&mut test.output, &format!("{line}\n"), found.limits.text);
            }
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("test ")
            && let Some((name, said)) = rest.split_once(" ... ")
        {
            match result(said) {
                Some((outcome, took)) => return self.ended(named(name), outcome, took, suite, found),
                None => self.pending = Some(named(name).to_owned()),
            }
        } else if let Some((outcome, took)) = result(line)
            && let Some(name) = self.pending.take()
        {
            return self.ended(&name, outcome, took, suite, found);
        }
        Ok(())
    }

    fn ended(
        &mut self,
        name: &str,
        outcome: Outcome,
        took: &str,
        suite: &str,
        found: &mut Found<'_>,
    ) -> Result<(), Error> {
        self.told = self.told.saturating_add(1);
        self.pending = None;
        let mut test = Test::new(suite, name, outcome, found.limits);
        test.duration = seconds(took);
        let place = found.add(test)?;
        if outcome == Outcome::Failed {
            self.failed.insert(name.to_owned(), place);
        }
        Ok(())
    }
}

/// An event of its JSON.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    event: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    message: String,
    exec_time: Option<f64>,
}

/// The number of tests of a program that begins.
fn beginning(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("running ")?;
    rest.strip_suffix(" tests").or_else(|| rest.strip_suffix(" test"))?.parse().ok()
}

/// The program that cargo says it runs: `Running unittests src/lib.rs (target/debug/deps/shop-0123456789abcdef)` or `Doc-tests shop`.
fn program(line: &str) -> Option<String> {
    let line = line.trim();
    if let Some(of) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{of} (documentation)"));
    }
    let rest = line.strip_prefix("Running ")?.strip_suffix(')')?;
    let (_, path) = rest.rsplit_once(" (")?;
    let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
    let name = name.rsplit_once('-').filter(|(_, hash)| hash.len() == 16).map_or(name, |(name, _)| name);
    Some(name.to_owned())
}

fn named(name: &str) -> &str {
    MODES.iter().find_map(|mode| name.strip_suffix(mode)).unwrap_or(name)
}

/// What is said of a test that has ended, and its seconds.
fn result(said: &str) -> Option<(Outcome, &str)> {
    let (word, took) = match said.strip_suffix("s>").and_then(|said| said.rsplit_once(" <")) {
        Some((word, took)) => (word, took),
        None => (said, ""),
    };
    let outcome = match word {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        "ignored" => Outcome::Skipped,
        _ if word.starts_with("ignored, ") => Outcome::Skipped,
        _ if word.starts_with("FAILED (") => Outcome::Failed,
        _ if word.trim_start().starts_with("bench:") => Outcome::Passed,
        _ => return None,
    };
    Some((outcome, took))
}
