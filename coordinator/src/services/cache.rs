//! `kiln.v1.Cache`: cached step results, why a step missed, and cache mounts.

use std::collections::BTreeMap;

use kiln_proto::v1;
use kiln_proto::v1::cache_server;
use tonic::{Request, Response, Status};

use kiln_auth::audit::Subject;
use kiln_caches::Caches;
use kiln_layers::{Layers, Prune};

/// Serves cache records and cache mounts.
#[derive(Debug)]
pub struct Cache {
    layers: Layers,
    mounts: Caches,
}

impl Cache {
    /// Serves these cache records and cache mounts.
    pub fn new(layers: Layers, mounts: Caches) -> Self {
        Self { layers, mounts }
    }
}

/// An instance's name in the form that builds use.
fn instance(name: &str) -> &str {
    name.trim_matches('/')
}

/// The time since the last use, from which on something is pruned.
fn age(older_than: Option<kiln_proto::protobuf::Duration>) -> Result<std::time::Duration, Status> {
    older_than.and_then(|duration| kiln_proto::clock::read_duration(&duration)).ok_or_else(|| {
        Status::invalid_argument("`older_than` is absent or negative; expected the time since the last use")
    })
}

/// What was pruned, for the audit log.
fn summary(pruned: &v1::PruneLayersResponse) -> String {
    let mut steps = BTreeMap::<String, usize>::new();
    for layer in &pruned.layers {
        let step = layer.step.as_ref().map_or("", |step| &step.step);
        *steps.entry(format!("{}/{step}", layer.project)).or_default() += 1;
    }
    let steps: Vec<String> = steps.iter().map(|(step, count)| format!("{count} of {step}")).collect();
    let steps = if steps.is_empty() { String::new() } else { format!(" ({})", steps.join(", ")) };
    format!("{} layers{steps}, {} bytes freed", pruned.layers.len(), pruned.freed_bytes)
}

#[tonic::async_trait]
impl cache_server::Cache for Cache {
    async fn list(&self, request: Request<v1::ListLayersRequest>) -> Result<Response<v1::ListLayersResponse>, Status> {
        let asked = request.into_inner();
        let layers = self.layers.list(instance(&asked.instance), &asked.project, &asked.step).await?;
        Ok(Response::new(v1::ListLayersResponse { layers }))
    }

    async fn stats(&self, request: Request<v1::LayerStatsRequest>) -> Result<Response<v1::LayerStatsResponse>, Status> {
        let asked = request.into_inner();
        Ok(Response::new(self.layers.stats(instance(&asked.instance), &asked.project, &asked.step).await?))
    }

    async fn prune(
        &self,
        request: Request<v1::PruneLayersRequest>,
    ) -> Result<Response<v1::PruneLayersResponse>, Status> {
        let subject = Subject::of(&request);
        let asked = request.into_inner();
        let of = |name: &str| if name.is_empty() { "*".to_owned() } else { name.to_owned() };
        let dry = if asked.dry_run { "dry run: " } else { "" };
        let asked_for = format!("{dry}layers {}/{}", of(&asked.project), of(&asked.step));
        subject.is(asked_for.clone());
        let older_than = age(asked.older_than)?;
        let prune = Prune { project: asked.project, step: asked.step, older_than, dry_run: asked.dry_run };
        let pruned = self.layers.prune(instance(&asked.instance), &prune).await?;
        subject.is(format!("{asked_for}: {}", summary(&pruned)));
        Ok(Response::new(pruned))
    }

    async fn mounts(
        &self,
        request: Request<v1::ListMountsRequest>,
    ) -> Result<Response<v1::ListMountsResponse>, Status> {
        let asked = request.into_inner();
        let mounts = self.mounts.list(instance(&asked.instance), &asked.project).await?;
        Ok(Response::new(v1::ListMountsResponse { mounts }))
    }

    async fn prune_mounts(
        &self,
        request: Request<v1::PruneMountsRequest>,
    ) -> Result<Response<v1::PruneMountsResponse>, Status> {
        let subject = Subject::of(&request);
        let asked = request.into_inner();
        let of = if asked.project.is_empty() { "*" } else { &asked.project };
        let asked_for = format!("{}cache mounts of {of}", if asked.dry_run { "dry run: " } else { "" });
        subject.is(asked_for.clone());
        let older_than = age(asked.older_than)?;
        let prune = kiln_caches::Prune { project: asked.project, older_than, dry_run: asked.dry_run };
        let (mounts, freed_bytes) = self.mounts.prune(instance(&asked.instance), &prune).await?;
        subject.is(format!("{asked_for}: {}, {freed_bytes} bytes freed", mounts.len()));
        Ok(Response::new(v1::PruneMountsResponse { mounts, freed_bytes }))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        let asked = request.into_inner();
        if asked.project.is_empty() || asked.step.is_empty() {
            return Err(Status::invalid_argument("expected a project and a step to explain; one of them is empty"));
        }
        Ok(Response::new(
            self.layers.explain(instance(&asked.instance), &asked.project, &asked.step, &asked.build).await?,
        ))
    }
}
