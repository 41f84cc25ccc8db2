//! What a check found, and whether that is a failure.

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For information.
    Note,
    /// What could not be judged, where the policy lets that pass.
    Warning,
    /// What could not be judged.
    Unknown,
    /// What the policy forbids.
    Forbidden,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is wrong.
    Passed,
    /// Something could not be judged, and the policy lets that pass.
    Warned,
    /// Something is forbidden, or could not be judged.
    Failed,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What it is about, such as a package with its version.
    pub subject: String,
    /// What was found.
    pub words: String,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    findings: Vec<Finding>,
}

/// Findings that a message names; the others are in the output.
const NAMED: usize = 3;

impl Verdict {
    pub(crate) fn add(&mut self, level: Level, subject: impl Into<String>, words: impl Into<String>) {
        self.findings.push(Finding { level, subject: subject.into(), words: words.into() });
    }

    /// Adds something that could not be judged.
    pub(crate) fn unknown(&mut self, fails: bool, subject: impl Into<String>, words: impl Into<String>) {
        self.add(if fails { Level::Unknown } else { Level::Warning }, subject, words);
    }

    /// Everything, what matters most first.
    pub fn findings(&self) -> Vec<&Finding> {
        let mut all: Vec<&Finding> = self.findings.iter().collect();
        all.sort_by(|a, b| b.level.cmp(&a.level).then_with(|| a.subject.cmp(&b.subject)));
        all
    }

    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        match self.findings.iter().map(|finding| finding.level).max() {
            None | Some(Level::Note) => Outcome::Passed,
            Some(Level::Warning) => Outcome::Warned,
            Some(Level::Unknown | Level::Forbidden) => Outcome::Failed,
        }
    }

    /// All findings, one a line.
    pub fn text(&self) -> String {
        let line = |finding: &&Finding| {
            let level = match finding.level {
                Level::Note => "note",
                Level::Warning => "warning",
                Level::Unknown => "unknown",
                Level::Forbidden => "error",
            };
            format!("{level}: {}: {}\n", finding.subject, finding.words)
        };
        self.findings().iter().map(line).collect()
    }

    /// Why it failed, on one line; `None` if it did not.
    pub fn message(&self) -> Option<String> {
        let all = self.findings();
        let failing: Vec<String> = all
            .iter()
            .filter(|finding| finding.level >= Level::Unknown)
            .map(|finding| format!("{}: {}", finding.subject, finding.words))
            .collect();
        let more = failing.len().saturating_sub(NAMED);
        let named = failing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
        match (failing.is_empty(), more) {
            (true, _) => None,
            (false, 0) => Some(named),
            (false, more) => Some(format!("{named}; and {more} more")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_not_fine_and_a_message_names_the_worst() {
        let mut verdict = Verdict::default();
        assert_eq!((verdict.outcome(), verdict.message()), (Outcome::Passed, None));
        verdict.add(Level::Note, "a 1", "ignored");
        assert_eq!(verdict.outcome(), Outcome::Passed);
        verdict.unknown(false, "b 1", "no order of versions");
        assert_eq!((verdict.outcome(), verdict.message()), (Outcome::Warned, None));
        verdict.unknown(true, "c 1", "no order of versions");
        assert_eq!(verdict.outcome(), Outcome::Failed);
        for name in ["d", "e", "f"] {
            verdict.add(Level::Forbidden, format!("{name} 1"), "X-1");
        }
        assert_eq!(verdict.message().as_deref(), Some("d 1: X-1; e 1: X-1; f 1: X-1; and 1 more"));
        assert!(verdict.text().starts_with("error: d 1: X-1\n") && verdict.text().ends_with("note: a 1: ignored\n"));
    }
}
