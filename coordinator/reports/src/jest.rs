//! The JSON of Jest (`--json --outputFile=…`), which Vitest writes too.

use serde::Deserialize;

use crate::text::{cut, end_of, first_line};
use crate::{Error, Limits, Outcome, Test};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    test_results: Vec<File>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    name: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    assertion_results: Vec<Assertion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Assertion {
    #[serde(default)]
    full_name: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    duration: Option<f64>,
    #[serde(default)]
    failure_messages: Option<Vec<String>>,
    #[serde(default)]
    invocations: Option<u64>,
}

/// Whether a text looks like one: an object that is no line of events.
pub(crate) fn is_like(text: &[u8]) -> bool {
    let key = br#""testResults""#;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_event = serde_json::from_slice::<Line>(line).is_ok_and(|line| line.action.is_some() || line.event.is_some());
    text.starts_with(b"{") && !is_event && text.windows(key.len()).any(|part| part == key)
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "Action")]
    action: Option<serde::de::IgnoredAny>,
    event: Option<serde::de::IgnoredAny>,
}

/// Reads a document.
pub(crate) fn read(text: &[u8], limits: &Limits) -> Result<Vec<Test>, Error> {
    let document: Document =
        serde_json::from_slice(text).map_err(|error| Error::Json { what: cut(&error.to_string(), limits.name) })?;
    let mut tests = Vec::new();
    for file in &document.test_results {
        // Where the sources of a step are says nothing.
        let suite = file.name.strip_prefix("/build/").unwrap_or(&file.name);
        if file.assertion_results.is_empty() && file.status == "failed" {
            let message = file.message.as_deref().unwrap_or_default();
            tests.push(failed(Test::new(suite, "(the file)", Outcome::Failed, limits), message, limits));
        }
        tests.extend(file.assertion_results.iter().map(|one| test(suite, one, limits)));
        if tests.len() > limits.tests {
            return Err(Error::Many { most: limits.tests });
        }
    }
    Ok(tests)
}

fn test(suite: &str, one: &Assertion, limits: &Limits) -> Test {
    let outcome = match one.status.as_str() {
        "passed" => Outcome::Passed,
        "failed" => Outcome::Failed,
        _ => Outcome::Skipped,
    };
    let name = if one.full_name.is_empty() { &one.title } else { &one.full_name };
    let mut test = Test::new(suite, name, outcome, limits);
    let seconds = one.duration.unwrap_or_default() / 1000.0;
    test.duration = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
    // It runs a test again only after it has failed.
    test.is_flaky = outcome == Outcome::Passed && one.invocations.is_some_and(|times| times > 1);
    if outcome != Outcome::Failed {
        return test;
    }
    failed(test, &one.failure_messages.iter().flatten().map(String::as_str).collect::<Vec<_>>().join("\n"), limits)
}

fn failed(mut test: Test, message: &str, limits: &Limits) -> Test {
    test.message = cut(first_line(message), limits.name);
    test.output = end_of(message.trim(), limits.text).to_owned();
    test
}
