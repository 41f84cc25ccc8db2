//! One JSON object per line on standard output, for programs.

use std::io::Write;
use std::time::{Duration, Instant};

use kiln_proto::clock;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1;
use serde_json::{Value, json};

use super::{Board, Happening, Key, Show, Work, cache_word, status_word};

/// The version of the objects' format: increased when a field changes its meaning or is removed, not when one is added.
const SCHEMA: u32 = 1;
/// Interval between objects about a transfer's progress.
const WORK_EVERY: Duration = Duration::from_secs(1);

/// Writes each happening as an object with a `type`, the `schema` and a time.
#[derive(Default)]
pub(super) struct Json {
    worked: Option<Instant>,
}

/// Writes an object with the schema's version and its time, by the farm's clock if known.
pub(super) fn write(mut object: Value, at: Option<Timestamp>) -> std::io::Result<()> {
    let at = at.unwrap_or_else(clock::now);
    // Truncated to milliseconds, because the timestamp's format has as many digits as it needs.
    let at = Timestamp { nanos: at.nanos / 1_000_000 * 1_000_000, ..at };
    object["schema"] = SCHEMA.into();
    object["at"] = clock::rfc3339(&at).into();
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{object}")?;
    stdout.flush()
}

impl Show for Json {
    fn happening(&mut self, board: &Board, happening: &Happening) -> std::io::Result<()> {
        let mut object = object(happening);
        if !board.project.is_empty() {
            object["directory"] = board.project.as_str().into();
        }
        if let (Happening::Finished { .. }, Some(elapsed)) = (happening, board.elapsed()) {
            object["elapsed_ms"] = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).into();
        }
        let is_of_the_farm = !matches!(happening, Happening::Delivered(_) | Happening::Artifact { .. });
        write(object, board.at.filter(|_| is_of_the_farm))
    }

    fn note(&mut self, text: &str) {
        kiln_terminal::say(&kiln_terminal::harmless(text));
    }

    fn work(&mut self, work: Option<&Work>) {
        let Some(work) = work else { return self.worked = None };
        if self.worked.is_none_or(|last| last.elapsed() >= WORK_EVERY) {
            self.worked = Some(Instant::now());
            let object = json!({
                "type": "progress",
                "what": work.what,
                "bytes": work.done,
                "total_bytes": work.total,
                "bytes_per_second": work.rate(),
            });
            // A closed pipe is noticed at the next event.
            let _ = write(object, None);
        }
    }

    fn tick(&mut self, _board: &Board) {}
}

