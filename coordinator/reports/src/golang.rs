//! What `go test` prints, with and without `-v`, and its JSON.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::found::Found;
use crate::text::{add, cut, seconds};
use crate::{Error, Outcome, Test};

/// The name of what is told of a package as a whole.
const PACKAGE: &str = "(the package)";

/// Reads the lines of one package after the other, or events of several at once.
#[derive(Default)]
pub(crate) struct Reading {
    /// The first test of the package that is being printed.
    first: Option<usize>,
    /// Tests of this package that have begun and not ended, with what they print.
    running: BTreeMap<String, String>,
    /// The test that prints.
    prints: Option<String>,
    /// The failed test that was told of last, below which older versions and `go test` without `-v` print what it said.
    failed: Option<usize>,
    /// What the package printed besides.
    said: String,
    /// Tests that have begun and not ended by their events, and packages.
    events: BTreeMap<(String, String), String>,
    /// Packages with failed tests.
    has_failed: std::collections::HashSet<String>,
}

impl Reading {
    /// Reads a line; returns whether it is one of its own.
    pub(crate) fn line(&mut self, line: &str, found: &mut Found<'_>) -> Result<bool, Error> {
        if line.starts_with('{') {
            return self.event(line, found);
        }
        // `-v=test2json` marks its lines.
        let line = line.strip_prefix('\u{16}').unwrap_or(line);
        for (begin, starts) in
            [("=== RUN   ", true), ("=== CONT  ", false), ("=== NAME  ", false), ("=== PAUSE ", false)]
        {
            let Some(name) = line.strip_prefix(begin) else { continue };
            if starts && self.running.len() < found.limits.tests {
                self.running.insert(name.to_owned(), String::new());
            }
            self.first.get_or_insert(found.tests.len());
            (self.prints, self.failed) = (Some(name.to_owned()), None);
            return Ok(true);
        }
        if let Some((name, outcome, took)) = result(line.trim_start()) {
            self.ended(name, outcome, took, found)?;
            return Ok(true);
        }
        if let Some((package, word, took)) = package(line) {
            self.package(package, word, took, found)?;
            return Ok(true);
        }
        self.said(line, found);
        Ok(false)
    }

    fn ended(&mut self, name: &str, outcome: Outcome, took: &str, found: &mut Found<'_>) -> Result<(), Error> {
        self.first.get_or_insert(found.tests.len());
        let output = self.running.remove(name).unwrap_or_default();
        let mut test = Test::new("", name, outcome, found.limits);
        test.duration = seconds(took);
        if outcome == Outcome::Failed {
            test.output = output;
        }
        let place = found.add(test)?;
        (self.failed, self.prints) = ((outcome == Outcome::Failed).then_some(place), None);
        Ok(())
    }

    fn said(&mut self, line: &str, found: &mut Found<'_>) {
        if matches!(line, "PASS" | "FAIL") {
            return;
        }
        let (text, most) = (format!("{line}\n"), found.limits.text);
        if let Some(output) = self.prints.as_ref().and_then(|name| self.running.get_mut(name)) {
            add(output, &text, most);
        } else if let Some(test) = self.failed.and_then(|place| found.tests.get_mut(place)) {
            add(&mut test.output, &text, most);
        } else {
            add(&mut self.said, &text, most);
        }
    }

    /// A package has ended: whatever was told since the last one is its own.
    fn package(&mut self, package: &str, word: &str, took: &str, found: &mut Found<'_>) -> Result<(), Error> {
        found.is_report = true;
        let has_failed = word == "FAIL";
        // Those in the middle of which it ended.
        for (name, output) in std::mem::take(&mut self.running).into_iter().filter(|_| has_failed) {
            let mut test = Test::new("", &name, Outcome::Failed, found.limits);
            test.output = output;
            let place = found.add(test)?;
            self.first.get_or_insert(place);
        }
        let first = self.first.take().unwrap_or(found.tests.len());
        for test in found.tests.iter_mut().skip(first) {
            test.suite = cut(package, found.limits.name);
        }
        let has_told = found.tests.iter().skip(first).any(|test| !has_failed || test.outcome == Outcome::Failed);
        let said = std::mem::take(&mut self.said);
        (self.prints, self.failed) = (None, None);
        if !has_told && word != "?" {
            let outcome = if has_failed { Outcome::Failed } else { Outcome::Passed };
            let mut test = Test::new(package, PACKAGE, outcome, found.limits);
            test.duration = seconds(took.trim_end_matches('s'));
            if has_failed {
                test.output = said;
                if took.starts_with('[') {
                    test.message = cut(took.trim_matches(['[', ']']), found.limits.name);
                }
            }
            found.add(test)?;
        }
        Ok(())
    }

