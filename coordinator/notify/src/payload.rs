//! What a call says: JSON in the shape that Standard Webhooks recommends, with a version of its own. Pure; `coordinator/README.md` documents it.

use kiln_proto::clock;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::step_finished::Cache;
use kiln_proto::v1::step_state::Phase;
use kiln_proto::v1::{Build, StepRef, StepState};
use serde_json::{Value, json};
use url::Url;

/// The version of `data`. It grows when something is taken out or changes its meaning, and not when something is added.
const VERSION: u32 = 1;
/// Failed steps that are told of.
pub const MAX_STEPS: usize = 20;
/// Artifacts and platforms.
const MAX_LISTED: usize = 100;
/// Longest message, and longest name or address, in bytes.
const MAX_MESSAGE: usize = 4 << 10;
const MAX_NAME: usize = 512;
/// Longest end of a step's output, in bytes.
const MAX_TAIL: usize = 2 << 10;

/// The end of what a failed step printed.
#[derive(Debug, Clone)]
pub struct Tail {
    /// The step.
    pub step: StepRef,
    /// The last bytes of its output.
    pub output: Vec<u8>,
}

/// The body of a call.
pub(crate) fn of(build: &Build, event: &str, pages: Option<&Url>, tails: &[Tail], now: &Timestamp) -> Vec<u8> {
    let time = |at: &Option<Timestamp>| at.as_ref().map(clock::rfc3339);
    let source = build.source.clone().unwrap_or_default();
    let failed: Vec<&StepState> = build.steps.iter().filter(|step| step.phase() == Phase::Failed).collect();
    let hits = build.steps.iter().filter(|step| step.finished.as_ref().is_some_and(|done| done.cache() == Cache::Hit));
    let planned = build.counts.map_or(0, |counts| counts.steps);
    let data = json!({
        "version": VERSION,
        "build": build.id,
        "project": name(&build.project),
        "project_version": name(&build.version),
        "tenant": build.tenant,
        "user": name(&build.user),
        "status": status(build),
        "message": cut(&build.message, MAX_MESSAGE),
        "source": {
            "repository": plain(&source.repository),
            "branch": name(&source.branch),
            "commit": name(&source.commit),
            "uncommitted_changes": source.dirty,
            "verified": build.source_verified,
        },
        "platforms": build.platforms.iter().take(MAX_LISTED).map(|platform| name(platform)).collect::<Vec<_>>(),
        "started": time(&build.started),
        "finished": time(&build.finished),
        "duration_ms": clock::milliseconds_between(build.started.as_ref(), build.finished.as_ref()),
        "steps": {"total": (planned as usize).max(build.steps.len()), "hits": hits.count(), "failed": failed.len()},
        "failed_steps": failed.iter().take(MAX_STEPS).map(|step| failed_step(step, tails)).collect::<Vec<_>>(),
        "artifacts": build.artifacts.iter().take(MAX_LISTED).map(|artifact| {
            json!({"id": name(&artifact.id), "name": name(&artifact.name), "platform": name(&artifact.platform)})
        }).collect::<Vec<_>>(),
        "url": pages.and_then(|pages| page(pages, &build.id)),
    });
    json!({"type": event, "timestamp": clock::rfc3339(now), "data": data}).to_string().into_bytes()
}

/// A build's page.
fn page(pages: &Url, build: &str) -> Option<String> {
    pages.join(&format!("/builds/{build}")).ok().map(String::from)
}

fn status(build: &Build) -> &'static str {
    use kiln_proto::v1::Status;
    match build.status() {
        Status::Succeeded => "succeeded",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
        Status::FarmFailed | Status::Running | Status::Unspecified => "farm_failed",
    }
}

fn failed_step(state: &StepState, tails: &[Tail]) -> Value {
    let (step, done) = (state.step.clone().unwrap_or_default(), state.finished.clone().unwrap_or_default());
    let tail = tails.iter().find(|tail| tail.step == step).map(|tail| end(&tail.output));
    json!({
        "step": name(&step.step),
        "platform": name(&step.platform),
        "target": name(&step.target),
        "shard": step.shard,
        "shards": step.shards,
        "message": cut(&done.message, MAX_MESSAGE / 2),
        "exit_code": (!done.no_exit_code).then_some(done.exit_code),
        "first_error": done.first_error.iter().take(10).map(|line| name(line)).collect::<Vec<_>>(),
        "log_tail": tail.unwrap_or_default(),
    })
}

