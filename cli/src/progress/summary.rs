//! The end of a build in words: each step, where it ran and how long, what was sent, and why it failed.

use std::time::Duration;

use kiln_proto::transfer::Moved;
use kiln_proto::v1;
use kiln_proto::v1::step_finished::Cache;

use super::{Board, told};
use crate::terminal::{duration, harmless, last_overwrite, size, table};

/// The word for how a build ended, as scripts read it.
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

/// The word for where a step's result came from.
pub fn cache_word(cache: Cache) -> &'static str {
    match cache {
        Cache::Hit => "hit",
        Cache::Miss => "miss",
        Cache::Merged => "merged",
    }
}

/// The end of a build in words.
pub fn summary(board: &Board, finished: &v1::BuildFinished, moved: &Moved) -> String {
    let mut out = String::new();
    for (key, step, result) in board.failed() {
        let label = board.label(key);
        out.push_str(&format!("\n{label}: {}\n", told::failure(result)));
        let error = told::first_error(step, result);
        error.iter().for_each(|line| out.push_str(&format!("{label} | {line}\n")));
        if !error.is_empty() {
            out.push_str(&format!("{label} | …\n"));
        }
        for line in &step.tail {
            out.push_str(&format!("{label} | {}\n", last_overwrite(line)));
        }
        out.push_str(&format!("all of its output: kiln logs {} {}\n", board.build, key.step));
    }
    let mut out = harmless(&out);
    out.push('\n');
    let mut rows = vec![["step", "cache", "worker", "time"].map(String::from).to_vec()];
    for (key, step) in &board.steps {
        let (cache, time) = match &step.finished {
            None => ("-", String::from("-")),
            Some(result) if !result.ok => ("failed", duration(Duration::from_millis(result.duration_ms))),
            Some(result) => (cache_word(result.cache()), duration(Duration::from_millis(result.duration_ms))),
        };
        let worker = if step.worker.is_empty() { "-" } else { &step.worker };
        rows.push(vec![board.label(key), cache.to_owned(), worker.to_owned(), time]);
    }
    out.push_str(&table(&rows));
    let word = match finished.status() {
        v1::Status::FarmFailed => "failed by the farm's fault",
        status => status_word(status),
    };
    let time = duration(Duration::from_millis(finished.duration_ms));
    let (sent, reused) = (size(moved.bytes), size(moved.reused_bytes));
    let mut last = format!("build {}: {word} in {time}; sent {sent}, reused {reused}", finished.build);
    let told = board.failed().any(|(_, _, result)| result.message == finished.message);
    if !finished.message.is_empty() && finished.status() != v1::Status::Succeeded && !told {
        last.push_str(&format!("\n{}", finished.message));
    }
    if let Some(key) = board.surprising() {
        let step = &key.step;
        last.push_str(&format!("\n{step} hit before and missed now: kiln cache explain {step} tells why"));
    }
    for start in board.starts.iter().filter(|_| finished.status() == v1::Status::Succeeded) {
        last.push_str(&format!("\n{start}"));
    }
    out.push_str(&harmless(&last));
    out.push('\n');
    out
}