    fn event(&mut self, line: &str, found: &mut Found<'_>) -> Result<bool, Error> {
        let Ok(event) = serde_json::from_str::<Event>(line) else { return Ok(false) };
        let Event { action, package, import_path, failed_build, test: name, elapsed, output } = event;
        // What compilers say of a package that is not compiled.
        if package.is_empty() {
            if action == "build-output" && self.events.len() / 2 < found.limits.tests {
                add(self.events.entry((import_path, String::new())).or_default(), &output, found.limits.text);
            }
            return Ok(action.starts_with("build-"));
        }
        found.is_report = true;
        let key = (cut(&package, found.limits.name), cut(&name, found.limits.name));
        let outcome = match action.as_str() {
            "output" if self.events.contains_key(&key) || self.events.len() / 2 < found.limits.tests => {
                let is_frame = ["=== ", "--- "].iter().any(|begin| output.trim_start().starts_with(begin));
                if !is_frame {
                    add(self.events.entry(key).or_default(), &output, found.limits.text);
                }
                return Ok(true);
            }
            "run" if self.events.len() / 2 < found.limits.tests => {
                self.events.entry(key).or_default();
                return Ok(true);
            }
            "pass" => Outcome::Passed,
            "skip" => Outcome::Skipped,
            "fail" => Outcome::Failed,
            _ => return Ok(true),
        };
        let mut said = self.events.remove(&key).unwrap_or_default();
        if let Some(built) = self.events.remove(&(failed_build, String::new())) {
            said.insert_str(0, &built);
        }
        if name.is_empty() {
            return self.package_event(&key.0, outcome, said, found).map(|()| true);
        }
        let mut test = Test::new(&package, &name, outcome, found.limits);
        test.duration = seconds(&elapsed.to_string());
        if outcome == Outcome::Failed {
            self.has_failed.insert(key.0);
            test.output = said;
        }
        found.add(test)?;
        Ok(true)
    }

    /// A package as a whole is told of if it failed and none of its tests did.
    fn package_event(
        &mut self,
        package: &str,
        outcome: Outcome,
        said: String,
        found: &mut Found<'_>,
    ) -> Result<(), Error> {
        let began = |(of, name): &&(String, String)| of == package && !name.is_empty();
        let from = (package.to_owned(), String::new());
        let open: Vec<_> = self.events.range(from..).map(|(key, _)| key).take_while(|key| key.0 == package).collect();
        let open: Vec<_> = open.into_iter().filter(began).cloned().collect();
        for key in open {
            let output = self.events.remove(&key).unwrap_or_default();
            if outcome == Outcome::Failed {
                self.unended(key, output, found)?;
            }
        }
        if outcome == Outcome::Failed && !self.has_failed.contains(package) {
            let mut test = Test::new(package, PACKAGE, outcome, found.limits);
            test.output = said;
            found.add(test)?;
        }
        Ok(())
    }

    fn unended(&mut self, key: (String, String), output: String, found: &mut Found<'_>) -> Result<(), Error> {
        let mut test = Test::new(&key.0, &key.1, Outcome::Failed, found.limits);
        test.output = output;
        if test.output.trim().is_empty() {
            test.message = "it did not end".to_owned();
        }
        self.has_failed.insert(key.0);
        found.add(test).map(drop)
    }

    /// Those that have not ended at the end of all have failed.
    pub(crate) fn end(&mut self, found: &mut Found<'_>) -> Result<(), Error> {
        for (key, output) in std::mem::take(&mut self.events).into_iter().filter(|(key, _)| !key.1.is_empty()) {
            self.unended(key, output, found)?;
        }
        for (name, output) in std::mem::take(&mut self.running) {
            self.unended((String::new(), name), output, found)?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    action: String,
    #[serde(default)]
    package: String,
    #[serde(default)]
    import_path: String,
    #[serde(default)]
    failed_build: String,
    #[serde(default)]
    test: String,
    #[serde(default)]
    elapsed: f64,
    #[serde(default)]
    output: String,
}

/// A line such as `--- PASS: TestAdds (0.00s)`.
fn result(line: &str) -> Option<(&str, Outcome, &str)> {
    let (word, rest) = line.strip_prefix("--- ")?.split_once(": ")?;
    let outcome = match word {
        "PASS" => Outcome::Passed,
        "FAIL" => Outcome::Failed,
        "SKIP" => Outcome::Skipped,
        _ => return None,
    };
    let (name, took) = rest.strip_suffix("s)")?.rsplit_once(" (")?;
    Some((name, outcome, took))
}

/// A line that begins with `ok`, `FAIL` or `?` and a tab: the package, what came of it, and the rest.
fn package(line: &str) -> Option<(&str, &str, &str)> {
    let (word, rest) = line.split_once('\t')?;
    let word = word.trim_end();
    if !matches!(word, "ok" | "FAIL" | "?") {
        return None;
    }
    let rest = rest.trim_start();
    let (package, took) = rest.split_once(['\t', ' ']).unwrap_or((rest, ""));
    let took = took.trim();
    if package.is_empty() {
        return None;
    }
    let is_one = word != "FAIL" || took.starts_with('[') || took.ends_with('s');
    is_one.then_some((package, word, took))
}
