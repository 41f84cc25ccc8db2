//! Lines for a pipe or a file: what a CI system keeps.

use std::io::Write;

use super::{Board, Happening, Show, cache_word, summary};
use crate::terminal::{self, harmless};

/// Writes a line to standard error for each line of output, with its step before it.
pub(super) struct Plain {
    terminal: bool,
}

impl Plain {
    /// On a terminal, control characters of logs are made harmless.
    pub(super) fn new(terminal: bool) -> Self {
        Self { terminal }
    }
}

impl Show for Plain {
    fn happening(&mut self, board: &Board, happening: &Happening) -> std::io::Result<()> {
        let mut stderr = std::io::stderr().lock();
        match happening {
            Happening::Started(started) => writeln!(stderr, "{}", harmless(&started_words(started))),
            Happening::StepStarted { key, worker } => {
                writeln!(stderr, "{} | runs on {}", board.label(key), harmless(worker))
            }
            Happening::Log { key, text, .. } => {
                let text = if self.terminal { harmless(text) } else { text.clone() };
                text.lines().try_for_each(|line| writeln!(stderr, "{} | {line}", board.label(key)))
            }
            Happening::StepFinished { key, finished } => {
                writeln!(stderr, "{} | {}", board.label(key), harmless(&finished_words(finished)))
            }
            Happening::Artifact { artifact, path } => {
                writeln!(stderr, "artifact {}", harmless(&artifact.id))?;
                writeln!(std::io::stdout().lock(), "{}", path.display())
            }
            Happening::Delivered(delivered) => {
                writeln!(stderr, "{}", harmless(&delivered_words(delivered)))?;
                writeln!(std::io::stdout().lock(), "{}@{}", delivered.reference, delivered.digest)
            }
            Happening::Warning(text) => writeln!(stderr, "warning: {}", harmless(text)),
            Happening::Finished { finished, moved } => write!(stderr, "{}", summary(board, finished, moved)),
        }
    }

    fn note(&mut self, text: &str) {
        terminal::say(&harmless(text));
    }
}

/// The first line about a build.
pub(super) fn started_words(started: &kiln_proto::v1::BuildStarted) -> String {
    let name = [started.project.as_str(), started.version.as_str()].join(" ");
    let again = if started.resumed { "taken up again" } else { "started" };
    let steps = crate::terminal::count(started.steps.len(), "step");
    format!("build {} {again}: {}, {steps}", started.build, name.trim())
}

/// The line about what was taken somewhere.
pub(super) fn delivered_words(delivered: &super::Delivered) -> String {
    let (sent, present) = (terminal::size(delivered.bytes.0), terminal::size(delivered.bytes.1));
    format!("{} {}: sent {sent}, {present} were there", delivered.how, delivered.reference)
}

/// The last line about a step.
pub(super) fn finished_words(finished: &kiln_proto::v1::StepFinished) -> String {
    let time = terminal::duration(std::time::Duration::from_millis(finished.duration_ms));
    let cache = cache_word(finished.cache());
    if finished.ok {
        return format!("done ({cache}, {time})");
    }
    let why = if finished.message.is_empty() { "the command failed" } else { &finished.message };
    format!("FAILED with exit code {} after {time}: {why}", finished.exit_code)
}
