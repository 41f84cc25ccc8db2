//! `kiln.v1.Cache`: layers, and why a step missed.

use std::time::Duration;

use kiln_proto::v1;
use kiln_proto::v1::cache_server;
use tonic::{Request, Response, Status};

use kiln_layers::{Layers, Prune};

/// Serves layers.
#[derive(Debug)]
pub struct Cache {
    layers: Layers,
}

impl Cache {
    /// Serves these layers.
    pub fn new(layers: Layers) -> Self {
        Self { layers }
    }
}

/// An instance's name as builds use it.
fn instance(name: &str) -> &str {
    name.trim_matches('/')
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
        let asked = request.into_inner();
        let older_than = asked.older_than.and_then(|duration| Duration::try_from(duration).ok()).ok_or_else(|| {
            Status::invalid_argument("`older_than` is absent or negative; expected how long ago a layer was used last")
        })?;
        let prune = Prune { project: asked.project, step: asked.step, older_than, dry_run: asked.dry_run };
        Ok(Response::new(self.layers.prune(instance(&asked.instance), &prune).await?))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        let asked = request.into_inner();
        if asked.project.is_empty() || asked.step.is_empty() {
            return Err(Status::invalid_argument("expected a project and a step to explain; one of them is empty"));
        }
        Ok(Response::new(self.layers.explain(instance(&asked.instance), &asked.project, &asked.step).await?))
    }
}
