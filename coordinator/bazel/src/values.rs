//! From Bazel's values to those that are kept: what cannot be becomes nothing, and what is too long is cut. Pure.

use kiln_proto::build_events::{self as bep, TestStatus, file};
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::{InvocationFile, InvocationMetrics, InvocationResult};

/// Longest text.
pub(crate) const MAX_TEXT: usize = 16 << 10;
/// Kinds of runners, and the longest name of one.
const MAX_RUNNERS: usize = 64;
const MAX_RUNNER: usize = 256;
/// The end of the year 9999.
pub(crate) const MAX_SECONDS: i64 = 253_402_300_799;

pub(crate) fn outcome(status: TestStatus) -> InvocationResult {
    match status {
        TestStatus::NoStatus => InvocationResult::InvocationPending,
        TestStatus::Passed => InvocationResult::InvocationPassed,
        TestStatus::Flaky => InvocationResult::InvocationFlaky,
        TestStatus::Timeout => InvocationResult::InvocationTimedOut,
        TestStatus::Failed | TestStatus::Incomplete | TestStatus::RemoteFailure | TestStatus::FailedToBuild => {
            InvocationResult::InvocationBroken
        }
        TestStatus::ToolHaltedBeforeTesting => InvocationResult::InvocationSkipped,
    }
}

pub(crate) fn measured(metrics: bep::BuildMetrics) -> InvocationMetrics {
    let (actions, times) = (metrics.action_summary.unwrap_or_default(), metrics.timing_metrics.unwrap_or_default());
    let runner = |one: bep::build_metrics::action_summary::RunnerCount| {
        Some((cut(&one.name, MAX_RUNNER), u32::try_from(one.count).ok()?))
    };
    InvocationMetrics {
        actions: actions.actions_executed,
        runners: actions.runner_count.into_iter().take(MAX_RUNNERS).filter_map(runner).collect(),
        wall_ms: times.wall_time_in_ms,
        cpu_ms: times.cpu_time_in_ms,
        analysis_ms: times.analysis_phase_time_in_ms,
        execution_ms: times.execution_phase_time_in_ms,
    }
}

pub(crate) fn file(file: bep::File) -> InvocationFile {
    let (uri, content) = match file.file {
        Some(file::File::Uri(uri)) => (text(&uri), Vec::new()),
        Some(file::File::Contents(mut content)) => {
            content.truncate(MAX_TEXT);
            (String::new(), content)
        }
        None => Default::default(),
    };
    InvocationFile { name: text(&file.name), uri, content }
}

pub(crate) fn millis(millis: i64) -> Option<Timestamp> {
    let nanos = i32::try_from(millis.rem_euclid(1000)).ok()?.saturating_mul(1_000_000);
    time(Timestamp { seconds: millis.div_euclid(1000), nanos }).filter(|_| millis > 0)
}

/// A time that can be: others reckon with it.
pub(crate) fn time(at: Timestamp) -> Option<Timestamp> {
    ((0..=MAX_SECONDS).contains(&at.seconds) && (0..1_000_000_000).contains(&at.nanos)).then_some(at)
}

/// A text that is not too long.
pub(crate) fn text(text: &str) -> String {
    cut(text, MAX_TEXT)
}

/// The beginning of a text.
pub(crate) fn cut(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default().to_owned()
}
