//! `kiln cache stats`: hit rates by step and by user.

use kiln_proto::v1::{self, LayerCounts};
use serde_json::{Value, json};

use crate::farm::{Farm, INSTANCE};
use crate::{Code, Error, args, local};
use kiln_terminal::{self as terminal, Column, Table, fixed, flexible};

pub(super) async fn run(farm: &Farm, args: args::Layers) -> Result<Code, Error> {
    let request = v1::LayerStatsRequest {
        instance: INSTANCE.to_owned(),
        project: args.project.unwrap_or_default(),
        step: args.step.unwrap_or_default(),
    };
    let stats = farm.call(farm.cache().stats(request)).await?.into_inner();
    let total = stats.total.unwrap_or_default();
    if args.json {
        let steps = stats
            .steps
            .iter()
            .map(|one| object(json!({ "project": one.project, "step": one.step }), &one.counts.unwrap_or_default()));
        let users =
            stats.users.iter().map(|one| object(json!({ "tenant": one.user }), &one.counts.unwrap_or_default()));
        return local::print_json(&json!({
            "steps": steps.collect::<Vec<_>>(),
            "tenants": users.collect::<Vec<_>>(),
            "total": object(json!({}), &total),
        }));
    }
    if stats.steps.is_empty() {
        terminal::say("no step has run yet");
        return Ok(Code::Success);
    }
    let counts = |names: &[Column]| {
        let counts =
            [fixed("hits"), fixed("misses"), fixed("merged").optional(2), fixed("rate"), fixed("saved").optional(1)];
        Table::new(&[names, &counts].concat())
    };
    let steps = stats.steps.iter().map(|one| row(&[&one.project, &one.step], one.counts));
    let steps = counts(&[flexible("project"), flexible("step")]).with(steps).with([row(&["all", ""], Some(total))]);
    let users = stats.users.iter().map(|one| row(&[&one.user], one.counts));
    let users = counts(&[flexible("user")]).with(users);
    local::print(format!("{}\n{}", steps.for_stdout(), users.for_stdout()).as_bytes())
}

fn row(names: &[&str], counts: Option<LayerCounts>) -> Vec<String> {
    let counts = counts.unwrap_or_default();
    let rate = rate(&counts).map_or_else(|| "-".to_owned(), |rate| format!("{:.0}%", rate * 100.0));
    let mut row: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    row.extend([counts.hits, counts.misses, counts.merged].map(|count| count.to_string()));
    row.extend([rate, terminal::size(counts.saved_bytes)]);
    row
}

/// The share of hits among all runs, including those that joined another build's run; `None` without runs.
fn rate(counts: &LayerCounts) -> Option<f64> {
    let all = counts.hits + counts.misses + counts.merged;
    (all > 0).then(|| counts.hits as f64 / all as f64)
}

fn object(mut names: Value, counts: &LayerCounts) -> Value {
    names["hits"] = counts.hits.into();
    names["misses"] = counts.misses.into();
    names["merged"] = counts.merged.into();
    names["hit_rate"] = rate(counts).into();
    names["saved_bytes"] = counts.saved_bytes.into();
    names
}
