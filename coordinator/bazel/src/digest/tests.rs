//! Tests of the digest: what it tells apart, what it leaves out, and what it survives.

use super::*;
use crate::values::MAX_SECONDS;
use bep::build_event_id::{LabelId, TargetCompletedId, TargetConfiguredId, TestResultId};
use bep::{BuildEventId, test_result};
use kiln_proto::build_events::file;
use kiln_proto::protobuf::Timestamp;

fn event(id: Option<Id>, payload: Payload) -> BuildEvent {
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
        stderr: Some(bep::File { name: "stderr".into(), file: Some(file::File::Contents(b"no such file".to_vec())) }),
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
    assert_eq!((digest.invocation.status(), exit_name.as_str()), (InvocationStatus::InvocationFailed, "TESTS_FAILED"));
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
    let long = event(None, Payload::Started(bep::BuildStarted { command: "ä".repeat(MAX_TEXT), ..Default::default() }));
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
