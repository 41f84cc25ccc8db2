//! One JSON object a line on standard output, for programs.

use std::io::Write;

use kiln_proto::v1;
use serde_json::{Value, json};

use super::{Board, Happening, Key, Show, cache_word, status_word};

/// Writes each happening as an object with a `type`.
pub(super) struct Json;

impl Show for Json {
    fn happening(&mut self, _board: &Board, happening: &Happening) -> std::io::Result<()> {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", object(happening))?;
        stdout.flush()
    }

    fn note(&mut self, text: &str) {
        crate::terminal::say(text);
    }
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
        Happening::StepStarted { key, worker } => of_step("step_started", key, json!({ "worker": worker })),
        Happening::Log { key, stream, text } => of_step("log", key, json!({ "stream": stream, "text": text })),
        Happening::StepFinished { key, finished } => of_step("step_finished", key, step_finished(finished)),
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
        "action": finished.action_digest.as_ref().map(|digest| format!("{}/{}", digest.hash, digest.size_bytes)),
    })
}

/// An object about a step, with `more` in it.
fn of_step(kind: &str, key: &Key, more: Value) -> Value {
    let mut object = json!({ "type": kind, "step": key.step, "platform": key.platform, "target": key.target });
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
        if key.shards > 1 {
            object.insert("shard".into(), key.shard.into());
            object.insert("shards".into(), key.shards.into());
        }
    }
    object
}
