//! `kiln cache list` and `kiln cache prune`.

use kiln_proto::v1;
use serde_json::{Value, json};

use super::ago;
use crate::commands::time;
use crate::farm::{Farm, INSTANCE};
use crate::{Code, Error, args, local};
use kiln_terminal::{self as terminal, Table, fixed, flexible};

pub(super) async fn list(farm: &Farm, args: args::Layers) -> Result<Code, Error> {
    let request = v1::ListLayersRequest {
        instance: INSTANCE.to_owned(),
        project: args.project.unwrap_or_default(),
        step: args.step.unwrap_or_default(),
    };
    let layers = farm.call(farm.cache().list(request)).await?.into_inner().layers;
    if args.json {
        return local::print_json(&layers.iter().map(object).collect());
    }
    if layers.is_empty() {
        terminal::say("nothing is cached; a build caches the results of its steps");
        return Ok(Code::Success);
    }
    local::print(table(&layers).as_bytes())
}

pub(super) async fn prune(farm: &Farm, args: args::Prune) -> Result<Code, Error> {
    let age = args.older_than;
    let request = v1::PruneLayersRequest {
        instance: INSTANCE.to_owned(),
        project: args.layers.project.unwrap_or_default(),
        step: args.layers.step.unwrap_or_default(),
        older_than: Some(kiln_proto::protobuf::Duration {
            seconds: age.as_secs() as i64,
            nanos: age.subsec_nanos() as i32,
        }),
        dry_run: args.dry_run,
    };
    let pruned = farm.call(farm.cache().prune(request)).await?.into_inner();
    if args.layers.json {
        return local::print_json(&json!({
            "dry_run": args.dry_run,
            "layers": pruned.layers.iter().map(object).collect::<Vec<_>>(),
            "freeable_bytes": pruned.freeable_bytes,
            "freed_bytes": pruned.freed_bytes,
            "shared": pruned.shared,
        }));
    }
    if !pruned.layers.is_empty() {
        local::print(table(&pruned.layers).as_bytes())?;
    }
    let layers = terminal::count(pruned.layers.len(), "step result");
    let (freeable, freed) = (terminal::size(pruned.freeable_bytes), terminal::size(pruned.freed_bytes));
    if args.dry_run {
        terminal::say(&format!("would drop {layers} and free {freeable} that nothing else refers to"));
    } else {
        terminal::say(&format!("dropped {layers} and freed {freed}"));
        if pruned.freed_bytes < pruned.freeable_bytes {
            terminal::say(&format!(
                "of {freeable} that no cached step refers to any more; running work or other results still use the rest"
            ));
        }
    }
    if pruned.shared > 0 {
        let kept = terminal::count(pruned.shared as usize, "step result");
        terminal::say(&format!("kept {kept} whose action another project still uses"));
    }
    Ok(Code::Success)
}

fn table(layers: &[v1::Layer]) -> String {
    let columns = [
        flexible("project"),
        flexible("step"),
        flexible("platform").optional(2),
        flexible("environment").optional(4),
        fixed("action"),
        fixed("size"),
        fixed("unique").optional(5),
        fixed("hits").optional(3),
        fixed("last hit").optional(6),
        fixed("made").optional(1),
    ];
    Table::new(&columns).with(layers.iter().map(row)).for_stdout()
}

fn row(layer: &v1::Layer) -> Vec<String> {
    let step = layer.step.clone().unwrap_or_default();
    let evicted = if layer.evicted { " (evicted)" } else { "" };
    vec![
        layer.project.clone(),
        kiln_explain::label(&step.step, &[step.shard], step.shards),
        kiln_explain::place(&step),
        environment(layer),
        // Distinguishes two results of one step.
        layer.action.chars().take(8).collect(),
        format!("{}{evicted}", terminal::size(layer.size_bytes)),
        terminal::size(layer.unique_bytes),
        layer.counts.unwrap_or_default().hits.to_string(),
        layer.last_hit.map_or_else(|| "never".to_owned(), ago),
        layer.created.map(ago).unwrap_or_default(),
    ]
}

/// The system with the first characters of the fingerprint, or the image.
fn environment(layer: &v1::Layer) -> String {
    if layer.os.is_empty() {
        return layer.environment.clone();
    }
    let short: String = layer.environment.chars().take(8).collect();
    format!("{} {short}", layer.os)
}

fn object(layer: &v1::Layer) -> Value {
    let step = layer.step.clone().unwrap_or_default();
    let counts = layer.counts.unwrap_or_default();
    json!({
        "project": layer.project,
        "step": step.step,
        "platform": step.platform,
        "target": step.target,
        "shard": step.shard + 1,
        "shards": step.shards,
        "environment": layer.environment,
        "os": layer.os,
        "action": layer.action,
        "size_bytes": layer.size_bytes,
        "unique_bytes": layer.unique_bytes,
        "evicted": layer.evicted,
        "created": time(layer.created),
        "last_hit": layer.last_hit.map(|at| time(Some(at))),
        "hits": counts.hits,
        "misses": counts.misses,
        "merged": counts.merged,
        "saved_bytes": counts.saved_bytes,
        "user": layer.user,
    })
}
