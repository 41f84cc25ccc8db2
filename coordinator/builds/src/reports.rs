//! Reads the reports of a step's tests from its outputs, also where it failed.
//!
//! Invariant: a report never decides about a step; one that cannot be read is mentioned, and that is all.

use std::cmp::Reverse;

use bytes::Bytes;
use kiln_planner::plan::{PRINTED, compile_globs};
use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use kiln_proto::v1::{TestCase, TestReport, TestSummary, test_case::Outcome};
use kiln_reports::{Limits, Test};
use kiln_store::trees;
use kiln_trees::tree::{Entry, Tree};
use prost::Message;

use super::Work;
use super::lower::{MERGED, Outputs};
use super::steps::Job;
use kiln_records::Run;

/// Maximum number of reports of an action, and of their bytes, each and together.
const MAX_FILES: usize = 1_000;
const MAX_BYTES: u64 = 16 << 20;
const MAX_BYTES_IN_ALL: u64 = 64 << 20;
/// Maximum number of tests of an action.
const MAX_TESTS: usize = 50_000;
/// What is named as the report of tests that a step printed.
const OUTPUT: &str = "what it printed";
/// How many flaky tests are named.
const MAX_FLAKY: usize = 20;
/// How many reasons are given.
const MAX_REASONS: usize = 10;

/// The tests of a run, and why reports were not read.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) tests: Vec<TestCase>,
    pub(super) unread: Vec<String>,
    /// How often failed tests were run again.
    pub(super) retries: u32,
}

/// What the reports of a step's tests tell; none if it names none, or has left no outputs.
pub(super) async fn of(work: &Work, job: &Job, result: Option<&reapi::ActionResult>) -> Option<Told> {
    let result = result.filter(|_| !job.step.reports.is_empty())?;
    if let Some(told) = kept(work, result).await {
        return Some(told);
    }
    let mut tree = Outputs::of(work.function, result).ok()?.tree;
    let mut unread = Vec::new();
    if let Err(error) = trees::expand_in_place(&*work.stores.blobs, &mut tree).await {
        unread.push(format!("cannot look for reports: {error}"));
    }
    let (printed, named): (Vec<&str>, Vec<&str>) =
        job.step.reports.iter().map(String::as_str).partition(|report| *report == PRINTED);
    let wanted = compile_globs(named);
    let mut files = Vec::new();
    collect(&tree, "", &mut |path, digest| {
        if wanted.is_match(path) {
            files.push((path.to_owned(), digest));
        }
    });
    files.sort();
    let mut tests = read(work, files, &mut unread).await;
    if !printed.is_empty() {
        match output(work, result).await {
            Ok(printed) => tests.extend(printed),
            Err(why) => unread.push(format!("what it printed: {why}")),
        }
        tests.truncate(MAX_TESTS);
    }
    (!tests.is_empty() || !unread.is_empty()).then_some(Told { tests, unread, retries: 0 })
}

/// What is told of them in a build, with the report in the store.
pub(super) async fn summary(work: &Work, Told { mut tests, unread, retries }: Told) -> TestSummary {
    let order = |test: &TestCase| (test.outcome() != Outcome::Failed, !test.flaky, Reverse(test.duration_ms));
    tests.sort_by_key(order);
    let count = |wanted: Outcome| tests.iter().filter(|test| test.outcome() == wanted).count() as u32;
    TestSummary {
        passed: count(Outcome::Passed),
        failed: count(Outcome::Failed),
        skipped: count(Outcome::Skipped),
        flaky: tests.iter().filter(|test| test.flaky).count() as u32,
        duration_ms: tests.iter().map(|test| test.duration_ms).fold(0, u64::saturating_add),
        unread,
        flaky_tests: tests.iter().filter(|test| test.flaky).take(MAX_FLAKY).map(name).collect(),
        retries,
        report: keep(work, tests).await.map(|digest| digest.to_wire()),
    }
}

fn name(test: &TestCase) -> String {
    if test.suite.is_empty() { test.name.clone() } else { format!("{} {}", test.suite, test.name) }
}

async fn keep(work: &Work, tests: Vec<TestCase>) -> Option<Digest> {
    let report = TestReport { tests }.encode_to_vec();
    let digest = work.function.digest(&report);
    match work.stores.blobs.put(&digest, report.into()).await {
        Ok(()) => Some(digest),
        Err(error) => {
            tracing::warn!(%error, "cannot keep what a step's tests reported");
            None
        }
    }
}

/// Adds the tests of several runs to a result that was made of them.
pub(super) async fn add_to(work: &Work, result: &mut reapi::ActionResult, tests: &[TestCase]) -> bool {
    let Some(digest) = keep(work, tests.to_vec()).await else { return false };
    let file = reapi::OutputFile { path: MERGED.into(), digest: Some(digest.to_wire()), ..Default::default() };
    result.output_files.push(file);
    true
}

/// The tests of a result that was made of several runs.
async fn kept(work: &Work, result: &reapi::ActionResult) -> Option<Told> {
    let file = result.output_files.iter().find(|file| file.path == MERGED)?;
    let digest = Digest::required(work.function, file.digest.as_ref()).ok()?;
    let data = work.stores.blobs.get(&digest).await.ok()?;
    Some(Told { tests: TestReport::decode(data).ok()?.tests, ..Told::default() })
}