/// A repository's URL without what may be secret in it.
fn plain(repository: &str) -> String {
    match Url::parse(repository) {
        Ok(mut url) if url.password().is_some() || !url.username().is_empty() => {
            let _ = url.set_password(None);
            let _ = url.set_username("");
            name(url.as_str()).to_owned()
        }
        _ => name(repository).to_owned(),
    }
}

fn name(text: &str) -> &str {
    cut(text, MAX_NAME)
}

/// The beginning of a text.
fn cut(text: &str, most: usize) -> &str {
    text.get(..boundary(text, most)).unwrap_or_default()
}

/// The last place up to this one that is not inside a character.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The last lines of an output, without a line that is cut.
fn end(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text = text.trim_end();
    if text.len() <= MAX_TAIL {
        return text.to_owned();
    }
    let last = text.get(boundary(text, text.len() - MAX_TAIL)..).unwrap_or_default();
    last.split_once('\n').map_or(last, |(_, whole)| whole).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::v1::{Artifact, Source, Status, StepFinished};

    fn failed(count: usize) -> Build {
        let long = "ä".repeat(100_000);
        let state = |number: usize| {
            let step = StepRef { step: format!("step{number}"), ..StepRef::default() };
            let text = if number < 2 * MAX_STEPS { long.as_str() } else { "" };
            let (message, first_error) = (text.to_owned(), vec![text.to_owned(); 20]);
            let finished = StepFinished { message, exit_code: 2, first_error, ..StepFinished::default() };
            let mut state = StepState { step: Some(step), finished: Some(finished), ..StepState::default() };
            state.set_phase(Phase::Failed);
            state
        };
        let source = Source {
            repository: "https://me:token@git.example/shop".to_owned(),
            branch: "main".to_owned(),
            ..Source::default()
        };
        let artifacts = vec![Artifact { id: "shop-1".to_owned(), ..Artifact::default() }];
        let steps = (0..count).map(state).collect();
        let mut build = Build {
            id: "b1".to_owned(),
            source: Some(source),
            message: long.clone(),
            steps,
            artifacts,
            ..Build::default()
        };
        build.set_status(Status::Failed);
        build
    }

    #[test]
    fn a_call_is_bounded_whatever_a_build_says() {
        let tail =
            Tail { step: StepRef { step: "step0".to_owned(), ..StepRef::default() }, output: vec![b'\xff'; 1 << 20] };
        let pages = Url::parse("https://farm.example").unwrap();
        let body = of(&failed(5_000), "build.failed", Some(&pages), &[tail], &Timestamp { seconds: 1, nanos: 0 });
        assert!(body.len() < 256 << 10, "expected a bounded body, found {} bytes", body.len());
        let told: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&told["type"], &told["timestamp"]), (&json!("build.failed"), &json!("1970-01-01T00:00:01Z")));
        let data = &told["data"];
        assert_eq!((&data["version"], &data["status"], &data["build"]), (&json!(1), &json!("failed"), &json!("b1")));
        assert_eq!(
            (data["failed_steps"].as_array().unwrap().len(), &data["steps"]["failed"]),
            (MAX_STEPS, &json!(5_000))
        );
        assert_eq!(data["url"], "https://farm.example/builds/b1");
        assert_eq!(data["artifacts"][0]["id"], "shop-1");
        assert_eq!(data["source"]["repository"], "https://git.example/shop", "expected no credentials");
    }

    #[test]
    fn of_an_output_the_last_whole_lines_are_told() {
        let output = (0..10_000).map(|number| format!("line {number}\n")).collect::<String>();
        let told = end(output.as_bytes());
        assert!(told.starts_with("line ") && told.ends_with("line 9999") && told.len() <= MAX_TAIL, "{told}");
        assert_eq!(end(b"only this\n"), "only this");
    }
}
