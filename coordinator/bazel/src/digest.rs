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
use prost::Message;

use crate::options;
use crate::room::{Memory, Room};

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
/// Kinds of runners, and the longest name of one.
const MAX_RUNNERS: usize = 64;
const MAX_RUNNER: usize = 256;
/// The end of the year 9999.
const MAX_SECONDS: i64 = 253_402_300_799;
/// Longest duration: ten years.
const MAX_MILLIS: i64 = 315_360_000_000;
/// What a list takes for each of its entries.
const ENTRY: usize = 8;

/// An invocation, and what is where in it.
#[derive(Debug)]
pub(crate) struct Digest {
    pub(crate) invocation: Invocation,
    targets: HashMap<String, usize>,
    /// By label, run, shard and attempt.
    tests: HashMap<(String, i32, i32, i32), usize>,
    room: Room,
}

impl Digest {
    /// Goes on from what is known of an invocation.
    pub(crate) fn of(invocation: Invocation, memory: Memory) -> Self {
        let targets = invocation.targets.iter().enumerate().map(|(at, target)| (target.label.clone(), at)).collect();
        let key = |test: &InvocationTest| {
            let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
            (test.label.clone(), number(test.run), number(test.shard), number(test.attempt))
        };
        let tests = invocation.tests.iter().enumerate().map(|(at, test)| (key(test), at)).collect();
        let room = Room::of(memory, weight(&invocation));
        Self { invocation, targets, tests, room }
    }

