//! `kiln cache explain`: why a step missed the last time it ran.

use kiln_planner::plan::{Artifact, ArtifactKind};
use kiln_proto::v1;
use kiln_proto::v1::difference::Kind;
use kiln_proto::v1::step_finished::Cache;
use kiln_proto::v1::step_run::Reason;
use serde_json::{Value, json};

use super::calls;
use super::layers::place;
use super::{ago, timestamp};
use crate::commands::time;
use crate::farm::{Farm, INSTANCE};
use crate::local::Project;
use crate::{Code, Error, args, local};
use kiln_progress::{cache_word, is_called};
use kiln_terminal::{self as terminal, Table, fixed, flexible};

pub(super) async fn run(farm: &Farm, args: args::Explain) -> Result<Code, Error> {
    let project = match args.project {
        Some(project) => project,
        None => planned(&args.dir, &args.step)?,
    };
    let step = args.step;
    let explain = async |step: &str| {
        let (instance, project, step) = (INSTANCE.to_owned(), project.clone(), step.to_owned());
        let request = v1::ExplainRequest { instance, project, step, ..v1::ExplainRequest::default() };
        Ok::<_, Error>(farm.call(farm.cache().explain(request)).await?.into_inner())
    };
    let mut answer = explain(&step).await?;
    let called: Vec<&String> = answer.steps.iter().filter(|name| is_called(name, &step)).collect();
    if let ([only], true) = (&called[..], answer.explanations.is_empty()) {
        answer = explain(only).await?;
    }
    let v1::ExplainResponse { explanations, steps } = answer;
    if args.json {
        return local::print_json(&explanations.iter().map(object).collect());
    }
    if explanations.is_empty() {
        let known = match steps.is_empty() {
            true => format!("no step of project `{project}` has"),
            false => format!("steps of project `{project}` that have run: {}", steps.join(", ")),
        };
        return local::print(
            terminal::harmless(&format!("step `{step}` has never run on this farm; {known}\n")).as_bytes(),
        );
    }
    let words: Vec<String> = groups(explanations).iter().map(|(one, shards)| paragraph(one, shards)).collect();
    local::print(words.join("\n").as_bytes())
}

/// The name of the project in a directory, whose plan must contain the step. Only the farm knows the instructions of a Dockerfile.
fn planned(dir: &std::path::Path, step: &str) -> Result<String, Error> {
    let plan = Project::open(dir)?.plan()?;
    let is_dockerfile = |artifact: &Artifact| matches!(artifact.kind, ArtifactKind::Dockerfile(_));
    if plan.artifacts.iter().any(is_dockerfile) || plan.steps.iter().any(|planned| planned.name == step) {
        return Ok(plan.name);
    }
    let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
    Err(Error::Usage(format!("project `{}` has no step `{step}`; expected one of: {}", plan.name, names.join(", "))))
}

/// Explanations with their shards: shards with the same explanation are grouped.
fn groups(explanations: Vec<v1::Explanation>) -> Vec<(v1::Explanation, Vec<u32>)> {
    let mut groups: Vec<(v1::Explanation, Vec<u32>)> = Vec::new();
    for one in explanations {
        let shard = shard(&one);
        match groups.iter_mut().find(|(other, _)| is_same(other, &one)) {
            Some((_, shards)) => shards.push(shard),
            None => groups.push((one, vec![shard])),
        }
    }
    groups
}

fn shard(explanation: &v1::Explanation) -> u32 {
    explanation.step.as_ref().map_or(0, |step| step.shard)
}

fn is_same(one: &v1::Explanation, other: &v1::Explanation) -> bool {
    let step = |of: &v1::Explanation| of.step.clone().map(|step| v1::StepRef { shard: 0, ..step });
    let run = |of: &v1::Explanation| of.run.clone().map(|run| (run.build, run.cache, run.reason, run.ok, run.calls));
    step(one) == step(other)
        && run(one) == run(other)
        && (&one.differences, one.more, one.forgotten) == (&other.differences, other.more, other.forgotten)
}

/// A step's name with its shards.
pub(super) fn label(step: &str, shards: &[u32], of: u32) -> String {
    if of <= 1 {
        return step.to_owned();
    }
    let shards: Vec<String> = shards.iter().map(|shard| (shard + 1).to_string()).collect();
    format!("{step}[{}/{of}]", shards.join(","))
}

fn paragraph(explanation: &v1::Explanation, shards: &[u32]) -> String {
    let (step, run) = (explanation.step.clone().unwrap_or_default(), explanation.run.clone().unwrap_or_default());
    let at = timestamp(run.at_ms).map(ago).unwrap_or_default();
    let ended = match (run.cache(), run.ok) {
        (Cache::Hit, _) => "hit",
        (Cache::Merged, _) => "joined another build's run",
        (Cache::Miss, true) => "missed",
        (Cache::Miss, false) => "missed, and failed,",
    };
    let label = label(&step.step, shards, step.shards);
    let mut out =
        format!("{label} {}: {ended} in build {}, {at}: {}\n", place(&step), run.build, why(explanation, &run));
    if !explanation.differences.is_empty() {
        let columns = [fixed("  what"), flexible("name"), flexible("before"), flexible("after")];
        out.push_str(&Table::new(&columns).with(explanation.differences.iter().map(row)).for_stdout());
    }
    if explanation.more {
        out.push_str("  and more files\n");
    }
    if let Some(calls) = &run.calls {
        out.push_str(&calls::words(calls));
    }
    terminal::harmless(&out)
}

