//! What `kiln docker build` does with the artifacts on the farm.

use std::collections::BTreeMap;

use async_trait::async_trait;
use kiln_export::{Done, Exports, Part};
use kiln_progress::Delivered;
use kiln_proto::v1;

use super::stored::{OnFarm, Stored};
use super::{Deliveries, Error};
use crate::farm::Farm;

#[async_trait(?Send)]
impl Deliveries for Exports<'_> {
    fn takes(&self, _artifact: &v1::Artifact) -> bool {
        true
    }

    async fn run(&self, farm: &Farm, artifacts: &[v1::Artifact]) -> Result<Vec<Delivered>, Error> {
        let by_platform: BTreeMap<&str, &v1::Artifact> =
            artifacts.iter().map(|artifact| (artifact.platform.as_str(), artifact)).collect();
        let stored = Stored::open_all(farm, &by_platform.into_values().collect::<Vec<_>>()).await?;
        let mut parts = Vec::new();
        for one in &stored {
            let (provenance, sbom) = one.documents().await?;
            let signed = one.signed().await?;
            let (platform, build) = (one.artifact.platform.clone(), one.artifact.build.clone());
            parts.push(Part { platform, build, images: one.images().await?, provenance, sbom, signed });
        }
        let done = self.export(&parts, &OnFarm(&stored)).await?;
        done.iter().filter_map(|one| one.note.as_ref()).for_each(|note| {
            kiln_terminal::say(&kiln_terminal::harmless(&format!("note: {note}")));
        });
        Ok(done.into_iter().map(|one| delivered("", one)).collect())
    }
}

/// As progress shows it.
pub(super) fn delivered(name: &str, done: Done) -> Delivered {
    let Done { how, reference, digest, bytes, .. } = done;
    Delivered { name: name.to_owned(), how, reference, digest, bytes }
}
