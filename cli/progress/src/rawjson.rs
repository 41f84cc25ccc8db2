//! BuildKit's `rawjson`: one object per line on standard error, with vertexes and their logs, for programs that read buildx's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_proto::clock;
use kiln_proto::digest::DigestFunction;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::step_finished::Cache;
use serde_json::{Value, json};

use crate::{Board, Happening, Key, Show, Work};
use kiln_terminal::say;

/// Writes what BuildKit's client would be told.
#[derive(Default)]
pub(super) struct RawJson {
    /// When each step started.
    started: Vec<(Key, String)>,
}

fn time(at: Option<Timestamp>) -> String {
    clock::rfc3339(&at.unwrap_or_else(clock::now))
}

/// What names a vertex: a digest, and the same for one step of one build.
fn vertex(board: &Board, key: &Key) -> String {
    let text = format!("{} {}", board.build, board.label(key));
    format!("sha256:{}", DigestFunction::Sha256.digest(text.as_bytes()).hex())
}

impl Show for RawJson {
    fn happening(&mut self, board: &Board, happening: &Happening) -> std::io::Result<()> {
        let now = time(board.at);
        let object = match happening {
            Happening::StepStarted { key, .. } => {
                self.started.push((key.clone(), now.clone()));
                json!({ "vertexes": [{ "digest": vertex(board, key), "name": key.step, "started": now }] })
            }
            Happening::StepFinished { key, finished } => {
                let started = self.started.iter().find(|(known, _)| known == key).map_or(&now, |(_, at)| at);
                let mut object = json!({
                    "digest": vertex(board, key), "name": key.step, "started": started, "completed": now,
                });
                if finished.cache() == Cache::Hit {
                    object["cached"] = true.into();
                }
                if !finished.ok {
                    object["error"] = finished.message.clone().into();
                }
                json!({ "vertexes": [object] })
            }
            Happening::Log { key, stream, text } => {
                let number = if stream == "stderr" { 2 } else { 1 };
                let data = STANDARD.encode(text);
                json!({ "logs": [{ "vertex": vertex(board, key), "stream": number, "data": data, "timestamp": now }] })
            }
            Happening::Warning(text) => json!({ "warnings": [{ "level": 1, "short": STANDARD.encode(text) }] }),
            Happening::Finished { finished, .. } if !finished.message.is_empty() => {
                let digest = format!("sha256:{}", DigestFunction::Sha256.digest(finished.build.as_bytes()).hex());
                let name = format!("build {}", finished.build);
                json!({ "vertexes": [{ "digest": digest, "name": name, "started": now, "completed": now, "error": finished.message }] })
            }
            _ => return Ok(()),
        };
        write(&object);
        Ok(())
    }

    fn note(&mut self, text: &str) {
        write(&json!({ "warnings": [{ "level": 1, "short": STANDARD.encode(text) }] }));
    }

    fn work(&mut self, _work: Option<&Work>) {}

    fn tick(&mut self, _board: &Board) {}
}

fn write(object: &Value) {
    say(&object.to_string());
}