    /// Takes in an event. Answers what the tool printed.
    pub(crate) fn take(&mut self, event: BuildEvent) -> Vec<u8> {
        let id = event.id.and_then(|id| id.id);
        let mut printed = Vec::new();
        if let Some(Id::Pattern(expanded)) = &id {
            let places = MAX_WORDS.saturating_sub(self.invocation.patterns.len());
            let patterns = expanded.pattern.iter().take(places).map(|pattern| text(pattern)).collect();
            let patterns = self.fitting(patterns, String::len);
            self.invocation.patterns.extend(patterns);
        }
        match event.payload {
            Some(Payload::Progress(progress)) => {
                printed = progress.stderr.into_bytes();
                printed.extend_from_slice(progress.stdout.as_bytes());
            }
            Some(Payload::Started(started)) => self.started(started),
            Some(Payload::OptionsParsed(parsed)) => {
                let options = parsed.explicit_cmd_line.iter().map(|option| text(&options::shown(option)));
                let options = options.take(MAX_WORDS).collect();
                self.room.exchange(words(&self.invocation.options), 0);
                self.invocation.options = self.fitting(options, String::len);
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
                    && let Some(at) = self.target(&target.label)
                {
                    self.change(at, |target| target.kind = text(&configured.target_kind));
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
                let files = logs.log.into_iter().take(MAX_FILES).map(file).collect();
                self.room.exchange(entries(&self.invocation.files), 0);
                self.invocation.files = self.fitting(files, Message::encoded_len);
            }
            Some(Payload::BuildMetrics(metrics)) => self.invocation.metrics = Some(measured(metrics)),
            Some(Payload::Action(_)) | None => {}
        }
        printed
    }

    fn started(&mut self, started: bep::BuildStarted) {
        let at = started.start_time.and_then(time).or_else(|| millis(started.start_time_millis));
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
        let (value, known) = (text(value), self.invocation.metadata.get(&key));
        let was = known.map_or(0, |known| key.len() + known.len() + ENTRY);
        if !self.room.exchange(was, key.len() + value.len() + ENTRY) {
            self.invocation.is_cut = true;
            return;
        }
        self.invocation.metadata.insert(key, value);
    }

    /// The first of these for which there is room.
    fn fitting<T>(&mut self, all: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<T> {
        let count = all.len();
        let fit: Vec<T> = all.into_iter().take_while(|one| self.room.exchange(0, size(one) + ENTRY)).collect();
        self.invocation.is_cut |= fit.len() < count;
        fit
    }

    /// Changes a target; if there is no room, without its texts.
    fn change(&mut self, at: usize, change: impl FnOnce(&mut InvocationTarget)) {
        let Some(target) = self.invocation.targets.get_mut(at) else { return };
        let was = target.encoded_len();
        change(target);
        if !self.room.exchange(was, target.encoded_len()) {
            target.kind.clear();
            target.failure.clear();
            self.room.exchange(was, target.encoded_len());
            self.invocation.is_cut = true;
        }
    }

    /// Where the target with this label is; none if there are too many.
    fn target(&mut self, label: &str) -> Option<usize> {
        let label = text(label);
        if let Some(at) = self.targets.get(&label) {
            return Some(*at);
        }
        let result = InvocationResult::InvocationPending.into();
        let target = InvocationTarget { label: label.clone(), result, ..InvocationTarget::default() };
        let at = self.invocation.targets.len();
        if at >= MAX_LISTED || !self.room.exchange(0, target.encoded_len() + ENTRY) {
            self.invocation.is_cut = true;
            return None;
        }
        self.invocation.targets.push(target);
        self.invocation.counts.get_or_insert_default().targets += 1;
        self.targets.insert(label, at);
        Some(at)
    }

    fn result(&self, at: usize) -> InvocationResult {
        self.invocation.targets.get(at).map(InvocationTarget::result).unwrap_or_default()
    }

    fn completed(&mut self, label: &str, result: InvocationResult, failure: &str) {
        let Some(at) = self.target(label) else { return };
        // One of several configurations or aspects that fails is enough.
        if self.result(at) == InvocationResult::InvocationBroken {
            return;
        }
        self.change(at, |target| {
            target.set_result(result);
            target.failure = text(failure);
        });
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
        let failed = InvocationAction {
            label: text(&label),
            mnemonic: text(&action.r#type),
            output: text(&output),
            exit_code: action.exit_code,
            command: action.command_line.iter().take(MAX_WORDS).map(|word| text(word)).collect(),
            stdout: action.stdout.map(file),
            stderr: action.stderr.map(file),
            failure: text(&action.failure_detail.unwrap_or_default().message),
        };
        if self.room.exchange(0, failed.encoded_len() + ENTRY) {
            self.invocation.failed_actions.push(failed);
        } else {
            self.invocation.is_cut = true;
        }
    }

    fn test(&mut self, id: bep::build_event_id::TestResultId, result: bep::TestResult) {
        let key = (text(&id.label), id.run, id.shard, id.attempt);
        let execution = result.execution_info.clone().unwrap_or_default();
        let of_duration = |time: kiln_proto::protobuf::Duration| {
            time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000)
        };
        let number = |number: i32| u32::try_from(number).unwrap_or_default();
        let duration = result.test_attempt_duration.map_or(result.test_attempt_duration_millis, of_duration);
        let test = InvocationTest {
            label: key.0.clone(),
            run: number(key.1),
            shard: number(key.2),
            attempt: number(key.3),
            result: outcome(result.status()).into(),
            duration_ms: duration.clamp(0, MAX_MILLIS),
            is_cached: result.cached_locally || execution.cached_remotely,
            details: text(&result.status_details),
            files: result.test_action_output.into_iter().take(MAX_FILES).map(file).collect(),
        };
        let known = self.tests.get(&key).copied();
        let was = known.and_then(|at| self.invocation.tests.get(at)).map_or(0, |known| known.encoded_len() + ENTRY);
        let tests = &mut self.invocation.tests;
        if known.is_none() && tests.len() >= MAX_LISTED || !self.room.exchange(was, test.encoded_len() + ENTRY) {
            self.invocation.is_cut = true;
            return;
        }
        match known.and_then(|at| tests.get_mut(at)) {
            Some(known) => *known = test,
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
        if let Some(at) = self.target(label).filter(|at| self.result(*at) != InvocationResult::InvocationBroken) {
            self.change(at, |target| target.set_result(result));
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
        self.invocation.finished = finished.finish_time.and_then(time).or_else(|| millis(finished.finish_time_millis));
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
    time(Timestamp { seconds: millis.div_euclid(1000), nanos }).filter(|_| millis > 0)
}

/// A time that can be: others reckon with it.
fn time(at: Timestamp) -> Option<Timestamp> {
    ((0..=MAX_SECONDS).contains(&at.seconds) && (0..1_000_000_000).contains(&at.nanos)).then_some(at)
}

/// A text that is not too long.
fn text(text: &str) -> String {
    cut(text, MAX_TEXT)
}

/// The beginning of a text.
pub(crate) fn cut(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

fn words(words: &[String]) -> usize {
    words.iter().map(|word| word.len() + ENTRY).sum()
}

fn entries<M: Message>(all: &[M]) -> usize {
    all.iter().map(|one| one.encoded_len() + ENTRY).sum()
}

/// What an invocation takes of its room.
fn weight(invocation: &Invocation) -> usize {
    let Invocation { patterns, options, metadata, targets, failed_actions, tests, files, .. } = invocation;
    let metadata: usize = metadata.iter().map(|(key, value)| key.len() + value.len() + ENTRY).sum();
    words(patterns)
        + words(options)
        + metadata
        + entries(targets)
        + entries(failed_actions)
        + entries(tests)
        + entries(files)
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
        let mut digest = Digest::of(Invocation::default(), Memory::default());
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
        let mut digest = Digest::of(Invocation::default(), Memory::default());
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
    fn whatever_a_stream_says_fits_into_a_message() {
        let long = "ä".repeat(MAX_TEXT);
        let file = |name: &str| bep::File { name: name.into(), file: Some(file::File::Contents(vec![b'x'; 1 << 20])) };
        let mut digest = Digest::of(Invocation::default(), Memory::default());
        for number in 0..600 {
            let label = format!("{number}{long}");
            let failed = bep::ActionExecuted {
                label: label.clone(),
                command_line: vec![long.clone(); 200],
                stderr: Some(file(&long)),
                ..Default::default()
            };
            let result = bep::TestResult { test_action_output: vec![file(&long); 40], ..Default::default() };
            let id = Id::TestResult(TestResultId { label: label.clone(), run: 1, shard: 0, attempt: 1 });
            let metadata = [(label.clone(), long.clone()), (number.to_string(), long.clone())].into_iter().collect();
            let kind = bep::TargetConfigured { target_kind: long.clone() };
            let configured = TargetConfiguredId { label: label.clone(), aspect: String::new() };
            let pattern = bep::build_event_id::PatternExpandedId { pattern: vec![long.clone(); 9] };
            let parsed = bep::OptionsParsed { explicit_cmd_line: vec![long.clone(); 100] };
            let logs = bep::BuildToolLogs { log: vec![file("log"); 40] };
            for event in [
                completed(&label, false),
                event(Some(Id::TargetConfigured(configured)), Payload::Configured(kind)),
                event(Some(Id::Pattern(pattern)), Payload::BuildMetadata(bep::BuildMetadata { metadata })),
                event(None, Payload::Action(failed)),
                event(Some(id), Payload::TestResult(result)),
                event(None, Payload::OptionsParsed(parsed)),
                event(None, Payload::BuildToolLogs(logs)),
            ] {
                digest.take(event);
            }
        }
        let bytes = digest.invocation.encoded_len();
        assert!(digest.invocation.is_cut && bytes < kiln_proto::channel::MAX_MESSAGE_BYTES * 2 / 3, "{bytes}");
        assert!(weight(&digest.invocation) <= crate::room::ONE);
        // It is still known how it ends.
        digest.take(event(None, Payload::Finished(bep::BuildFinished { overall_success: true, ..Default::default() })));
        assert_eq!(digest.invocation.status(), InvocationStatus::InvocationSucceeded);
    }

    proptest::proptest! {
        #[test]
        fn no_event_panics(events in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60), 0..20)) {
            let mut digest = Digest::of(Invocation::default(), Memory::default());
            for bytes in &events {
                // Any field of an event, with anything in it.
                for tag in [1_u8, 3, 4, 5, 7, 8, 9, 10, 13, 14] {
                    let length = u8::try_from(bytes.len()).unwrap();
                    let framed = [&[tag << 3 | 2, length][..], bytes].concat();
                    if let Ok(event) = BuildEvent::decode(framed.as_slice()) {
                        digest.take(event);
                    }
                }
            }
            let kept = Digest::of(digest.invocation.clone(), Memory::default());
            proptest::prop_assert_eq!(kept.invocation, digest.invocation);
        }
    }

    #[test]
    fn times_that_cannot_be_are_none() {
        let at = |seconds, nanos| time(Timestamp { seconds, nanos });
        assert!(at(1, 999_999_999).is_some() && at(MAX_SECONDS, 0).is_some());
        for (seconds, nanos) in [(-1, 0), (i64::MAX, 0), (i64::MIN, 0), (1, -1), (1, i32::MAX)] {
            assert!(at(seconds, nanos).is_none());
        }
        assert!(millis(i64::MAX).is_none() && millis(i64::MIN).is_none() && millis(0).is_none());
        let mut digest = Digest::of(Invocation::default(), Memory::default());
        let endless = kiln_proto::protobuf::Duration { seconds: i64::MAX, nanos: i32::MAX };
        let result = bep::TestResult { test_attempt_duration: Some(endless), ..Default::default() };
        let id = Id::TestResult(TestResultId { label: "//a".into(), run: -1, shard: i32::MIN, attempt: i32::MAX });
        digest.take(event(Some(id), Payload::TestResult(result)));
        assert_eq!(digest.invocation.tests[0].duration_ms, MAX_MILLIS);
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
        let mut whole = Digest::of(Invocation::default(), Memory::default());
        events().into_iter().for_each(|event| drop(whole.take(event)));
        assert_eq!(whole.invocation.failure, "no package");
        for cut in 0..events().len() {
            let mut parts = Digest::of(Invocation::default(), Memory::default());
            for (at, event) in events().into_iter().enumerate() {
                if at == cut {
                    parts = Digest::of(parts.invocation.clone(), Memory::default());
                }
                parts.take(event);
            }
            assert_eq!(parts.invocation, whole.invocation, "cut before {cut}");
        }
    }
}
