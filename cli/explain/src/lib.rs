//! What `kiln cache explain` says: why a step missed the last time it ran, or in an older build.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod calls;
mod differences;
mod of_build;
mod reason;
mod time;

use kiln_progress::cache_word;
use kiln_proto::v1;
use kiln_proto::v1::step_finished::Cache;
use kiln_terminal::{self as terminal, Table, fixed, flexible};
use serde_json::{Value, json};

pub use of_build::unknown;
use time::{ago, rfc3339};

/// Explanations for people: a paragraph each.
pub fn text(explanations: Vec<v1::Explanation>) -> String {
    let words: Vec<String> = groups(explanations).iter().map(|(one, shards)| paragraph(one, shards)).collect();
    words.join("\n")
}

/// The same for scripts.
pub fn objects(explanations: &[v1::Explanation]) -> Value {
    explanations.iter().map(object).collect()
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
pub fn label(step: &str, shards: &[u32], of: u32) -> String {
    if of <= 1 {
        return step.to_owned();
    }
    let shards: Vec<String> = shards.iter().map(|shard| shard.saturating_add(1).to_string()).collect();
    format!("{step}[{}/{of}]", shards.join(","))
}

/// A step's platform, and its target if that is another word.
pub fn place(step: &v1::StepRef) -> String {
    if step.target == step.platform.replace('/', "-") {
        step.platform.clone()
    } else {
        format!("{} {}", step.platform, step.target)
    }
}

fn paragraph(explanation: &v1::Explanation, shards: &[u32]) -> String {
    let (step, run) = (explanation.step.clone().unwrap_or_default(), explanation.run.clone().unwrap_or_default());
    let at = ago(run.at_ms);
    let ended = match (run.cache(), run.ok) {
        (Cache::Hit, _) => "hit",
        (Cache::Merged, _) => "joined another build's run",
        (Cache::Miss, true) => "missed",
        (Cache::Miss, false) => "missed, and failed,",
    };
    let label = label(&step.step, shards, step.shards);
    let mut out = format!(
        "{label} {}: {ended} in build {}, {at}: {}\n",
        place(&step),
        run.build,
        reason::words(explanation, &run)
    );
    if !explanation.differences.is_empty() {
        let columns = [fixed("  what"), flexible("name"), flexible("before"), flexible("after")];
        out.push_str(&Table::new(&columns).with(explanation.differences.iter().map(differences::row)).for_stdout());
    }
    if explanation.more {
        out.push_str("  and more files\n");
    }
    if let Some(calls) = &run.calls {
        out.push_str(&calls::words(calls));
    }
    terminal::harmless(&out)
}

fn object(explanation: &v1::Explanation) -> Value {
    let (step, run) = (explanation.step.clone().unwrap_or_default(), explanation.run.clone().unwrap_or_default());
    let differences = explanation.differences.iter().map(|one| {
        json!({ "kind": differences::script_word(one.kind()), "name": one.name, "before": one.before, "after": one.after })
    });
    json!({
        "step": step.step,
        "platform": step.platform,
        "target": step.target,
        "shard": step.shard.saturating_add(1),
        "shards": step.shards,
        "cache": cache_word(run.cache()),
        "ok": run.ok,
        "reason": reason::word(run.reason()),
        "build": run.build,
        "user": run.user,
        "at": rfc3339(run.at_ms),
        "compared_with": run.base.as_ref().map(|base| rfc3339(base.at_ms)),
        "differences": differences.collect::<Vec<_>>(),
        "more": explanation.more,
        "forgotten": explanation.forgotten,
        "calls": run.calls.as_ref().map(calls::object),
    })
}
