//! JUnit XML, as JUnit, Surefire, Gradle, pytest, gotestsum, cargo-nextest, CTest and others write it. There is no standard; what they have in common is
//! read, and the rest is ignored.

use std::time::Duration;

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

use crate::text::{add, cut, end_of, first_line};
use crate::{Error, Limits, Outcome, Test};

/// Reads a document.
pub(crate) fn read(xml: &[u8], limits: &Limits) -> Result<Vec<Test>, Error> {
    let mut reader = Reader::from_reader(xml);
    let mut reading = Reading { limits, open: Vec::new(), suites: Vec::new(), tests: Vec::new(), current: None };
    loop {
        let at = reader.buffer_position();
        let syntax = |error: quick_xml::Error| Error::Syntax { at, what: error.to_string() };
        match reader.read_event().map_err(syntax)? {
            Event::Start(element) => reading.begins(&element, false)?,
            Event::Empty(element) => reading.begins(&element, true)?,
            Event::End(_) => reading.ends(),
            Event::Text(text) => reading.says(&String::from_utf8_lossy(&text)),
            Event::CData(text) => reading.says(&String::from_utf8_lossy(&text)),
            Event::GeneralRef(reference) => reading.says(&referred(&reference)),
            Event::DocType(_) => return Err(Error::DocumentType),
            Event::Eof if !reading.open.is_empty() => return Err(Error::Truncated),
            Event::Eof => return Ok(reading.tests),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
        }
    }
}

/// What a character or one of XML's own five entities stands for. There are no others.
fn referred(reference: &BytesRef<'_>) -> String {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return character.to_string();
    }
    let name = String::from_utf8_lossy(reference);
    let known = quick_xml::escape::resolve_predefined_entity(&name);
    known.map_or_else(|| format!("&{name};"), str::to_owned)
}

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Suite,
    Test,
    /// What is in it is about why a test failed.
    Why,
    /// What is in it was printed.
    Printed,
    Other,
}

struct Reading<'a> {
    limits: &'a Limits,
    open: Vec<Kind>,
    suites: Vec<String>,
    tests: Vec<Test>,
    current: Option<Current>,
}

/// A test that is being read.
struct Current {
    test: Test,
    why: String,
    printed: String,
}

impl Reading<'_> {
    fn begins(&mut self, element: &BytesStart<'_>, is_empty: bool) -> Result<(), Error> {
        let local = element.local_name();
        let name = String::from_utf8_lossy(local.as_ref()).into_owned();
        if self.open.is_empty() && !matches!(name.as_str(), "testsuites" | "testsuite") {
            return Err(Error::Foreign { found: cut(&name, self.limits.name) });
        }
        if self.open.len() >= self.limits.depth {
            return Err(Error::Deep { most: self.limits.depth });
        }
        let attribute = |wanted: &str| attribute(element, wanted);
        let kind = match name.as_str() {
            "testsuites" | "testsuite" => Kind::Suite,
            "testcase" if self.current.is_none() => Kind::Test,
            "failure" | "error" | "rerunFailure" | "rerunError" | "flakyFailure" | "flakyError" => Kind::Why,
            "system-out" | "system-err" => Kind::Printed,
            _ => Kind::Other,
        };
        match (kind, &mut self.current) {
            (Kind::Suite, _) => self.suites.push(attribute("name")),
            (Kind::Test, _) => {
                if self.tests.len() >= self.limits.tests {
                    return Err(Error::Many { most: self.limits.tests });
                }
                let class = attribute("classname");
                let suite = if class.is_empty() { self.suites.last().cloned().unwrap_or_default() } else { class };
                let test = Test {
                    suite: cut(&suite, self.limits.name),
                    name: cut(&attribute("name"), self.limits.name),
                    outcome: Outcome::Passed,
                    is_flaky: false,
                    duration: seconds(&attribute("time")),
                    message: String::new(),
                    output: String::new(),
                };
                self.current = Some(Current { test, why: String::new(), printed: String::new() });
            }
            (Kind::Why, Some(current)) => {
                match name.as_str() {
                    "failure" | "error" => current.test.outcome = Outcome::Failed,
                    "flakyFailure" | "flakyError" => current.test.is_flaky = true,
                    _ => {}
                }
                if current.test.message.is_empty() {
                    let (message, of) = (attribute("message"), attribute("type"));
                    let message = if message.is_empty() { of } else { message };
                    current.test.message = cut(first_line(&message), self.limits.name);
                }
            }
            (Kind::Other, Some(current)) if name == "skipped" && current.test.outcome == Outcome::Passed => {
                current.test.outcome = Outcome::Skipped;
            }
            _ => {}
        }
        self.open.push(kind);
        if is_empty {
            self.ends();
        }
        Ok(())
    }

    fn ends(&mut self) {
        match self.open.pop() {
            Some(Kind::Suite) => drop(self.suites.pop()),
            Some(Kind::Test) => self.tests.extend(self.current.take().map(|current| current.finished(self.limits))),
            _ => {}
        }
    }

    fn says(&mut self, text: &str) {
        let Some(current) = &mut self.current else { return };
        let to = match self.open.last() {
            Some(Kind::Why) => &mut current.why,
            Some(Kind::Printed) => &mut current.printed,
            _ => return,
        };
        add(to, text, self.limits.text);
    }
}

impl Current {
    fn finished(self, limits: &Limits) -> Test {
        let Self { mut test, why, printed } = self;
        if test.outcome == Outcome::Failed || test.is_flaky {
            let parts = [end_of(why.trim(), limits.text), end_of(printed.trim(), limits.text)];
            test.output = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n");
            if test.message.is_empty() {
                test.message = cut(first_line(&why), limits.name);
            }
        }
        test
    }
}

/// The value of an attribute; empty if there is none, or it is malformed.
fn attribute(element: &BytesStart<'_>, wanted: &str) -> String {
    let found = element.attributes().with_checks(false).flatten().find(|one| one.key.as_ref() == wanted.as_bytes());
    let Some(found) = found else { return String::new() };
    let raw = String::from_utf8_lossy(&found.value);
    quick_xml::escape::unescape(&raw).map_or_else(|_| raw.to_string(), |text| text.into_owned())
}

/// A time such as `0.015` or `1,234.5`.
fn seconds(text: &str) -> Duration {
    let seconds: f64 = text.trim().replace(',', "").parse().unwrap_or(0.0);
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