fn object(happening: &Happening) -> Value {
    match happening {
        Happening::Started(started) => json!({
            "type": "build_started",
            "build": started.build,
            "project": started.project,
            "version": started.version,
            "steps": started.steps.len(),
            "resumed": started.resumed,
        }),
        Happening::StepStarted { key, worker, expected } => {
            let expected_ms = expected.map(|expected| expected.as_millis() as u64);
            of_step("step_started", key, json!({ "worker": worker, "expected_ms": expected_ms }))
        }
        Happening::Log { key, stream, text } => of_step("log", key, json!({ "stream": stream, "text": text })),
        Happening::StepCalls { key, calls: counts } => of_step("step_calls", key, json!({ "calls": calls(counts) })),
        Happening::StepFinished { key, finished } => of_step("step_finished", key, step_finished(finished)),
        Happening::StepAgain(again) => {
            of_step("step_again", &Key::from(again.step.clone().unwrap_or_default()), super::again::step_object(again))
        }
        Happening::Compared(compared) => json!({
            "type": "artifact_compared",
            "id": compared.artifact,
            "result": super::compared_object(&compared.result.clone().unwrap_or_default()),
        }),
        Happening::Artifact { artifact, path } => json!({
            "type": "artifact",
            "name": artifact.name,
            "version": artifact.version,
            "platform": artifact.platform,
            "target": artifact.target,
            "kind": artifact.kind,
            "emulated": artifact.emulated,
            "id": artifact.id,
            "digest": artifact.digest.as_ref().map(|digest| &digest.hash),
            "size_bytes": artifact.size_bytes,
            "path": path.to_string_lossy(),
        }),
        Happening::TargetFinished(finished) => json!({
            "type": "target_finished",
            "platform": finished.platform,
            "target": finished.target,
            "status": status_word(finished.status()),
            "emulated": finished.emulated,
            "message": finished.message,
        }),
        Happening::Delivered(delivered) => json!({
            "type": delivered.how,
            "name": delivered.name,
            "reference": delivered.reference,
            "digest": delivered.digest,
            "bytes_sent": delivered.bytes.0,
            "bytes_present": delivered.bytes.1,
        }),
        Happening::Waiting(waiting) => super::waiting::object(waiting),
        Happening::Warning(text) => json!({ "type": "warning", "text": text }),
        Happening::Gate(result) => json!({
            "type": "gate_finished",
            "gate": result.name,
            "artifact": result.artifact,
            "platform": result.platform,
            "target": result.target,
            "result": gate_word(result),
            "cached": result.cached,
            "duration_ms": result.duration_ms,
            "message": result.message,
        }),
        Happening::Finished { finished, moved } => json!({
            "type": "build_finished",
            "build": finished.build,
            "status": status_word(finished.status()),
            "duration_ms": finished.duration_ms,
            "bytes_uploaded": moved.bytes,
            "bytes_reused": moved.reused_bytes,
            "message": finished.message,
        }),
    }
}

/// How a gate ended, as in in-toto's predicate.
pub fn gate_word(result: &v1::GateResult) -> &'static str {
    match (result.passed, result.warned) {
        (false, _) => "failed",
        (true, true) => "warned",
        (true, false) => "passed",
    }
}

fn step_finished(finished: &v1::StepFinished) -> Value {
    json!({
        "cache": cache_word(finished.cache()),
        "exit_code": (!finished.no_exit_code).then_some(finished.exit_code),
        "duration_ms": finished.duration_ms,
        "ok": finished.ok,
        "worker": finished.worker,
        "emulated": finished.emulated,
        "message": finished.message,
        "first_error": finished.first_error,
        "calls": finished.calls.as_ref().map(calls),
        "tests": finished.tests.as_ref().map(tests),
        "action": finished.action_digest.as_ref().map(|digest| format!("{}/{}", digest.hash, digest.size_bytes)),
    })
}

fn tests(tests: &v1::TestSummary) -> Value {
    json!({
        "passed": tests.passed,
        "failed": tests.failed,
        "skipped": tests.skipped,
        "flaky": tests.flaky,
        "flaky_tests": tests.flaky_tests,
        "retries": tests.retries,
        "duration_ms": tests.duration_ms,
        "unread": tests.unread,
    })
}

fn calls(calls: &v1::SplitCalls) -> Value {
    let seconds = |time: &Option<kiln_proto::protobuf::Duration>| {
        time.as_ref().and_then(kiln_proto::clock::read_duration).map(|time| time.as_secs_f64())
    };
    json!({
        "hits": calls.hits,
        "compiled": calls.compiled,
        "elsewhere": calls.elsewhere,
        "go_hits": calls.go_hits,
        "go_misses": calls.go_misses,
        "refused": calls.refused.iter().collect::<std::collections::BTreeMap<_, _>>(),
        "verified": calls.verified.iter().collect::<std::collections::BTreeMap<_, _>>(),
        "saved_s": seconds(&calls.saved),
        "ran_s": seconds(&calls.ran),
    })
}

/// An object about a step, extended by `more`.
fn of_step(kind: &str, key: &Key, more: Value) -> Value {
    let mut object = json!({ "type": kind, "step": key.step, "platform": key.platform, "target": key.target });
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
        if key.shards > 1 {
            object.insert("shard".into(), (key.shard + 1).into());
            object.insert("shards".into(), key.shards.into());
        }
    }
    object
}