/// The reason, for users.
fn why(explanation: &v1::Explanation, run: &v1::StepRun) -> String {
    if run.cache() == Cache::Hit {
        return "there is nothing to explain".to_owned();
    }
    let since = timestamp(run.reason_at_ms).map(ago).unwrap_or_default();
    let reason = match run.reason() {
        Reason::First => return "it has no earlier success on record".to_owned(),
        Reason::Changed => String::new(),
        Reason::Evicted => "its cached result, or a blob of it, was evicted or expired".to_owned(),
        Reason::Pruned => format!("its cached result was pruned {since} (`kiln cache prune`)"),
        Reason::NotCached => "it is never cached (`cache = false`)".to_owned(),
        Reason::NoCache => "the build ignored the cache (`--no-cache`)".to_owned(),
        Reason::FailedBefore => format!("the same action failed {since}, and failures are not cached"),
        Reason::RunAgain => "it had to run again: cached outputs of it were missing".to_owned(),
        Reason::Unspecified => "the reason is unknown".to_owned(),
    };
    let base = run.base.clone().unwrap_or_default();
    if base.action.is_empty() || base.action == run.action {
        return reason;
    }
    let then = timestamp(base.at_ms).map(ago).unwrap_or_default();
    let compared = match (explanation.forgotten, explanation.differences.is_empty()) {
        (true, _) => format!("its action differs from the one {then}, but the record of that one was evicted"),
        (false, true) => format!("its action differs from the one {then}, but nothing that is recorded differs"),
        (false, false) => format!("changed since its last hit or success, {then}:"),
    };
    if reason.is_empty() { compared } else { format!("{reason}; {compared}") }
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Input => "input",
        Kind::Variable => "variable",
        Kind::Command => "command",
        Kind::Tool => "tool",
        Kind::System => "system",
        Kind::Platform => "platform",
        Kind::Image => "image",
        Kind::Need => "output of",
        Kind::Setting => "setting",
        Kind::Unspecified => "other",
    }
}

fn row(difference: &v1::Difference) -> Vec<String> {
    let value = |value: &Option<String>| match value {
        None => "(none)".to_owned(),
        Some(value) if matches!(difference.kind(), Kind::Input | Kind::Need) => shortened(value),
        Some(value) => value.trim_end().replace('\n', " \u{23ce} "),
    };
    let kind = format!("  {}", kind_word(difference.kind()));
    vec![kind, difference.name.clone(), value(&difference.before), value(&difference.after)]
}

/// A digest as the first characters of its hash and its size; other text unchanged. A directory's digest does not show
/// the size of its content, so that is omitted.
fn shortened(text: &str) -> String {
    let (digest, word) = text.split_once(' ').unwrap_or((text, ""));
    let Ok(digest) = digest.parse::<kiln_proto::digest::Digest>() else { return text.to_owned() };
    let size = terminal::size(digest.size);
    let facts = match word {
        "" => size,
        "directory" => word.to_owned(),
        word => format!("{size}, {word}"),
    };
    format!("{} ({facts})", &digest.hex()[..12])
}

fn reason_word(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Unspecified => return None,
        Reason::First => "first",
        Reason::Changed => "changed",
        Reason::Evicted => "evicted",
        Reason::Pruned => "pruned",
        Reason::NotCached => "not_cached",
        Reason::NoCache => "no_cache",
        Reason::FailedBefore => "failed_before",
        Reason::RunAgain => "run_again",
    })
}

fn object(explanation: &v1::Explanation) -> Value {
    let (step, run) = (explanation.step.clone().unwrap_or_default(), explanation.run.clone().unwrap_or_default());
    let differences = explanation.differences.iter().map(|one| {
        let kind = if one.kind() == Kind::Need { "need" } else { kind_word(one.kind()) };
        json!({ "kind": kind, "name": one.name, "before": one.before, "after": one.after })
    });
    json!({
        "step": step.step,
        "platform": step.platform,
        "target": step.target,
        "shard": step.shard + 1,
        "shards": step.shards,
        "cache": cache_word(run.cache()),
        "ok": run.ok,
        "reason": reason_word(run.reason()),
        "build": run.build,
        "user": run.user,
        "at": time(timestamp(run.at_ms)),
        "compared_with": run.base.as_ref().map(|base| time(timestamp(base.at_ms))),
        "differences": differences.collect::<Vec<_>>(),
        "more": explanation.more,
        "forgotten": explanation.forgotten,
        "calls": run.calls.as_ref().map(calls::object),
    })
}
