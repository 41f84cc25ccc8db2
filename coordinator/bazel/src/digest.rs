//! From Bazel's events to an [`Invocation`]. Pure: the same events yield the same, however they arrive.

use std::collections::HashMap;

use kiln_proto::build_events::build_event::Payload;
use kiln_proto::build_events::build_event_id::Id;
use kiln_proto::build_events::{self as bep, BuildEvent, TestStatus, aborted, file};
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::{
    Invocation, InvocationAction, InvocationFile, InvocationMetrics, InvocationResult, InvocationStatus,
    InvocationTarget, InvocationTest,
};

use crate::options;

/// Targets and attempts of tests that are kept.
const MAX_LISTED: usize = 20_000;
/// Actions that failed.
const MAX_ACTIONS: usize = 200;
/// Patterns, options and entries of metadata.
const MAX_WORDS: usize = 500;
/// Files of one attempt of a test, and of the tool.
const MAX_FILES: usize = 32;
/// Longest text.
const MAX_TEXT: usize = 16 << 10;

/// An invocation, and what is where in it.
#[derive(Debug)]
pub(crate) struct Digest {
    pub(crate) invocation: Invocation,
    targets: HashMap<String, usize>,
    /// By label, run, shard and attempt.
    tests: HashMap<(String, i32, i32, i32), usize>,
}

impl Digest {
    /// Goes on from what is known of an invocation.
    pub(crate) fn of(invocation: Invocation) -> Self {
        let targets = invocation.targets.iter().enumerate().map(|(at, target)| (target.label.clone(), at)).collect();
        let key = |test: &InvocationTest| {
            let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
            (test.label.clone(), number(test.run), number(test.shard), number(test.attempt))
        };
        let tests = invocation.tests.iter().enumerate().map(|(at, test)| (key(test), at)).collect();
        Self { invocation, targets, tests }
    }

    /// Takes in an event. Answers what the tool printed.
    pub(crate) fn take(&mut self, event: BuildEvent) -> Vec<u8> {
        let id = event.id.and_then(|id| id.id);
        let mut printed = Vec::new();
        if let Some(Id::Pattern(expanded)) = &id {
            let room = MAX_WORDS.saturating_sub(self.invocation.patterns.len());
            self.invocation.patterns.extend(expanded.pattern.iter().take(room).map(|pattern| text(pattern)));
        }
        match event.payload {
            Some(Payload::Progress(progress)) => {
                printed = progress.stderr.into_bytes();
                printed.extend_from_slice(progress.stdout.as_bytes());
            }
            Some(Payload::Started(started)) => self.started(started),
            Some(Payload::OptionsParsed(parsed)) => {
                let options = parsed.explicit_cmd_line.iter().map(|option| text(&options::shown(option)));
                self.invocation.options = options.take(MAX_WORDS).collect();
                self.invocation.is_cut |= parsed.explicit_cmd_line.len() > MAX_WORDS;
            }
            Some(Payload::WorkspaceStatus(status)) => {
                status.item.into_iter().for_each(|item| self.metadata(item.key, &item.value));
            }
            Some(Payload::BuildMetadata(metadata)) => {
                metadata.metadata.into_iter().for_each(|(key, value)| self.metadata(key, &value));
            }
            Some(Payload::Configured(configured)) => {
                if let Some(Id::TargetConfigured(target)) = id
                    && target.aspect.is_empty()
                    && let Some(target) = self.target(&target.label)
                {
                    target.kind = text(&configured.target_kind);
                }
            }
            Some(Payload::Completed(completed)) => {
                if let Some(Id::TargetCompleted(target)) = id
                    && (target.aspect.is_empty() || !completed.success)
                {
                    let failure = completed.failure_detail.unwrap_or_default().message;
                    let result = if completed.success {
                        InvocationResult::InvocationPassed
                    } else {
                        InvocationResult::InvocationBroken
                    };
                    self.completed(&target.label, result, &failure);
                }
            }
            Some(Payload::Action(action)) if !action.success => self.action(id, action),
            Some(Payload::TestResult(result)) => {
                if let Some(Id::TestResult(test)) = id {
                    self.test(test, result);
                }
            }
            Some(Payload::TestSummary(summary)) => {
                if let Some(Id::TestSummary(test)) = id {
                    self.summary(&test.label, summary.overall_status());
                }
            }
            Some(Payload::Aborted(aborted)) => self.aborted(id, &aborted),
            Some(Payload::Finished(finished)) => self.finished(finished),
            Some(Payload::BuildToolLogs(logs)) => {
                self.invocation.files = logs.log.into_iter().take(MAX_FILES).map(file).collect();
            }
            Some(Payload::BuildMetrics(metrics)) => self.invocation.metrics = Some(measured(metrics)),
            Some(Payload::Action(_)) | None => {}
        }
        printed
    }

