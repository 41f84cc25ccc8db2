//! One invocation: why it failed, its tests, its targets, what it printed.

use std::cmp::Ordering;
use std::collections::HashMap;

use kiln_proto::v1::{
    Invocation, InvocationAction, InvocationFile, InvocationResult, InvocationStatus, InvocationTarget, InvocationTest,
};
use maud::{Markup, PreEscaped, html};

use super::tail::{LIST, Piece};
use super::{badge, commit, printed, title, took};
use crate::markup::words;

/// Failed actions, targets and tests that are shown at once; the rest is folded.
pub(super) const FAILURES: usize = 20;
const ROWS: usize = 200;
/// Options and entries of metadata, and the longest of their texts and of a command, in characters.
const SETTINGS: usize = 200;
const TEXT: usize = 500;
const COMMAND: usize = 16 << 10;
/// The name of the file with what a test printed.
const TEST_LOG: &str = "test.log";
/// The id of the output.
pub(super) const OUTPUT: &str = "output";

/// All but the output.
pub(super) fn of(invocation: &Invocation) -> Markup {
    html! {
        div #invocation {
            div #top {
                div .title { h1 { (title(invocation)) } (badge(invocation.status())) }
                (facts(invocation))
                (errors(invocation))
                (tiles(invocation))
                @if invocation.is_cut { p .notice.odd { "This invocation told more than the farm keeps; some of it is left out." } }
            }
            (tests(invocation))
            (targets(invocation))
            (settings(invocation))
        }
    }
}

fn facts(invocation: &Invocation) -> Markup {
    let said = |key: &str| invocation.metadata.get(key).filter(|value| !value.is_empty());
    html! {
        dl .facts {
            @if let Some(commit) = commit(invocation) { div { dt { "Commit" } dd title=(commit) { code { (words::short(commit, 12)) } } } }
            @if let Some(user) = said("BUILD_USER") { div { dt { "User" } dd { (user) } } }
            @if let Some(host) = said("BUILD_HOST") { div { dt { "Host" } dd { (host) } } }
            @if !invocation.publisher.is_empty() { div { dt { "Known as" } dd { (invocation.publisher) } } }
            @if !invocation.tool_version.is_empty() { div { dt { "Bazel" } dd { (invocation.tool_version) } } }
            @if let Some(started) = &invocation.started { div { dt { "Started" } dd { (words::ago(started)) } } }
            div { dt { "Took" } dd { (took(invocation)) } }
            @if !invocation.exit_name.is_empty() { div { dt { "Exit" } dd { (invocation.exit_name) " (" (invocation.exit_code) ")" } } }
            div { dt { "Invocation" } dd { code { (invocation.id) } } }
        }
    }
}

/// Why it did not succeed.
fn errors(invocation: &Invocation) -> Markup {
    let actions = &invocation.failed_actions;
    let has_failed = invocation.status() == InvocationStatus::InvocationFailed;
    html! {
        @if !actions.is_empty() || has_failed && !invocation.failure.is_empty() {
            section #error .error aria-label="Why it failed" {
                @if !invocation.failure.is_empty() { p .words { (invocation.failure) } }
                @for action in actions.iter().take(FAILURES) { (failed(action)) }
                @if actions.len() > FAILURES { p .dim { "and " (actions.len() - FAILURES) " more failed actions" } }
            }
        }
    }
}

fn failed(action: &InvocationAction) -> Markup {
    html! {
        div .first {
            h3 { (action.label) span .dim { " " (action.mnemonic) ", exit code " (action.exit_code) } }
            @if !action.failure.is_empty() { p .words { (action.failure) } }
            @for file in [&action.stderr, &action.stdout].into_iter().flatten() { (printed(&file.content)) }
            @if !action.command.is_empty() { details { summary { "Command" } pre { (short(&action.command.join(" "), COMMAND)) } } }
        }
    }
}

