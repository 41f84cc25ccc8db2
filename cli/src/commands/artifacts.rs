//! `kiln artifacts` and `kiln fetch`.

use kiln_proto::v1;
use serde_json::{Value, json};

use super::time;
use crate::farm::Farm;
use crate::{Code, Error, args, download, local, output, terminal};

pub(super) async fn list(farm: &Farm, args: args::Artifacts) -> Result<Code, Error> {
    let request = v1::ListArtifactsRequest { name: args.name.unwrap_or_default(), limit: args.limit };
    let artifacts = farm.call(farm.artifacts().list(request)).await?.into_inner().artifacts;
    if args.json {
        return local::print_json(&artifacts.iter().map(object).collect());
    }
    let mut rows = vec![["id", "kind", "size", "commit", "created"].map(String::from).to_vec()];
    rows.extend(artifacts.iter().map(|artifact| {
        let commit: String = artifact.commit.chars().take(12).collect();
        let dirty = if artifact.dirty { "-dirty" } else { "" };
        vec![
            artifact.id.clone(),
            artifact.kind.clone(),
            terminal::size(artifact.size_bytes),
            format!("{commit}{dirty}"),
            time(artifact.created),
        ]
    }));
    local::print(terminal::table(&rows).as_bytes())
}

pub(super) async fn fetch(farm: &Farm, args: args::Fetch) -> Result<Code, Error> {
    let request = v1::GetArtifactRequest { id: args.id };
    let artifact = farm.call(farm.artifacts().get(request)).await?.into_inner();
    let output = output::of_user(&args.output).map_err(download::Error::from)?;
    let arrived = download::artifact(farm, &artifact, &output, true).await?;
    for kept in arrived.kept {
        terminal::say(&format!(
            "`{}` had been changed: the changed one is kept as `{}`",
            artifact.name,
            kept.display()
        ));
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
    })
}