    fn started(&mut self, started: bep::BuildStarted) {
        let at = started.start_time.or_else(|| millis(started.start_time_millis));
        self.invocation.started = at.or(self.invocation.started);
        self.invocation.tool_version = text(&started.build_tool_version);
        self.invocation.command = text(&started.command);
        self.invocation.workspace = text(&started.workspace_directory);
    }

    fn metadata(&mut self, key: String, value: &str) {
        if self.invocation.metadata.len() >= MAX_WORDS || key.len() > MAX_TEXT {
            self.invocation.is_cut = true;
            return;
        }
        self.invocation.metadata.insert(key, text(value));
    }

    /// The target with this label; none if there are too many.
    fn target(&mut self, label: &str) -> Option<&mut InvocationTarget> {
        let targets = &mut self.invocation.targets;
        let at = match self.targets.get(label) {
            Some(at) => *at,
            None if targets.len() >= MAX_LISTED => {
                self.invocation.is_cut = true;
                return None;
            }
            None => {
                let result = InvocationResult::InvocationPending.into();
                targets.push(InvocationTarget { label: text(label), result, ..InvocationTarget::default() });
                self.invocation.counts.get_or_insert_default().targets += 1;
                self.targets.insert(label.to_owned(), targets.len() - 1);
                targets.len() - 1
            }
        };
        targets.get_mut(at)
    }

    fn completed(&mut self, label: &str, result: InvocationResult, failure: &str) {
        let Some(target) = self.target(label) else { return };
        let was_broken = target.result() == InvocationResult::InvocationBroken;
        // One of several configurations or aspects that fails is enough.
        if was_broken {
            return;
        }
        target.set_result(result);
        target.failure = text(failure);
        if result == InvocationResult::InvocationBroken {
            self.invocation.counts.get_or_insert_default().failed_targets += 1;
        }
    }

