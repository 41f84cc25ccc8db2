//! The Test Anything Protocol, as Node's own runner and Vitest write it, and whatever else does.
//!
//! Subtests are indented by four blanks for each level. Node tells of them before the test that they are part of, which `# Subtest:` names; Vitest puts
//! them between braces behind it.

use crate::found::Found;
use crate::text::{add, cut, milliseconds, seconds};
use crate::{Error, Outcome, Test};

/// Blanks by which a level is indented.
const LEVEL: usize = 4;
/// Between the names of what a test is part of.
const BETWEEN: &str = " > ";

/// Reads lines such as `not ok 2 - totals # time=1.5ms`, and the YAML that follows them.
#[derive(Default)]
pub(crate) struct Reading {
    is_open: bool,
    /// What the next test is part of, from the outside.
    around: Vec<String>,
    /// The test that was told of last.
    last: Option<usize>,
    /// The YAML that tells about it: how far it is indented.
    details: Option<usize>,
    /// Whether the YAML's `error` goes on.
    in_error: bool,
    /// Whether the YAML says that it is no test.
    is_suite: bool,
}

impl Reading {
    /// Reads a line; returns whether it is one of its own.
    pub(crate) fn line(&mut self, line: &str, found: &mut Found<'_>) -> Result<bool, Error> {
        let text = line.trim();
        let indent = line.len().saturating_sub(line.trim_start().len());
        if text.starts_with("TAP version ") || is_plan(line) {
            if !self.is_open || text.starts_with("TAP version ") {
                *self = Self { is_open: true, ..Self::default() };
            }
            found.is_report = true;
            return Ok(true);
        }
        if !self.is_open {
            return Ok(false);
        }
        if let Some(at) = self.details {
            if text == "..." && indent <= at {
                self.details = None;
            } else {
                self.detail(line, at, found);
            }
            return Ok(true);
        }
        let level = indent / LEVEL;
        if text == "---" {
            (self.details, self.in_error, self.is_suite) = (Some(indent), false, false);
        } else if let Some(name) = text.strip_prefix("# Subtest: ") {
            self.around.truncate(level);
            self.around.push(name.to_owned());
        } else if let Some((outcome, name)) = result(text) {
            self.told(outcome, name, level, found)?;
        } else if text == "}" {
            self.around.truncate(level);
        } else {
            return Ok(text.starts_with('#') || is_plan(text));
        }
        Ok(true)
    }

    fn told(&mut self, outcome: Outcome, text: &str, level: usize, found: &mut Found<'_>) -> Result<(), Error> {
        self.around.truncate(level);
        self.last = None;
        let (text, opens) = match text.strip_suffix('{') {
            Some(text) => (text.trim_end(), true),
            None => (text, false),
        };
        let (name, directive) = match text.rsplit_once(" # ") {
            Some(both) => both,
            None => text.strip_prefix("# ").map_or((text, ""), |directive| ("", directive)),
        };
        let name = match name.trim() {
            "" => format!("test {}", found.tests.len().saturating_add(1)),
            name => name.replace("\\#", "#"),
        };
        if opens {
            self.around.push(name);
            return Ok(());
        }
        let word = directive.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        let outcome = if word.starts_with("skip") || word == "todo" { Outcome::Skipped } else { outcome };
        // Some write all names in one.
        let whole = self.around.iter().map(String::as_str).chain([name.as_str()]).collect::<Vec<_>>().join(BETWEEN);
        let (suite, name) = whole.rsplit_once(BETWEEN).unwrap_or(("", &whole));
        let mut test = Test::new(suite, name, outcome, found.limits);
        if let Some(took) = directive.strip_prefix("time=").and_then(|took| took.split_whitespace().next()) {
            test.duration = match took.strip_suffix("ms") {
                Some(ms) => milliseconds(ms),
                None => seconds(took.trim_end_matches('s')),
            };
        }
        self.last = Some(found.add(test)?);
        Ok(())
    }

    /// A line of the YAML behind a test.
    fn detail(&mut self, line: &str, at: usize, found: &mut Found<'_>) {
        let Some(place) = self.last else { return };
        let inner = match line.get(..at) {
            Some(blank) if blank.trim().is_empty() => line.get(at..).unwrap_or_default(),
            _ => line.trim_start(),
        };
        let value = |key: &str| inner.strip_prefix(key).map(|value| value.trim().trim_matches(['\'', '"']));
        // A suite is no test, unless it failed by itself.
        self.is_suite |= value("type:") == Some("suite");
        let is_failed = found.tests.get(place).is_some_and(|test| test.outcome == Outcome::Failed);
        if self.is_suite && (!is_failed || value("failureType:") == Some("subtestsFailed")) {
            found.tests.truncate(place);
            self.last = None;
            return;
        }
        let most = (found.limits.name, found.limits.text);
        let Some(test) = found.tests.get_mut(place) else { return };
        if let Some(took) = value("duration_ms:") {
            test.duration = milliseconds(took);
            return;
        }
        if test.outcome != Outcome::Failed {
            return;
        }
        add(&mut test.output, &format!("{inner}\n"), most.1);
        let error = value("error:").or_else(|| value("message:"));
        if let Some(text) = error {
            self.in_error = true;
            test.message =
                if text.starts_with('|') || text.starts_with('>') { String::new() } else { cut(text, most.0) };
        } else if self.in_error && (inner.starts_with(' ') || inner.is_empty()) {
            // A message among others is one of its own.
            let text = inner.trim();
            if let Some((_, text)) = text.split_once("message:") {
                test.message = cut(text.trim().trim_matches(['\'', '"']), most.0);
            } else if !text.is_empty() && !text.starts_with("name:") {
                let between = if test.message.is_empty() { "" } else { " " };
                test.message = cut(&format!("{}{between}{text}", test.message), most.0);
            }
        } else {
            self.in_error = false;
        }
    }
}

/// Whether a line says how many tests there are: `1..3`.
fn is_plan(line: &str) -> bool {
    line.strip_prefix("1..").is_some_and(|count| {
        let count = count.split(" #").next().unwrap_or_default().trim_end();
        !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The outcome and the rest of a line that tells of a test.
fn result(line: &str) -> Option<(Outcome, &str)> {
    let (outcome, rest) = match line.strip_prefix("not ok") {
        Some(rest) => (Outcome::Failed, rest),
        None => (Outcome::Passed, line.strip_prefix("ok")?),
    };
    let rest = rest.strip_prefix(' ').filter(|rest| !rest.starts_with(' '))?;
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    Some((outcome, rest.strip_prefix("- ").unwrap_or(rest)))
}
