//! What came of it.

use serde::Serialize;

/// What came of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It holds.
    Ok,
    /// It does not hold.
    Refused,
    /// Nobody demanded it; what is stated is told.
    Stated,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is checked: `signature`, `digest`, `builder`, …
    pub check: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// What was found, and if it is refused, what was expected.
    pub text: String,
}

impl Check {
    pub(crate) fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Ok, text: text.into() }
    }

    pub(crate) fn refused(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Refused, text: text.into() }
    }

    pub(crate) fn stated(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Stated, text: text.into() }
    }

    /// It holds if nothing is wrong.
    pub(crate) fn of(check: &'static str, found: &str, wrong: Option<String>) -> Self {
        match wrong {
            Some(wrong) => Self::refused(check, wrong),
            None => Self::ok(check, found),
        }
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.outcome == Outcome::Refused
    }
}

/// What came of one platform of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Its name.
    pub name: String,
    /// Every check.
    pub checks: Vec<Check>,
}

/// What came of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The artifact, as the user named it.
    pub artifact: String,
    /// Whether everything holds.
    pub verified: bool,
    /// Of each platform.
    pub verdicts: Vec<Verdict>,
    /// What was ignored, and why.
    pub warnings: Vec<String>,
}