    fn action(&mut self, id: Option<Id>, action: bep::ActionExecuted) {
        if self.invocation.failed_actions.len() >= MAX_ACTIONS {
            self.invocation.is_cut = true;
            return;
        }
        let (output, label) = match id {
            Some(Id::ActionCompleted(id)) => (id.primary_output, id.label),
            _ => (String::new(), String::new()),
        };
        let label = if label.is_empty() { action.label } else { label };
        self.invocation.failed_actions.push(InvocationAction {
            label: text(&label),
            mnemonic: text(&action.r#type),
            output: text(&output),
            exit_code: action.exit_code,
            command: action.command_line.iter().take(MAX_WORDS).map(|word| text(word)).collect(),
            stdout: action.stdout.map(file),
            stderr: action.stderr.map(file),
            failure: text(&action.failure_detail.unwrap_or_default().message),
        });
    }

    fn test(&mut self, id: bep::build_event_id::TestResultId, result: bep::TestResult) {
        let key = (id.label, id.run, id.shard, id.attempt);
        let execution = result.execution_info.clone().unwrap_or_default();
        let of_duration = |time: kiln_proto::protobuf::Duration| {
            time.seconds.saturating_mul(1000) + i64::from(time.nanos) / 1_000_000
        };
        let number = |number: i32| u32::try_from(number).unwrap_or_default();
        let test = InvocationTest {
            label: text(&key.0),
            run: number(key.1),
            shard: number(key.2),
            attempt: number(key.3),
            result: outcome(result.status()).into(),
            duration_ms: result.test_attempt_duration.map_or(result.test_attempt_duration_millis, of_duration),
            is_cached: result.cached_locally || execution.cached_remotely,
            details: text(&result.status_details),
            files: result.test_action_output.into_iter().take(MAX_FILES).map(file).collect(),
        };
        let tests = &mut self.invocation.tests;
        match self.tests.get(&key) {
            Some(at) => tests.iter_mut().skip(*at).take(1).for_each(|known| *known = test.clone()),
            None if tests.len() >= MAX_LISTED => self.invocation.is_cut = true,
            None => {
                self.tests.insert(key, tests.len());
                tests.push(test);
            }
        }
    }

    fn summary(&mut self, label: &str, status: TestStatus) {
        let counts = self.invocation.counts.get_or_insert_default();
        let result = outcome(status);
        match result {
            InvocationResult::InvocationPassed => counts.passed_tests += 1,
            InvocationResult::InvocationFlaky => counts.flaky_tests += 1,
            InvocationResult::InvocationBroken | InvocationResult::InvocationTimedOut => counts.failed_tests += 1,
            _ => {}
        }
        if let Some(target) = self.target(label).filter(|target| target.result() != InvocationResult::InvocationBroken)
        {
            target.set_result(result);
        }
    }

    fn aborted(&mut self, id: Option<Id>, aborted: &bep::Aborted) {
        use aborted::AbortReason;
        let reason = aborted.reason();
        let is_skipped = matches!(
            reason,
            AbortReason::Skipped | AbortReason::Incomplete | AbortReason::NoBuild | AbortReason::NoAnalyze
        );
        let words = if aborted.description.is_empty() { reason.as_str_name() } else { &aborted.description };
        match id {
            Some(Id::TargetCompleted(target)) if is_skipped => {
                self.completed(&target.label, InvocationResult::InvocationSkipped, words);
            }
            Some(Id::TargetCompleted(target)) => {
                self.completed(&target.label, InvocationResult::InvocationBroken, words)
            }
            Some(Id::TargetConfigured(target)) if !is_skipped => {
                self.completed(&target.label, InvocationResult::InvocationBroken, words);
            }
            _ => {}
        }
        if !is_skipped && self.invocation.failure.is_empty() {
            self.invocation.failure = text(words);
        }
    }

    fn finished(&mut self, finished: bep::BuildFinished) {
        let exit = finished.exit_code.unwrap_or_else(|| bep::build_finished::ExitCode {
            name: String::new(),
            code: i32::from(!finished.overall_success),
        });
        self.invocation.finished = finished.finish_time.or_else(|| millis(finished.finish_time_millis));
        self.invocation.set_status(match exit.code {
            0 => InvocationStatus::InvocationSucceeded,
            _ => InvocationStatus::InvocationFailed,
        });
        self.invocation.exit_code = exit.code;
        self.invocation.exit_name = text(&exit.name);
        let words = finished.failure_detail.unwrap_or_default().message;
        if !words.is_empty() {
            self.invocation.failure = text(&words);
        }
    }
}

fn outcome(status: TestStatus) -> InvocationResult {
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

fn measured(metrics: bep::BuildMetrics) -> InvocationMetrics {
    let (actions, times) = (metrics.action_summary.unwrap_or_default(), metrics.timing_metrics.unwrap_or_default());
    let runner =
        |one: bep::build_metrics::action_summary::RunnerCount| Some((text(&one.name), u32::try_from(one.count).ok()?));
    InvocationMetrics {
        actions: actions.actions_executed,
        runners: actions.runner_count.into_iter().take(MAX_WORDS).filter_map(runner).collect(),
        wall_ms: times.wall_time_in_ms,
        cpu_ms: times.cpu_time_in_ms,
        analysis_ms: times.analysis_phase_time_in_ms,
        execution_ms: times.execution_phase_time_in_ms,
    }
}

fn file(file: bep::File) -> InvocationFile {
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

fn millis(millis: i64) -> Option<Timestamp> {
    let nanos = i32::try_from(millis.rem_euclid(1000)).ok()? * 1_000_000;
    (millis > 0).then(|| Timestamp { seconds: millis.div_euclid(1000), nanos })
}

/// A text that is not too long.
fn text(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bep::build_event_id::{LabelId, TargetCompletedId, TargetConfiguredId, TestResultId};
    use bep::{BuildEventId, test_result};

    pub(crate) fn event(id: Option<Id>, payload: Payload) -> BuildEvent {
        BuildEvent { id: id.map(|id| BuildEventId { id: Some(id) }), payload: Some(payload), ..BuildEvent::default() }
    }

    fn completed(label: &str, success: bool) -> BuildEvent {
        let id = Id::TargetCompleted(TargetCompletedId { label: label.into(), ..TargetCompletedId::default() });
        event(Some(id), Payload::Completed(bep::TargetComplete { success, ..bep::TargetComplete::default() }))
    }

    fn attempt(label: &str, attempt: i32, status: TestStatus) -> BuildEvent {
        let id = Id::TestResult(TestResultId { label: label.into(), run: 1, shard: 0, attempt });
        let execution_info = Some(test_result::ExecutionInfo { cached_remotely: true, ..Default::default() });
        let result = bep::TestResult {
            status: status.into(),
            execution_info,
            test_attempt_duration_millis: 7,
            ..Default::default()
        };
        event(Some(id), Payload::TestResult(result))
    }

    fn summary(label: &str, status: TestStatus) -> BuildEvent {
        let id = Id::TestSummary(LabelId { label: label.into() });
        event(Some(id), Payload::TestSummary(bep::TestSummary { overall_status: status.into() }))
    }

    #[test]
    fn targets_tests_and_failures_are_told_apart() {
        let mut digest = Digest::of(Invocation::default());
        let configured = Id::TargetConfigured(TargetConfiguredId { label: "//a".into(), aspect: String::new() });
        let kind = bep::TargetConfigured { target_kind: "cc_test rule".into() };
        let failed = bep::ActionExecuted {
            exit_code: 1,
            label: "//b".into(),
            r#type: "CppCompile".into(),
            stderr: Some(bep::File {
                name: "stderr".into(),
                file: Some(file::File::Contents(b"no such file".to_vec())),
            }),
            ..Default::default()
        };
        let finished = bep::BuildFinished {
            exit_code: Some(bep::build_finished::ExitCode { name: "TESTS_FAILED".into(), code: 3 }),
            finish_time_millis: 1_500,
            ..Default::default()
        };
        for event in [
            event(Some(configured), Payload::Configured(kind)),
            completed("//a", true),
            completed("//b", false),
            completed("//b", true),
            event(None, Payload::Action(failed)),
            event(None, Payload::Action(bep::ActionExecuted { success: true, ..Default::default() })),
            attempt("//a", 1, TestStatus::Failed),
            attempt("//a", 2, TestStatus::Passed),
            summary("//a", TestStatus::Flaky),
            event(None, Payload::Finished(finished)),
        ] {
            assert!(digest.take(event).is_empty());
        }
        let Invocation { targets, tests, failed_actions, counts, exit_name, finished, .. } = digest.invocation.clone();
        let results: Vec<_> = targets.iter().map(|target| (target.label.as_str(), target.result())).collect();
        assert_eq!(results, [("//a", InvocationResult::InvocationFlaky), ("//b", InvocationResult::InvocationBroken)]);
        assert_eq!(targets[0].kind, "cc_test rule");
        let attempts: Vec<_> =
            tests.iter().map(|test| (test.attempt, test.result(), test.is_cached, test.duration_ms)).collect();
        let (broken, passed) = (InvocationResult::InvocationBroken, InvocationResult::InvocationPassed);
        assert_eq!(attempts, [(1, broken, true, 7), (2, passed, true, 7)]);
        assert_eq!(failed_actions.len(), 1);
        assert_eq!(failed_actions[0].stderr.as_ref().unwrap().content, b"no such file");
        let counts = counts.unwrap();
        assert_eq!((counts.targets, counts.failed_targets, counts.flaky_tests, counts.failed_tests), (2, 1, 1, 0));
        assert_eq!(
            (digest.invocation.status(), exit_name.as_str()),
            (InvocationStatus::InvocationFailed, "TESTS_FAILED")
        );
        assert_eq!(finished, Some(Timestamp { seconds: 1, nanos: 500_000_000 }));
    }

    #[test]
    fn what_is_too_much_is_left_out_and_said() {
        let mut digest = Digest::of(Invocation::default());
        for number in 0..=MAX_LISTED {
            digest.take(completed(&format!("//t:{number}"), true));
        }
        assert_eq!((digest.invocation.targets.len(), digest.invocation.is_cut), (MAX_LISTED, true));
        digest.take(completed(&"ä".repeat(MAX_TEXT), true));
        let long =
            event(None, Payload::Started(bep::BuildStarted { command: "ä".repeat(MAX_TEXT), ..Default::default() }));
        digest.take(long);
        assert_eq!(digest.invocation.command.len(), MAX_TEXT);
    }

    #[test]
    fn a_digest_goes_on_from_what_was_kept() {
        let events = || {
            let skipped = bep::Aborted { reason: aborted::AbortReason::Skipped.into(), description: String::new() };
            let id = Id::TargetCompleted(TargetCompletedId { label: "//c".into(), ..Default::default() });
            let load =
                bep::Aborted { reason: aborted::AbortReason::LoadingFailure.into(), description: "no package".into() };
            [
                completed("//a", true),
                attempt("//a", 1, TestStatus::Failed),
                event(Some(id), Payload::Aborted(skipped)),
                event(Some(Id::UnconfiguredLabel(LabelId { label: "//x".into() })), Payload::Aborted(load)),
                attempt("//a", 1, TestStatus::Passed),
                completed("//a", false),
                summary("//a", TestStatus::Passed),
            ]
        };
        let mut whole = Digest::of(Invocation::default());
        events().into_iter().for_each(|event| drop(whole.take(event)));
        assert_eq!(whole.invocation.failure, "no package");
        for cut in 0..events().len() {
            let mut parts = Digest::of(Invocation::default());
            for (at, event) in events().into_iter().enumerate() {
                if at == cut {
                    parts = Digest::of(parts.invocation);
                }
                parts.take(event);
            }
            assert_eq!(parts.invocation, whole.invocation, "cut before {cut}");
        }
    }
}