fn tiles(invocation: &Invocation) -> Markup {
    let counts = invocation.counts.unwrap_or_default();
    let metrics = invocation.metrics.clone().unwrap_or_default();
    let tests = counts.passed_tests + counts.failed_tests + counts.flaky_tests;
    let runners: Vec<(&String, &u32)> = metrics.runners.iter().filter(|(name, _)| *name != "total").collect();
    let hits: u64 = runners.iter().filter(|(name, _)| name.contains("hit")).map(|(_, count)| u64::from(**count)).sum();
    html! {
        div .tiles {
            (tile("Targets", html! { (words::grouped(counts.targets.into())) }, html! {
                @if counts.failed_targets > 0 { span .bad { (words::grouped(counts.failed_targets.into())) " failed to build" } }
            }))
            @if tests > 0 {
                (tile("Tests", html! { (words::grouped(tests.into())) }, html! {
                    (words::grouped(counts.passed_tests.into())) " passed"
                    @if counts.failed_tests > 0 { ", " span .bad { (words::grouped(counts.failed_tests.into())) " failed" } }
                    @if counts.flaky_tests > 0 { ", " (words::grouped(counts.flaky_tests.into())) " flaky" }
                }))
            }
            @if metrics.actions > 0 {
                (tile("Actions", html! { (words::grouped(u64::try_from(metrics.actions).unwrap_or(0))) }, html! {
                    @if hits > 0 { (words::grouped(hits)) " cache hits" }
                }))
            }
            @if metrics.wall_ms > 0 {
                (tile("Time", html! { (words::duration(positive(metrics.wall_ms))) }, html! {
                    @if metrics.execution_ms > 0 {
                        (words::duration(positive(metrics.analysis_ms))) " analysis, "
                        (words::duration(positive(metrics.execution_ms))) " execution"
                    }
                }))
            }
        }
        @if !runners.is_empty() {
            details .warnings {
                summary { "What ran the actions" }
                @let mut sorted = runners.clone();
                @let () = sorted.sort_by(|one, other| other.1.cmp(one.1));
                ul { @for (name, count) in sorted { li { (words::grouped(u64::from(*count))) " × " (name) } } }
            }
        }
    }
}

