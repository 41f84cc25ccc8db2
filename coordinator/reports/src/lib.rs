//! What test runners report: JUnit XML, the JSON of `go test`, Jest, Vitest and libtest, TAP, and what `cargo test`,
//! cargo-nextest, `go test`, `ctest` and Python's `unittest` print.
//!
//! Invariant: whatever the bytes are, reading them takes time and memory in proportion to them; nothing is fetched or expanded.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

use std::time::Duration;

mod ctest;
mod found;
mod golang;
mod jest;
mod junit;
mod libtest;
mod lines;
mod nextest;
mod tap;
mod text;
mod unittest;

/// What a file may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most tests.
    pub tests: usize,
    /// Most elements in one another.
    pub depth: usize,
    /// Most bytes of a name.
    pub name: usize,
    /// Most bytes of what a failed test said; the end is kept.
    pub text: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tests: 20_000, depth: 64, name: 500, text: 16 << 10 }
    }
}

/// Why a file is no report.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("invalid XML at byte {at}: {what}")]
    Syntax { at: u64, what: String },
    #[error("it declares a document type, which no test runner does")]
    DocumentType,
    #[error("elements are nested more than {most} deep")]
    Deep { most: usize },
    #[error("it has more than {most} tests")]
    Many { most: usize },
    #[error("expected `testsuites` or `testsuite` as the outermost element, found `{found}`")]
    Foreign { found: String },
    #[error("it ends in the middle")]
    Truncated,
    #[error("invalid JSON: {what}")]
    Json { what: String },
    #[error(
        "expected JUnit XML, the JSON of `go test -json`, Jest, Vitest or libtest, TAP, or the output of `cargo test`, cargo-nextest, `go test`, `ctest` or `unittest -v`; it begins with `{found}`"
    )]
    Unknown { found: String },
}

/// What came of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed, or could not be run.
    Failed,
    /// It was not run.
    Skipped,
}

/// A test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// The class or suite that it belongs to.
    pub suite: String,
    /// Its name.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Whether its runner ran it several times, and it both passed and failed.
    pub is_flaky: bool,
    /// How long it took.
    pub duration: Duration,
    /// Why it failed, in a line.
    pub message: String,
    /// What a failed test said about it, and what it printed.
    pub output: String,
}

impl Test {
    fn new(suite: &str, name: &str, outcome: Outcome, limits: &Limits) -> Self {
        Self {
            suite: text::cut(suite, limits.name),
            name: text::cut(name, limits.name),
            outcome,
            is_flaky: false,
            duration: Duration::ZERO,
            message: String::new(),
            output: String::new(),
        }
    }
}

/// Reads a report, of whichever format its content shows it to be.
///
/// # Errors
/// If it is none.
pub fn read(data: &[u8], limits: &Limits) -> Result<Vec<Test>, Error> {
    let data = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    let begins = data.trim_ascii_start();
    if begins.is_empty() {
        return Ok(Vec::new());
    }
    if begins.starts_with(b"<") {
        return junit::read(data, limits);
    }
    if jest::is_like(begins) {
        return jest::read(begins, limits);
    }
    lines::read(data, &[], limits)
}

/// Reads what a command printed, on its standard output and its standard error. `cargo test` prints the tests on the one and which of its programs they
/// are in on the other.
///
/// # Errors
/// If there is no test in it.
pub fn read_output(out: &[u8], err: &[u8], limits: &Limits) -> Result<Vec<Test>, Error> {
    lines::read(out, err, limits)
}

#[cfg(test)]
mod tests;
