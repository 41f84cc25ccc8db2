//! What became of tests, by the reports of a build's steps: those that failed first, with what they said, then those that are flaky.

use axum::extract::{Path, Query, State};
use futures::{StreamExt, stream};
use kiln_proto::v1::{self, TestCase, TestReport, TestSummary, test_case::Outcome};
use maud::{Markup, html};
use serde::Deserialize;

use super::Guest;
use super::build::{project, show};
use crate::answer::Failure;
use crate::blobs::{self, Space};
use crate::log::{Line, Splitter};
use crate::markup::{Section, encoded, nothing, words};
use crate::site::Site;
use kiln_web_model::{Progress, Step};

/// Failed tests whose output a page shows, and lines of each.
const FAILED: usize = 100;
const LINES: usize = 200;
/// Tests that a page names.
const NAMED: usize = 1_000;
/// Failed tests on the page of a step, which leads to the others.
const FAILED_OF_STEP: usize = 10;
/// Tests of one build that are looked at.
const READ: usize = 200_000;
/// Reports that are read at the same time.
const AT_ONCE: usize = 4;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    /// Words that their names contain.
    q: String,
    /// Only those of the step with this number; 0: of all.
    step: usize,
}

/// A test with the number and the name of its step.
#[derive(Debug)]
pub(crate) struct Tested {
    pub(crate) number: usize,
    pub(crate) step: String,
    pub(crate) case: TestCase,
}

impl Tested {
    fn name(&self) -> String {
        if self.case.suite.is_empty() {
            self.case.name.clone()
        } else {
            format!("{} {}", self.case.suite, self.case.name)
        }
    }
}

/// What became of a test, as a word, which is also its class.
pub(crate) fn word(case: &TestCase) -> &'static str {
    match case.outcome() {
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
        Outcome::Passed | Outcome::Unspecified => "passed",
    }
}

/// The tests of these steps in the order of their gravity; `false` if some could not be read.
pub(crate) async fn of(guest: &Guest, build: &v1::Build, steps: Vec<(usize, Step)>) -> (Vec<Tested>, bool) {
    let reports = stream::iter(steps).map(|(number, step)| async move {
        let report = step.finished.as_ref().and_then(|done| done.tests.as_ref()?.report.clone());
        let Some(digest) = report else { return Ok((number, step, TestReport::default())) };
        let report: TestReport = blobs::message(&guest.client, &Space::of(build), &digest).await?;
        Ok::<_, Failure>((number, step, report))
    });
    let mut reports = reports.buffered(AT_ONCE);
    let (mut all, mut is_complete) = (Vec::new(), true);
    while let Some(read) = reports.next().await {
        let Ok((number, step, report)) = read else {
            is_complete = false;
            continue;
        };
        is_complete &= all.len() + report.tests.len() <= READ;
        let room = READ.saturating_sub(all.len());
        let tested = |case| Tested { number, step: step.name(), case };
        all.extend(report.tests.into_iter().take(room).map(tested));
    }
    // Each report is in this order already.
    all.sort_by_key(|test| (test.case.outcome() != Outcome::Failed, !test.case.flaky));
    (all, is_complete)
}

/// The steps of a build that have tests, or that one of them; with their numbers.
pub(crate) fn steps(progress: &Progress, only: usize) -> Vec<(usize, Step)> {
    let numbered = (1..).zip(&progress.steps).filter(|(number, _)| only == 0 || only == *number);
    let has_tests = |step: &Step| step.finished.as_ref().is_some_and(|done| done.tests.is_some());
    numbered.filter(|(_, step)| has_tests(step)).map(|(number, step)| (number, step.clone())).collect()
}

/// The sum of what steps' reports tell; none if there is none.
pub(crate) fn sum<'a>(steps: impl Iterator<Item = &'a Step>) -> Option<TestSummary> {
    let summaries = steps.filter_map(|step| step.finished.as_ref()?.tests.as_ref());
    summaries.cloned().reduce(|mut all, one| {
        all.passed += one.passed;
        all.failed += one.failed;
        all.skipped += one.skipped;
        all.flaky += one.flaky;
        all.duration_ms = all.duration_ms.saturating_add(one.duration_ms);
        all.unread.extend(one.unread);
        all
    })
}

/// A summary in words, without the number of all.
pub(super) fn counts(tests: &TestSummary) -> Markup {
    html! {
        (words::grouped(tests.passed.into())) " passed"
        @if tests.failed > 0 { ", " span .bad { (words::grouped(tests.failed.into())) " failed" } }
        @if tests.flaky > 0 { ", " (words::grouped(tests.flaky.into())) " flaky" }
        @if tests.skipped > 0 { ", " (words::grouped(tests.skipped.into())) " skipped" }
    }
}

