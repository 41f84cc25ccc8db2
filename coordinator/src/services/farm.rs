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
    tool_caches: kiln_toolcaches::Options,
    pages: (kiln_web::Options, kiln_web::Links),
}

impl Farm {
    /// Administers this execution of a farm with these images for languages, caches of build tools, and web pages.
    pub fn new(
        execution: ExecutionHandle,
        toolchains: BTreeMap<String, String>,
        tool_caches: kiln_toolcaches::Options,
        pages: (kiln_web::Options, kiln_web::Links),
    ) -> Self {
        Self { execution, toolchains, tool_caches, pages }
    }
}

#[tonic::async_trait]
impl farm_server::Farm for Farm {
    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::FarmStatus>, Status> {
        let toolchains = self.toolchains.clone().into_iter().collect();
        let cache_port = self.tool_caches.listen.map_or(0, |address| address.port().into());
        let cache_url = self.tool_caches.url.as_ref().map(ToString::to_string).unwrap_or_default();
        let identity = kiln_auth::identity(&request);
        let cache_writes = kiln_toolcaches::writes(&identity, false);
        let cache_writes_scopes = kiln_toolcaches::writes(&identity, true);
        let status = self.execution.farm().await?;
        Ok(Response::new(v1::FarmStatus {
            toolchains,
            cache_port,
            cache_url,
            cache_writes,
            cache_writes_scopes,
            ..status
        }))
    }

    async fn open_pages(
        &self,
        request: Request<v1::OpenPagesRequest>,
    ) -> Result<Response<v1::OpenPagesResponse>, Status> {
        let (options, links) = &self.pages;
        let Some(address) = options.listen else {
            return Err(Status::failed_precondition(
                "this coordinator serves no web pages; start it with `--web-listen`, such as `--web-listen 0.0.0.0:8982`",
            ));
        };
        let url = options.url.as_ref().map(ToString::to_string).unwrap_or_default();
        let path = links.make(kiln_auth::identity(&request));
        Ok(Response::new(v1::OpenPagesResponse { path, port: address.port().into(), url }))
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
