//! Lines for a pipe or a file: what a CI system keeps.

use std::io::Write;

use super::waiting::waiting_words;
use super::{Board, Happening, Show, cache_word, status_word, summary};
use crate::terminal::{self, harmless, say};

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
        match happening {
            Happening::Started(started) => say(&harmless(&started_words(started))),
            Happening::StepStarted { key, worker } => {
                say(&format!("{} | runs on {}", board.label(key), harmless(worker)));
            }
            Happening::Log { key, text, .. } => {
                let text = if self.terminal { harmless(text) } else { text.clone() };
                let label = board.label(key);
                let lines: Vec<String> = text.lines().map(|line| format!("{label} | {line}")).collect();
                say(&lines.join("\n"));
            }
            Happening::StepFinished { key, finished } => {
                say(&format!("{} | {}", board.label(key), harmless(&finished_words(finished))));
            }
            Happening::Artifact { artifact, path } => {
                say(&format!("artifact {}", harmless(&artifact.id)));
                writeln!(std::io::stdout().lock(), "{}", path.display())?;
            }
            Happening::TargetFinished(finished) => {
                if let Some(text) = target_words(board, finished) {
                    say(&harmless(&text));
                }
            }
            Happening::Delivered(delivered) => {
                say(&harmless(&delivered_words(delivered)));
                writeln!(std::io::stdout().lock(), "{}@{}", delivered.reference, delivered.digest)?;
            }
            Happening::Waiting(waiting) => {
                if let Some(text) = waiting_words(board, waiting) {
                    say(&harmless(&text));
                }
            }
            Happening::Warning(text) => say(&format!("warning: {}", harmless(text))),
            Happening::Finished { finished, moved } => say(summary(board, finished, moved).trim_end_matches('\n')),
        }
        Ok(())
    }

    fn note(&mut self, text: &str) {
        say(&harmless(text));
    }
}

/// The first line about a build.
pub(super) fn started_words(started: &kiln_proto::v1::BuildStarted) -> String {
    let name = [started.project.as_str(), started.version.as_str()].join(" ");
    let again = if started.resumed { "taken up again" } else { "started" };
    let steps = crate::terminal::count(started.steps.len(), "step");
    format!("build {} {again}: {}, {steps}", started.build, name.trim())
}

/// The last line about a target, where there are several or it was emulated.
pub(super) fn target_words(board: &Board, finished: &kiln_proto::v1::TargetFinished) -> Option<String> {
    let emulated = if finished.emulated { " (emulated)" } else { "" };
    if board.targets.len() <= 1 && emulated.is_empty() {
        return None;
    }
    let word = status_word(finished.status());
    let why = if finished.message.is_empty() { String::new() } else { format!(": {}", finished.message) };
    Some(format!("target {}{emulated}: {word}{why}", board.target_label(&finished.platform, &finished.target)))
}

/// The line about what was taken somewhere.
pub(super) fn delivered_words(delivered: &super::Delivered) -> String {
    let (sent, present) = (terminal::size(delivered.bytes.0), terminal::size(delivered.bytes.1));
    if delivered.how == "joined" {
        return format!("joined {}: the image for all platforms, {present}", delivered.reference);
    }
    format!("{} {}: sent {sent}, {present} were there", delivered.how, delivered.reference)
}

/// The last line about a step.
pub(super) fn finished_words(finished: &kiln_proto::v1::StepFinished) -> String {
    let time = terminal::duration(std::time::Duration::from_millis(finished.duration_ms));
    let cache = cache_word(finished.cache());
    if finished.ok {
        return format!("done ({cache}, {time})");
    }
    // Why, the summary says.
    if finished.no_exit_code {
        return format!("FAILED after {time}");
    }
    format!("FAILED after {time} (exit code {})", finished.exit_code)
}