/// The files of a tree.
pub(super) fn collect(tree: &Tree, at: &str, found: &mut impl FnMut(&str, Digest)) {
    for (name, entry) in &tree.entries {
        let path = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
        match entry {
            Entry::File { digest, .. } => found(&path, *digest),
            Entry::Directory(tree) => collect(tree, &path, found),
            _ => {}
        }
    }
}

async fn read(work: &Work, files: Vec<(String, Digest)>, unread: &mut Vec<String>) -> Vec<TestCase> {
    let (mut tests, mut bytes) = (Vec::new(), 0);
    let mut leave_out = |path: &str, why: String| {
        if unread.len() < MAX_REASONS {
            unread.push(format!("`{path}`: {why}"));
        }
    };
    for (number, (path, digest)) in files.into_iter().enumerate() {
        if digest.size > MAX_BYTES {
            leave_out(&path, format!("it has more than {} MiB", MAX_BYTES >> 20));
            continue;
        }
        bytes += digest.size;
        if number >= MAX_FILES || bytes > MAX_BYTES_IN_ALL || tests.len() >= MAX_TESTS {
            let mib = MAX_BYTES_IN_ALL >> 20;
            leave_out(&path, format!("a step may have {MAX_FILES} reports of {mib} MiB with {MAX_TESTS} tests in all"));
            break;
        }
        let data = match work.stores.blobs.get(&digest).await {
            Ok(data) => data,
            Err(error) => {
                leave_out(&path, error.to_string());
                continue;
            }
        };
        let parsed = tokio::task::spawn_blocking(move || kiln_reports::read(&data, &Limits::default())).await;
        match parsed {
            Ok(Ok(parsed)) => tests.extend(parsed.into_iter().map(|test| on_wire(test, &path))),
            Ok(Err(error)) => leave_out(&path, error.to_string()),
            Err(error) => leave_out(&path, error.to_string()),
        }
    }
    tests.truncate(MAX_TESTS);
    tests
}

/// The tests in what a step printed.
async fn output(work: &Work, result: &reapi::ActionResult) -> Result<Vec<TestCase>, String> {
    let out = stream(work, result.stdout_digest.as_ref(), &result.stdout_raw).await?;
    // Of this, only what says which programs the tests are in is missed.
    let err = stream(work, result.stderr_digest.as_ref(), &result.stderr_raw).await.unwrap_or_default();
    let parse = move || kiln_reports::read_output(&out, &err, &Limits::default());
    let parsed = tokio::task::spawn_blocking(parse).await.map_err(|error| error.to_string())?;
    let parsed = parsed.map_err(|error| error.to_string())?;
    Ok(parsed.into_iter().map(|test| on_wire(test, OUTPUT)).collect())
}

pub(super) async fn stream(work: &Work, digest: Option<&reapi::Digest>, raw: &[u8]) -> Result<Bytes, String> {
    let Some(digest) = digest.filter(|digest| digest.size_bytes > 0 && raw.is_empty()) else {
        return Ok(Bytes::copy_from_slice(raw));
    };
    let digest = Digest::required(work.function, Some(digest)).map_err(|error| error.to_string())?;
    if digest.size > MAX_BYTES {
        return Err(format!("it has more than {} MiB", MAX_BYTES >> 20));
    }
    work.stores.blobs.get(&digest).await.map_err(|error| error.to_string())
}

fn on_wire(test: Test, file: &str) -> TestCase {
    let outcome = match test.outcome {
        kiln_reports::Outcome::Passed => Outcome::Passed,
        kiln_reports::Outcome::Failed => Outcome::Failed,
        kiln_reports::Outcome::Skipped => Outcome::Skipped,
    };
    TestCase {
        suite: test.suite,
        name: test.name,
        outcome: outcome as i32,
        flaky: test.is_flaky,
        duration_ms: u64::try_from(test.duration.as_millis()).unwrap_or(u64::MAX),
        message: test.message,
        output: test.output,
        file: file.to_owned(),
    }
}

/// Marks the tests that this action both passed and failed, in this run and in earlier ones. A hit is no other run.
pub(super) async fn flaky(work: &Work, action: &Digest, tests: &mut [TestCase], is_hit: bool) {
    let number = |test: &TestCase| {
        let name = format!("{}\0{}", test.suite, test.name);
        let hash = work.function.digest(name.as_bytes()).hex();
        u64::from_str_radix(&hash[..16], 16).unwrap_or_default()
    };
    let mut run = Run::default();
    for test in tests.iter().filter(|_| !is_hit) {
        match test.outcome() {
            Outcome::Passed => run.passed.insert(number(test)),
            Outcome::Failed => run.failed.insert(number(test)),
            _ => false,
        };
    }
    let all = match work.records.add_outcomes(action, run).await {
        Ok(all) => all,
        Err(error) => return tracing::warn!(%error, "cannot tell flaky tests"),
    };
    for test in tests.iter_mut() {
        let number = number(test);
        test.flaky |= all.passed.contains(&number) && all.failed.contains(&number);
    }
}
