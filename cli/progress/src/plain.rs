//! Lines for a pipe or a file, such as a CI system's log.

use std::io::Write;
use std::time::{Duration, Instant};

use super::again::step_lines;
use super::waiting::waiting_words;
use super::{Board, Happening, Show, Work, cache_word, compared_words, status_word, summary};
use kiln_proto::v1;
use kiln_terminal::{self as terminal, Look, colours, harmless, paint, say, say_warning, shown};

/// After this long without output, a line shows that the build is still running.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Interval between lines about a transfer's progress.
const WORK_EVERY: Duration = Duration::from_secs(10);

/// Writes each line of output to standard error, prefixed with its step.
#[derive(Default)]
pub(super) struct Plain {
    /// When the last line was written.
    spoke: Option<Instant>,
    /// When the last line about a transfer was written.
    worked: Option<Instant>,
}

impl Show for Plain {
    fn happening(&mut self, board: &Board, happening: &Happening) -> std::io::Result<()> {
        if matches!(happening, Happening::StepCalls { .. }) {
            // A line a second would drown what steps say; the counts are in the summary.
            return Ok(());
        }
        self.spoke = Some(Instant::now());
        let label = |key| paint(Look::Name, &harmless(&board.label(key)));
        match happening {
            Happening::Started(started) => say(&harmless(&started_words(started))),
            Happening::StepStarted { key, worker, expected } => {
                let about =
                    expected.map_or(String::new(), |expected| format!(", about {}", kiln_terminal::duration(expected)));
                say(&format!("{} | runs on {}{about}", label(key), harmless(worker)));
            }
            Happening::Log { key, text, .. } => {
                let (label, text) = (label(key), shown(text, colours()));
                let lines: Vec<String> = text.lines().map(|line| format!("{label} | {line}")).collect();
                say(&lines.join("\n"));
            }
            Happening::StepCalls { .. } => {}
            Happening::StepFinished { key, finished } => {
                let look = if finished.ok { Look::Good } else { Look::Bad };
                say(&format!("{} | {}", label(key), paint(look, &harmless(&finished_words(finished)))));
            }
            Happening::StepAgain(again) => step_lines(board, again).iter().for_each(|line| say(&harmless(line))),
            Happening::Compared(v1::ArtifactCompared { artifact, result }) => {
                say(&harmless(&compared_words(artifact, &result.clone().unwrap_or_default())));
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
            Happening::Warning(text) => say_warning(&harmless(text)),
            Happening::Gate(_) => {}
            Happening::Finished { finished, moved } => say(summary(board, finished, moved).trim_end_matches('\n')),
        }
        Ok(())
    }

    fn note(&mut self, text: &str) {
        say(&harmless(text));
    }

    fn work(&mut self, work: Option<&Work>) {
        let Some(work) = work else { return self.worked = None };
        if self.worked.is_none_or(|last| last.elapsed() >= WORK_EVERY) {
            (self.worked, self.spoke) = (Some(Instant::now()), Some(Instant::now()));
            say(&harmless(&work.words()));
        }
    }

    fn tick(&mut self, board: &Board) {
        let since = *self.spoke.get_or_insert_with(Instant::now);
        if since.elapsed() >= HEARTBEAT {
            self.spoke = Some(Instant::now());
            say(&harmless(&heartbeat_words(board)));
        }
    }
}

/// A build's progress in one line.
pub(super) fn counts_words(board: &Board) -> String {
    let counts = board.counts();
    let mut words = match (counts.all, board.copies) {
        // Those of a Dockerfile are known once it is read.
        (0, 0) => "building".to_owned(),
        (0, copies) => format!("{} to copy", terminal::count(copies, "instruction")),
        (all, _) => format!("{}/{all} steps", counts.done),
    };
    if let Some(elapsed) = board.elapsed() {
        words.push_str(&format!(", {}", terminal::duration(elapsed)));
    }
    if counts.running > 0 {
        words.push_str(&format!(", {} running", counts.running));
    }
    if counts.queued > 0 {
        words.push_str(&format!(", {} waiting for a worker", counts.queued));
    }
    words
}

/// The current activity of a silent build.
fn heartbeat_words(board: &Board) -> String {
    let running: Vec<String> =
        board.running().map(|(key, time)| format!("{} ({})", board.label(key), terminal::duration(time))).collect();
    let running = if running.is_empty() { String::new() } else { format!(": {}", running.join(", ")) };
    format!("{}{running}", counts_words(board))
}

/// The first line about a build.
pub(super) fn started_words(started: &kiln_proto::v1::BuildStarted) -> String {
    let name = [started.project.as_str(), started.version.as_str()].join(" ");
    let again = if started.resumed { "resumed" } else { "started" };
    // Without any, it builds Dockerfiles, whose instructions are known once they are read.
    let steps = match started.steps.len() {
        0 => String::new(),
        steps => format!(", {}", kiln_terminal::count(steps, "step")),
    };
    format!("build {} {again}: {}{steps}", started.build, name.trim())
}

/// The last line about a target, if there are several or it was emulated.
pub(super) fn target_words(board: &Board, finished: &kiln_proto::v1::TargetFinished) -> Option<String> {
    let emulated = if finished.emulated { " (emulated)" } else { "" };
    if board.targets.len() <= 1 && emulated.is_empty() {
        return None;
    }
    let word = status_word(finished.status());
    let why = if finished.message.is_empty() { String::new() } else { format!(": {}", finished.message) };
    Some(format!("target {}{emulated}: {word}{why}", board.target_label(&finished.platform, &finished.target)))
}

/// The line about a delivery.
pub(super) fn delivered_words(delivered: &super::Delivered) -> String {
    let (sent, present) = (terminal::size(delivered.bytes.0), terminal::size(delivered.bytes.1));
    if delivered.how == "joined" {
        return format!("joined {}: the image for all platforms, {present}", delivered.reference);
    }
    format!("{} {}: sent {sent}, {present} already there", delivered.how, delivered.reference)
}

/// The last line about a step.
pub(super) fn finished_words(finished: &kiln_proto::v1::StepFinished) -> String {
    let time = terminal::duration(std::time::Duration::from_millis(finished.duration_ms));
    let cache = cache_word(finished.cache());
    if finished.ok {
        return format!("done in {time} ({cache})");
    }
    // The summary shows why.
    if finished.no_exit_code {
        return format!("FAILED after {time}");
    }
    format!("FAILED after {time} (exit code {})", finished.exit_code)
}

#[cfg(test)]
mod tests {
    use kiln_proto::v1::BuildStarted;

    use kiln_proto::v1::event::Event;
    use kiln_proto::v1::{DockerfileRead, StepRef};

    use super::{Board, counts_words, started_words};

    /// `deploy/ci` reads the build's id from this line.
    #[test]
    fn the_first_line_names_the_build_and_whether_it_was_resumed() {
        let started = |resumed| {
            let (build, project, version) = ("01a2".to_owned(), "shop".to_owned(), "1.0".to_owned());
            started_words(&BuildStarted { build, project, version, resumed, ..BuildStarted::default() })
        };
        assert_eq!(started(false), "build 01a2 started: shop 1.0");
        assert_eq!(started(true), "build 01a2 resumed: shop 1.0");
    }

    #[test]
    fn a_build_that_only_copies_counts_what_it_copies() {
        let mut board = Board::default();
        assert_eq!(counts_words(&board), "building");
        board.take(Event::DockerfileRead(DockerfileRead { steps: Vec::new(), copies: 3 }));
        assert_eq!(counts_words(&board), "3 instructions to copy");
        board.take(Event::DockerfileRead(DockerfileRead { steps: vec![StepRef::default()], copies: 1 }));
        assert_eq!(counts_words(&board), "0/1 steps");
    }
}
