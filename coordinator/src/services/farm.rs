//! `kiln.v1.Farm`: the farm's workers, and their administration.

use std::collections::BTreeMap;

use kiln_proto::v1;
use kiln_proto::v1::farm_server;
use tonic::{Request, Response, Status};

use kiln_auth::audit::Subject;
use kiln_execution::ExecutionHandle;

/// Serves the farm's administration.
#[derive(Debug)]
pub struct Farm {
    execution: ExecutionHandle,
    toolchains: BTreeMap<String, String>,
}

impl Farm {
    /// Administers this execution of a farm with these images for languages.
    pub fn new(execution: ExecutionHandle, toolchains: BTreeMap<String, String>) -> Self {
        Self { execution, toolchains }
    }
}

#[tonic::async_trait]
impl farm_server::Farm for Farm {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::FarmStatus>, Status> {
        let toolchains = self.toolchains.clone().into_iter().collect();
        Ok(Response::new(v1::FarmStatus { toolchains, ..self.execution.farm().await? }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let subject = Subject::of(&request);
        let v1::DrainWorkerRequest { worker, undrain } = request.into_inner();
        subject.is(format!("{} worker {worker}", if undrain { "undrain" } else { "drain" }));
        self.execution.drain(worker, !undrain).await?;
        Ok(Response::new(v1::DrainWorkerResponse {}))
    }
}