/// The first line of a text.
fn first(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn positive(milliseconds: i64) -> u64 {
    u64::try_from(milliseconds).unwrap_or(0)
}

fn tile(name: &str, value: Markup, more: Markup) -> Markup {
    html! { div .tile { span .dim { (name) } strong { (value) } span .dim { (more) } } }
}

/// How bad a result is, and what it is called.
fn result(result: InvocationResult) -> (u8, &'static str, &'static str) {
    match result {
        InvocationResult::InvocationBroken => (0, "failed", "failed"),
        InvocationResult::InvocationTimedOut => (1, "failed", "timed out"),
        InvocationResult::InvocationFlaky => (2, "queued", "flaky"),
        InvocationResult::InvocationPending | InvocationResult::Unspecified => (3, "waiting", "pending"),
        InvocationResult::InvocationSkipped => (4, "skipped", "skipped"),
        InvocationResult::InvocationPassed => (5, "hit", "passed"),
    }
}

/// The order in which attempts of tests are shown: those that failed first.
pub(super) fn worst_first(one: &InvocationTest, other: &InvocationTest) -> Ordering {
    let key = |test: &InvocationTest| (result(test.result()).0, test.run, test.shard, test.attempt);
    let (one_key, other_key) = (key(one), key(other));
    one_key.0.cmp(&other_key.0).then_with(|| one.label.cmp(&other.label)).then(one_key.cmp(&other_key))
}

/// Whether an attempt did not pass.
pub(super) fn has_failed(test: &InvocationTest) -> bool {
    matches!(test.result(), InvocationResult::InvocationBroken | InvocationResult::InvocationTimedOut)
}

/// What an attempt printed, as Bazel names the file.
pub(super) fn log_mut(test: &mut InvocationTest) -> Option<&mut InvocationFile> {
    test.files.iter_mut().find(|file| file.name == TEST_LOG)
}

/// The attempts of tests, those that failed first, with the ends of their logs.
fn tests(invocation: &Invocation) -> Markup {
    let mut tests: Vec<&InvocationTest> = invocation.tests.iter().collect();
    tests.sort_by(|one, other| worst_first(one, other));
    let log = |test: &InvocationTest| {
        let file = test.files.iter().find(|file| file.name == TEST_LOG && has_failed(test))?;
        Some(printed(&file.content)).filter(|text| !text.0.is_empty())
    };
    let mut several: HashMap<&str, [bool; 3]> = HashMap::new();
    for test in &tests {
        let [runs, shards, attempts] = several.entry(&test.label).or_default();
        *runs |= test.run > 1;
        *shards |= test.shard > 1;
        *attempts |= test.attempt > 1;
    }
    html! {
        @if !tests.is_empty() {
            section aria-labelledby="tests" {
                h2 #tests { "Tests" }
                ol .steps.rows {
                    @for (place, test) in tests.iter().take(ROWS).enumerate() {
                        (attempt(test, several.get(test.label.as_str()).copied().unwrap_or_default()))
                        @if let Some(text) = log(test).filter(|_| place < FAILURES) { li .told { (text) } }
                    }
                }
                @if tests.len() > ROWS { p .dim { "and " (words::grouped((tests.len() - ROWS) as u64)) " more attempts" } }
            }
        }
    }
}

/// An attempt, with its numbers of what its test has several of: runs, shards, attempts.
fn attempt(test: &InvocationTest, several: [bool; 3]) -> Markup {
    let (_, class, word) = result(test.result());
    let numbers = [("run", test.run), ("shard", test.shard), ("attempt", test.attempt)];
    let which = numbers.iter().zip(several).filter(|(_, is_shown)| *is_shown);
    let which: Vec<String> = which.map(|((what, number), _)| format!("{what} {number}")).collect();
    html! {
        li class=(class) {
            span .name { (test.label) @if !which.is_empty() { span .dim { " " (which.join(", ")) } } }
            span .outcome { (word) }
            span .dim { @if test.is_cached { "cached" } @else { (test.details) } }
            span .took { (words::duration(positive(test.duration_ms))) }
        }
    }
}

fn targets(invocation: &Invocation) -> Markup {
    let mut targets: Vec<&InvocationTarget> = invocation.targets.iter().collect();
    targets.sort_by_key(|target| (result(target.result()).0, &target.label));
    html! {
        @if !targets.is_empty() {
            section aria-labelledby="targets" {
                h2 #targets { "Targets" }
                ol .steps.rows {
                    @for target in targets.iter().take(ROWS) {
                        @let (_, class, word) = result(target.result());
                        @let word = if word == "passed" && !is_test(target) { "built" } else { word };
                        li class=(class) {
                            span .name { (target.label) }
                            span .outcome { (word) }
                            span .dim { (if target.failure.is_empty() { &target.kind } else { first(&target.failure) }) }
                        }
                    }
                }
                @if targets.len() > ROWS { p .dim { "and " (words::grouped((targets.len() - ROWS) as u64)) " more targets" } }
            }
        }
    }
}

/// Whether a target is one that Bazel runs to test something, by the name of its rule.
fn is_test(target: &InvocationTarget) -> bool {
    let rule = target.kind.strip_suffix(" rule").unwrap_or(&target.kind);
    rule.ends_with("_test") || rule == "test_suite"
}

/// A text that is not too long.
fn short(text: &str, most: usize) -> String {
    let mut short: String = text.chars().take(most).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn settings(invocation: &Invocation) -> Markup {
    let mut metadata: Vec<(&String, &String)> = invocation.metadata.iter().collect();
    metadata.sort();
    html! {
        @if !invocation.options.is_empty() || !metadata.is_empty() {
            details .warnings {
                summary { "Options and metadata" }
                @if !invocation.options.is_empty() { ul { @for option in invocation.options.iter().take(SETTINGS) { li { code { (short(option, TEXT)) } } } } }
                @if !metadata.is_empty() { ul { @for (key, value) in metadata.into_iter().take(SETTINGS) { li { (short(key, TEXT)) ": " (short(value, TEXT)) } } } }
            }
        }
    }
}

/// What it printed: its end, if that is much. While it runs, further lines are added.
pub(super) fn output(pieces: &[Piece], is_running: bool) -> Markup {
    let first = pieces.first().map_or(1, |(first, _)| *first);
    let next = pieces.last().map_or(1, |(first, rows)| first + rows.len() as u64);
    html! {
        section id=(OUTPUT) aria-label="Output" {
            @if next > 1 || is_running {
                h2 { "Output" }
                @if first > 1 { p .dim { (words::count(first - 1, "earlier line", "earlier lines")) " left out" } }
                div .log.alone {
                    ol .lines id=(LIST) data-next=(next) data-step=[is_running.then_some(1)] {
                        @for row in pieces.iter().flat_map(|(_, rows)| rows.iter()) { (PreEscaped(row)) }
                    }
                }
            }
        }
    }
}
