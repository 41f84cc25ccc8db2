//! The summary of a build: each step, where it ran and how long, what was uploaded, and why it failed.

use std::time::Duration;

use kiln_proto::transfer::Moved;
use kiln_proto::v1;
use kiln_proto::v1::step_finished::Cache;

use super::{Board, brief, in_shell, tested, told};
use kiln_terminal::{Look, Table, colours, duration, fixed, flexible, harmless, last_overwrite, paint, shown, size};

/// The word for a build's status, as used in scripts.
pub fn status_word(status: v1::Status) -> &'static str {
    match status {
        v1::Status::Succeeded => "success",
        v1::Status::Failed => "failed",
        v1::Status::FarmFailed => "farm_failed",
        v1::Status::Cancelled => "cancelled",
        v1::Status::Running => "running",
        v1::Status::Unspecified => "unknown",
    }
}

/// The word for the source of a step's result.
pub fn cache_word(cache: Cache) -> &'static str {
    match cache {
        Cache::Hit => "hit",
        Cache::Miss => "miss",
        Cache::Merged => "merged",
    }
}

/// Writes the summary of a build.
pub fn summary(board: &Board, finished: &v1::BuildFinished, moved: &Moved) -> String {
    let mut out = String::new();
    for (key, step, result) in board.failed() {
        let label = harmless(&board.label(key));
        let name = paint(Look::Name, &label);
        let first = format!("{label}: {}", harmless(&told::failure(result)));
        out.push_str(&format!("\n{}\n", paint(Look::Bad, &first)));
        for line in tested::in_short(&step.tests) {
            out.push_str(&format!("{name} | {line}\n"));
        }
        let error = told::first_error(step, result);
        error.iter().for_each(|line| out.push_str(&format!("{name} | {}\n", shown(line, colours()))));
        if !error.is_empty() {
            out.push_str(&format!("{name} | …\n"));
        }
        for line in &step.tail {
            out.push_str(&format!("{name} | {}\n", shown(last_overwrite(line), colours())));
        }
        out.push_str(&harmless(&format!("all of its output: kiln logs {} {}\n", board.build, in_shell(&key.step))));
    }
    out.push('\n');
    tested::of_successes(board).iter().for_each(|line| out.push_str(&format!("{line}\n")));
    let mut rows = Vec::new();
    for (key, step) in &board.steps {
        let (cache, time) = match &step.finished {
            None => ("-", String::from("-")),
            Some(result) if !result.ok => ("failed", duration(Duration::from_millis(result.duration_ms))),
            Some(result) => (cache_word(result.cache()), duration(Duration::from_millis(result.duration_ms))),
        };
        let worker = if step.worker.is_empty() { "-" } else { &step.worker };
        rows.push(vec![board.label(key), cache.to_owned(), worker.to_owned(), time]);
    }
    let columns = [flexible("step"), fixed("cache"), flexible("worker").optional(1), fixed("time")];
    if !rows.is_empty() {
        out.push_str(&Table::new(&columns).with(rows).for_stderr());
    }
    tested::of_steps(board).iter().for_each(|line| out.push_str(&format!("{line}\n")));
    for (key, step) in &board.steps {
        if let Some(words) = step.finished.as_ref().and_then(told::calls) {
            out.push_str(&format!("{}: {words}\n", harmless(&board.label(key))));
        }
    }
    let word = match finished.status() {
        v1::Status::FarmFailed => "infrastructure error",
        status => status_word(status),
    };
    let look = if finished.status() == v1::Status::Succeeded { Look::Good } else { Look::Bad };
    let word = paint(look, word);
    // The time of the user's command, including scan, upload and download; if it joined later, the build's own time.
    let time = duration(board.elapsed().unwrap_or(Duration::from_millis(finished.duration_ms)));
    let (sent, reused) = (size(moved.bytes), size(moved.reused_bytes));
    let instructions = board.instructions_words().map_or_else(String::new, |words| format!("; {words}"));
    let id = harmless(&finished.build);
    out.push_str(&format!("build {id}: {word} in {time}{instructions}; sent {sent}, reused {reused}\n"));
    let told = board.failed().any(|(_, _, result)| result.message == finished.message);
    if !finished.message.is_empty() && finished.status() != v1::Status::Succeeded && !told {
        out.push_str(&format!("{}\n", harmless(&finished.message)));
    }
    if let Some(key) = board.surprising() {
        let (step, name) = (harmless(&brief(&key.step)), harmless(&in_shell(&key.step)));
        out.push_str(&format!("{step} was cached before but had to run; `kiln cache explain {name}` shows why\n"));
    }
    for start in board.starts.iter().filter(|_| finished.status() == v1::Status::Succeeded) {
        out.push_str(&format!("{}\n", harmless(start)));
    }
    out
}

#[cfg(test)]
mod tests {
    use kiln_proto::v1::event::Event;

    use super::*;

    #[test]
    fn the_instructions_of_dockerfiles_are_counted_by_what_became_of_them() {
        let step = |name: &str| v1::StepRef { step: name.into(), shards: 1, ..v1::StepRef::default() };
        let mut board = Board::default();
        board.take(Event::DockerfileRead(v1::DockerfileRead {
            steps: vec![step("a"), step("b"), step("c")],
            copies: 4,
        }));
        assert_eq!(board.counts().all, 3);
        for (name, cache) in [("a", Cache::Hit), ("b", Cache::Miss)] {
            let finished =
                v1::StepFinished { step: Some(step(name)), ok: true, cache: cache.into(), ..Default::default() };
            board.take(Event::StepFinished(finished));
        }
        let text =
            summary(&board, &v1::BuildFinished { build: "01a2".into(), ..Default::default() }, &Moved::default());
        assert!(text.contains("; 1 instruction run, 1 cached, 4 copied; sent "), "{text}");
        let text = summary(&Board::default(), &v1::BuildFinished::default(), &Moved::default());
        assert!(!text.contains("instruction") && !text.contains("worker"), "{text}");
    }

    #[test]
    fn flaky_tests_come_first_and_the_shards_of_a_step_are_counted_together() {
        let step = |shard| v1::StepRef { step: "test".into(), shard, shards: 2, ..v1::StepRef::default() };
        let mut board = Board::default();
        for shard in 0..2 {
            let tests = v1::TestSummary { passed: 3, flaky: shard, duration_ms: 1000, ..Default::default() };
            let finished =
                v1::StepFinished { step: Some(step(shard)), ok: true, tests: Some(tests), ..Default::default() };
            board.take(Event::StepFinished(finished));
        }
        let luck = v1::TestCase { name: "luck".into(), flaky: true, message: "unlucky".into(), ..Default::default() };
        let luck = v1::TestCase { outcome: v1::test_case::Outcome::Passed.into(), ..luck };
        board.steps.iter_mut().filter(|(key, _)| key.shard == 1).for_each(|(_, step)| step.tests = vec![luck.clone()]);
        let text = summary(&board, &v1::BuildFinished::default(), &Moved::default());
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("test") && line.contains(": ")).collect();
        assert_eq!(
            lines,
            [
                "test[2/2]: flaky: luck passed, and has failed with the same inputs: unlucky",
                "test: 6 tests, 1 flaky in 2.0 s in 2 shards",
            ],
            "{text}"
        );
    }
}
