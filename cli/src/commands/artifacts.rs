//! `kiln artifacts` and `kiln fetch`.

use kiln_proto::v1::{self, Reproduced};
use serde_json::{Value, json};

use super::{ago, time};
use crate::farm::Farm;
use crate::{Code, Error, args, download, local, output};
use kiln_progress::compared_object;
use kiln_terminal::{self as terminal, Table, fixed, flexible, stdout_width};

pub(super) async fn list(farm: &Farm, args: args::Artifacts) -> Result<Code, Error> {
    let name = args.name.unwrap_or_default();
    let request = v1::ListArtifactsRequest { name: name.clone(), limit: args.limit };
    let artifacts = farm.call(farm.artifacts().list(request)).await?.into_inner().artifacts;
    if args.json {
        return local::print_json(&artifacts.iter().map(object).collect());
    }
    if artifacts.is_empty() {
        terminal::say(&terminal::harmless(&match name.as_str() {
            "" => "no artifacts yet; `kiln build` makes some".to_owned(),
            name => format!("no artifact is called `{name}`; `kiln artifacts` lists all"),
        }));
        return Ok(Code::Success);
    }
    // If there is no space for the whole id, its end is shown, which `kiln fetch` accepts too.
    const REST: usize = 16;
    let longest = artifacts.iter().map(|artifact| artifact.id.len()).max().unwrap_or_default();
    let is_short = stdout_width().is_some_and(|width| longest + REST > width);
    let columns = [
        fixed("id"),
        // A whole id starts with the name.
        flexible("name").optional(if is_short { 0 } else { 7 }),
        flexible("version").optional(2),
        fixed("kind").optional(5),
        fixed("size").optional(3),
        flexible("commit").optional(4),
        flexible("gates").optional(6),
        fixed("reproduced").optional(6),
        fixed("created").optional(1),
    ];
    let rows = artifacts.iter().map(|artifact| {
        let commit: String = artifact.commit.chars().take(12).collect();
        let dirty = if artifact.dirty { "-dirty" } else { "" };
        vec![
            if is_short { artifact.id.rsplit('-').next().unwrap_or_default().to_owned() } else { artifact.id.clone() },
            artifact.name.clone(),
            artifact.version.clone(),
            artifact.kind.clone(),
            terminal::size(artifact.size_bytes),
            format!("{commit}{dirty}"),
            artifact.gates.iter().map(|gate| gate.name.as_str()).collect::<Vec<_>>().join(" "),
            reproduced(artifact).to_owned(),
            artifact.created.map(ago).unwrap_or_default(),
        ]
    });
    local::print(Table::new(&columns).with(rows).for_stdout().as_bytes())
}

pub(super) async fn fetch(farm: &Farm, args: args::Fetch) -> Result<Code, Error> {
    let request = v1::GetArtifactRequest { id: args.id, host_platform: local::host().to_string() };
    let artifact = farm.call(farm.artifacts().get(request)).await?.into_inner();
    let output = output::of_user(&args.output).map_err(download::Error::from)?;
    let arrived = download::artifact(farm, &artifact, &output, true).await?;
    for kept in arrived.kept {
        terminal::say(&format!("`{}` was edited; the edited file is kept as `{}`", artifact.name, kept.display()));
    }
    local::print(format!("{}\n", arrived.path.display()).as_bytes())
}

fn object(artifact: &v1::Artifact) -> Value {
    json!({
        "id": artifact.id,
        "name": artifact.name,
        "version": artifact.version,
        "platform": artifact.platform,
        "target": artifact.target,
        "kind": artifact.kind,
        "digest": artifact.digest.as_ref().map(|digest| &digest.hash),
        "size_bytes": artifact.size_bytes,
        "created": time(artifact.created),
        "build": artifact.build,
        "commit": artifact.commit,
        "dirty": artifact.dirty,
        "gates": artifact.gates.iter().map(gate).collect::<Vec<_>>(),
        "reproducibility": artifact.reproducibility.first().map(compared_object),
    })
}

fn gate(result: &v1::GateResult) -> Value {
    json!({
        "name": result.name,
        "result": kiln_progress::gate_word(result),
        "predicate_type": result.predicate_type,
        "message": result.message,
        "duration_ms": result.duration_ms,
        "cached": result.cached,
    })
}

/// What the latest verification found, in a word.
fn reproduced(artifact: &v1::Artifact) -> &'static str {
    match artifact.reproducibility.first().map(v1::Reproducibility::outcome) {
        Some(Reproduced::Same) => "yes",
        Some(Reproduced::Different) => "no",
        Some(Reproduced::NotRun | Reproduced::Unspecified) => "unknown",
        None => "",
    }
}
