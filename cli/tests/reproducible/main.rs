//! Steps that run again and are compared, on farms of real processes with real tools.

#![allow(clippy::unwrap_used)]

mod examples;
mod kinds;
mod liar;
mod rebuild;
mod sample;

use std::collections::{BTreeMap, BTreeSet};

use kiln_harness::{Built, Farm};
use serde_json::Value;

/// A farm of two workers for the tests that leave it unchanged.
pub(crate) fn farm() -> &'static Farm {
    Farm::shared()
}

/// The result of the second run of each step.
pub(crate) fn again(built: &Built) -> BTreeMap<String, Value> {
    let events = built.of_type("step_again").into_iter().filter(|event| !event["result"].is_null());
    events.map(|event| (event["step"].as_str().unwrap().to_owned(), event["result"].clone())).collect()
}

/// The kinds of differences that each path of a step has.
pub(crate) fn kinds(step: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in step["differences"].as_array().unwrap() {
        let text = |key: &str| one[key].as_str().unwrap().to_owned();
        found.entry(text("path")).or_default().insert(text("kind"));
    }
    found
}

/// The result of comparing the artifact of a build that has one.
pub(crate) fn compared(built: &Built) -> Value {
    let events = built.of_type("artifact_compared");
    assert_eq!(events.len(), 1, "{}", built.0.out);
    events[0]["result"].clone()
}