/// The page of a build's tests.
pub(crate) async fn page(
    State(site): State<Site>,
    guest: Guest,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Markup, Failure> {
    let shown = show(&site, &guest, &id).await?;
    let build = &shown.build;
    let steps = steps(&shown.progress.lock(), asked.step);
    let summary = sum(steps.iter().map(|(_, step)| step)).unwrap_or_default();
    let (mut tests, is_complete) = of(&guest, build, steps).await;
    let all = tests.len();
    let wanted: Vec<String> = asked.q.split_whitespace().map(str::to_lowercase).collect();
    tests.retain(|test| {
        let name = test.name().to_lowercase();
        wanted.iter().all(|word| name.contains(word))
    });
    let address = format!("/builds/{}", encoded(&build.id));
    let content = html! {
        nav .crumbs aria-label="Where you are" {
            a href=(address) { (project(build)) } span .dim { "/" } h1 { "tests" }
        }
        p .dim { (counts(&summary)) " in " (words::duration(summary.duration_ms)) }
        (unread(&summary, is_complete))
        form .filters.short method="get" action={ (address) "/tests" } role="search" {
            input name="q" type="search" value=(asked.q) placeholder="Name of a test" aria-label="Name of a test" data-key="/";
            @if asked.step > 0 { input type="hidden" name="step" value=(asked.step); }
            button type="submit" { "Search" }
        }
        @if all == 0 { (nothing(html! { p { "No tests." } p .dim { "The reports of a step are named in its " code { "reports" } " in " code { "kiln.toml" } "." } })) }
        @else if tests.is_empty() { (nothing(html! { p { "No test of this name." } })) }
        @else { (list(&build.id, &tests)) }
    };
    Ok(guest.page(&format!("{} · tests", project(build)), Section::Builds, None, content))
}

fn unread(summary: &TestSummary, is_complete: bool) -> Markup {
    html! {
        @if !is_complete { p .notice.odd { "Some reports are not shown: the store no longer has them, or they are too large." } }
        @if !summary.unread.is_empty() {
            details .warnings { summary { "Some reports were not read" } ul { @for why in &summary.unread { li { (why) } } } }
        }
    }
}

fn list(build: &str, tests: &[Tested]) -> Markup {
    let failed = tests.iter().filter(|test| test.case.outcome() == Outcome::Failed).count();
    html! {
        @if failed > 0 {
            section aria-labelledby="failed-title" {
                h2 #failed-title { "Failed" }
                ol .tests { @for test in tests.iter().take(failed.min(FAILED)) { (failure(test, failed <= 3)) } }
                @if failed > FAILED { p .dim { "and " (words::grouped((failed - FAILED) as u64)) " more" } }
            }
        }
        @if tests.len() > failed {
            section aria-labelledby="others-title" {
                h2 #others-title { @if failed > 0 { "Others" } @else { "All" } }
                ol .steps.rows { @for test in tests[failed..].iter().take(NAMED) { (row(build, test)) } }
                @if tests.len() - failed > NAMED { p .dim { "and " (words::grouped((tests.len() - failed - NAMED) as u64)) " more; search for their names" } }
            }
        }
    }
}

fn failure(test: &Tested, is_open: bool) -> Markup {
    html! {
        li {
            details open[is_open] {
                summary .head {
                    span .badge.failed { "failed" }
                    @if test.case.flaky { span .badge.queued title="With the same inputs, it has passed and failed." { "flaky" } }
                    strong { (test.name()) }
                    span .dim { (words::duration(test.case.duration_ms)) " · " (test.step) }
                    @if !test.case.message.is_empty() { p .message { (test.case.message) } }
                }
                (said(&test.case.output))
                @if !test.case.file.is_empty() { p .dim { "Reported in " code { (test.case.file) } } }
            }
        }
    }
}

/// What a test printed: the end of it, if that is much.
fn said(output: &str) -> Markup {
    let (mut lines, mut splitter) = (Vec::new(), Splitter::default());
    splitter.push(false, output.as_bytes(), 0, &mut lines);
    splitter.end(&mut lines);
    let left_out = lines.len().saturating_sub(LINES);
    html! {
        @if left_out > 0 { p .dim { (words::count(left_out as u64, "earlier line", "earlier lines")) " left out" } }
        @if lines.is_empty() { p .dim { "It said nothing." } }
        @else { pre { @for line in lines.iter().skip(left_out).map(Line::code) { (line) "\n" } } }
    }
}

fn row(build: &str, test: &Tested) -> Markup {
    let (class, outcome) = match (word(&test.case), test.case.flaky) {
        ("passed", true) => ("queued", "flaky"),
        ("passed", false) => ("hit", "passed"),
        (other, _) => (other, other),
    };
    html! {
        li class=(class) {
            span .name { (test.name()) }
            span .outcome { (outcome) }
            span .dim { a .plain href={ "/builds/" (encoded(build)) "/steps/" (test.number) } { (test.step) } }
            span .took { (words::duration(test.case.duration_ms)) }
        }
    }
}

/// The tests of one step on its page; nothing if it has none.
pub(super) async fn section(guest: &Guest, build: &v1::Build, number: usize, step: &Step) -> Markup {
    let Some(summary) = step.finished.as_ref().and_then(|done| done.tests.as_ref()) else { return html! {} };
    let failed = match summary.failed {
        0 => Vec::new(),
        _ => of(guest, build, vec![(number, step.clone())]).await.0,
    };
    let failed: Vec<&Tested> = failed.iter().filter(|test| test.case.outcome() == Outcome::Failed).collect();
    html! {
        section #tests aria-labelledby="tests-title" {
            h2 #tests-title { "Tests" }
            p { (counts(summary)) " in " (words::duration(summary.duration_ms)) ". "
                a href={ "/builds/" (encoded(&build.id)) "/tests?step=" (number) } { "All of them" } }
            (unread(summary, true))
            @if !failed.is_empty() {
                ol .tests { @for test in failed.iter().take(FAILED_OF_STEP) { (failure(test, failed.len() <= 3)) } }
                @if failed.len() > FAILED_OF_STEP { p .dim { "and " (failed.len() - FAILED_OF_STEP) " more failed tests" } }
            }
        }
    }
}
