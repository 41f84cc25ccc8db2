//! What verifications of an artifact found, as `coordinator/artifacts/BUILDTYPE.md` describes it.

use std::time::SystemTime;

use serde_json::Value;

use crate::statements::Proven;

/// The type of the statement.
pub(crate) const REPRODUCED: &str = "urn:kiln:reproduced:v1";

/// What one verification found. What it lacks is empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verification<'a>(&'a Value);

impl<'a> Verification<'a> {
    pub(crate) fn of(proven: &'a Proven) -> Self {
        Self(&proven.statement.predicate)
    }

    fn text(self, name: &str) -> &'a str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn steps(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.0.get("steps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let text = |value: &'a Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        all.iter().map(move |step| (text(step, "/name"), text(step, "/reproduced/outcome")))
    }

    /// When it ended.
    pub(crate) fn finished(self) -> Option<SystemTime> {
        humantime::parse_rfc3339(self.text("finishedOn")).ok()
    }

    /// The build that compared.
    pub(crate) fn build(self) -> &'a str {
        self.text("invocationId")
    }

    /// How the artifact was verified, in words.
    pub(crate) fn how(self) -> &'static str {
        match self.text("way") {
            "rebuilt" => "built again from its sources",
            "sampled" => "made again in parts",
            _ => "made again step by step",
        }
    }

    /// Whether the artifact is the same when it is made again; `None` if this does not tell, because not all of it was made again.
    pub(crate) fn is_same(self) -> Option<bool> {
        let differs = self.text("outcome") == "different" || self.steps().any(|(_, outcome)| outcome == "different");
        if differs {
            return Some(false);
        }
        let is_whole =
            matches!(self.text("way"), "reproduced" | "rebuilt") && self.steps().all(|(_, outcome)| outcome == "same");
        (is_whole && self.text("outcome") == "same").then_some(true)
    }

    /// The steps that differ, as the end of a sentence.
    pub(crate) fn differing(self) -> String {
        let names: Vec<String> =
            self.steps().filter(|(_, outcome)| *outcome == "different").map(|(name, _)| format!("`{name}`")).collect();
        if names.is_empty() { String::new() } else { format!(": step {}", names.join(", ")) }
    }
}
