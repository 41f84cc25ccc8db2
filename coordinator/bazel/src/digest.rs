//! From Bazel's events to an [`Invocation`]. Pure: the same events yield the same, however they arrive.

use std::collections::HashMap;

use kiln_proto::build_events::build_event::Payload;
use kiln_proto::build_events::build_event_id::Id;
use kiln_proto::build_events::{self as bep, BuildEvent, TestStatus, aborted};

use kiln_proto::v1::{
    Invocation, InvocationAction, InvocationResult, InvocationStatus, InvocationTarget, InvocationTest,
};
use prost::Message;

use crate::options;
use crate::room::{Memory, Room};
use crate::values::{MAX_TEXT, file, measured, millis, outcome, text, time};

/// Targets and attempts of tests that are kept.
const MAX_LISTED: usize = 20_000;
/// Actions that failed.
const MAX_ACTIONS: usize = 200;
/// Patterns, options and entries of metadata.
const MAX_WORDS: usize = 500;
/// Files of one attempt of a test, and of the tool.
const MAX_FILES: usize = 32;
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
        let was = known.map_or(0, |known| entry(key.len().saturating_add(known.len())));
        if !self.room.exchange(was, entry(key.len().saturating_add(value.len()))) {
            self.invocation.is_cut = true;
            return;
        }
        self.invocation.metadata.insert(key, value);
    }

    /// The first of these for which there is room.
    fn fitting<T>(&mut self, all: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<T> {
        let count = all.len();
        let fit: Vec<T> = all.into_iter().take_while(|one| self.room.exchange(0, entry(size(one)))).collect();
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
        if at >= MAX_LISTED || !self.room.exchange(0, entry(target.encoded_len())) {
            self.invocation.is_cut = true;
            return None;
        }
        self.invocation.targets.push(target);
        let counts = self.invocation.counts.get_or_insert_default();
        counts.targets = counts.targets.saturating_add(1);
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
            let counts = self.invocation.counts.get_or_insert_default();
            counts.failed_targets = counts.failed_targets.saturating_add(1);
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
        if self.room.exchange(0, entry(failed.encoded_len())) {
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
        let was = known.and_then(|at| self.invocation.tests.get(at)).map_or(0, |known| entry(known.encoded_len()));
        let tests = &mut self.invocation.tests;
        if known.is_none() && tests.len() >= MAX_LISTED || !self.room.exchange(was, entry(test.encoded_len())) {
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
            InvocationResult::InvocationPassed => counts.passed_tests = counts.passed_tests.saturating_add(1),
            InvocationResult::InvocationFlaky => counts.flaky_tests = counts.flaky_tests.saturating_add(1),
            InvocationResult::InvocationBroken | InvocationResult::InvocationTimedOut => {
                counts.failed_tests = counts.failed_tests.saturating_add(1)
            }
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

/// What an entry of so many bytes counts for.
fn entry(bytes: usize) -> usize {
    bytes.saturating_add(ENTRY)
}

fn words(words: &[String]) -> usize {
    words.iter().map(|word| entry(word.len())).sum()
}

fn entries<M: Message>(all: &[M]) -> usize {
    all.iter().map(|one| entry(one.encoded_len())).sum()
}

/// What an invocation takes of its room.
fn weight(invocation: &Invocation) -> usize {
    let Invocation { patterns, options, metadata, targets, failed_actions, tests, files, .. } = invocation;
    let metadata: usize = metadata.iter().map(|(key, value)| entry(key.len().saturating_add(value.len()))).sum();
    [
        words(patterns),
        words(options),
        metadata,
        entries(targets),
        entries(failed_actions),
        entries(tests),
        entries(files),
    ]
    .into_iter()
    .fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests;
