//! `kiln.v1.Builds` and `kiln.v1.Artifacts`.

use kiln_proto::v1;
use kiln_proto::v1::{artifacts_server, builds_server};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use kiln_auth::audit::Subject;

/// Maximum number of artifacts in one answer.
const MAX_ARTIFACTS: usize = 10_000;
/// Maximum number of steps that one question is about.
const MAX_EXPECTED: usize = 1_000;
/// Longest filter of a list, in bytes.
const MAX_ASKED: usize = 1_024;
/// Words and statuses that one list can ask for.
const MAX_WORDS: usize = 8;
const MAX_STATUSES: usize = 8;

/// Serves builds and their artifacts.
#[derive(Debug, Clone)]
pub struct Builds {
    builds: kiln_builds::Builds,
    pages: Option<v1::PagesAt>,
}

impl Builds {
    /// Serves these builds, which these pages show.
    pub fn new(builds: kiln_builds::Builds, pages: &kiln_web::Options) -> Self {
        let at = |address: std::net::SocketAddr| v1::PagesAt {
            port: address.port().into(),
            url: pages.url.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        Self { builds, pages: pages.listen.map(at) }
    }
}

/// Refuses a request for builds that no build could match, and that would be long to look for.
fn check(request: &v1::ListRequest) -> Result<(), Status> {
    let texts = [&request.project, &request.user, &request.branch, &request.platform, &request.text, &request.before];
    if texts.iter().any(|text| text.len() > MAX_ASKED) {
        return Err(Status::invalid_argument(format!("a filter is longer than {MAX_ASKED} bytes")));
    }
    if request.statuses.len() > MAX_STATUSES || request.text.split_whitespace().count() > MAX_WORDS {
        return Err(Status::invalid_argument(format!(
            "expected at most {MAX_STATUSES} statuses and {MAX_WORDS} words to look for"
        )));
    }
    Ok(())
}

#[tonic::async_trait]
impl builds_server::Builds for Builds {
    type WatchStream = ReceiverStream<Result<v1::Event, Status>>;

    async fn expect(&self, request: Request<v1::ExpectRequest>) -> Result<Response<v1::ExpectResponse>, Status> {
        let v1::ExpectRequest { instance, project, steps } = request.into_inner();
        if steps.len() > MAX_EXPECTED {
            return Err(Status::invalid_argument(format!(
                "{} steps; the farm allows at most {MAX_EXPECTED}",
                steps.len()
            )));
        }
        let found = self.builds.histories().of(instance.trim_matches('/'), &project, &steps).await;
        let mut known = found.map_err(|error| Status::internal(error.to_string()))?;
        for (history, kind) in known.iter_mut().zip(&steps) {
            let shards = self.builds.shards(instance.trim_matches('/'), &project, &kind.step).await;
            history.shards = shards.map_err(|error| Status::internal(error.to_string()))?;
        }
        Ok(Response::new(v1::ExpectResponse { steps: known }))
    }

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::Build>, Status> {
        let identity = kiln_auth::identity(&request);
        let subject = Subject::of(&request);
        let request = request.into_inner();
        let source = request.source.as_ref();
        let from = source.map(|source| [&source.repository, &source.directory].map(String::as_str)).unwrap_or_default();
        subject.is(format!("a build of {}", from.into_iter().find(|name| !name.is_empty()).unwrap_or("a tree")));
        let build = self.builds.submit_for(identity, request).await?;
        subject.is(format!("build {} of {}", build.id, build.project));
        Ok(Response::new(v1::Build { pages: self.pages.clone(), ..build }))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watched = self.builds.watch_some(request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(watched)))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Result<Response<v1::Build>, Status> {
        let subject = Subject::of(&request);
        let v1::CancelRequest { build, request_id } = request.into_inner();
        let build = if build.is_empty() && !request_id.is_empty() {
            subject.is(format!("build of request {request_id}"));
            self.builds.of_request(&request_id).await?
        } else {
            build
        };
        subject.is(format!("build {build}"));
        Ok(Response::new(self.builds.cancel(&build).await?))
    }

    async fn cancel_all(
        &self,
        request: Request<v1::CancelAllRequest>,
    ) -> Result<Response<v1::CancelAllResponse>, Status> {
        let by = kiln_auth::identity(&request);
        let subject = Subject::of(&request);
        let user = request.into_inner().user;
        subject.is(format!("builds of {user}"));
        if user.is_empty() {
            return Err(Status::invalid_argument("expected the user whose builds to cancel"));
        }
        let builds = self.builds.cancel_all(&user);
        tracing::info!(by = by.name, user, builds = builds.len(), "cancelling a user's builds");
        Ok(Response::new(v1::CancelAllResponse { builds }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let request = request.into_inner();
        let limit = request.limit;
        if request == (v1::ListRequest { limit, ..v1::ListRequest::default() }) {
            let builds = self.builds.list(limit).await?;
            return Ok(Response::new(v1::ListResponse { builds, more: String::new() }));
        }
        check(&request)?;
        Ok(Response::new(self.builds.find(&request).await?))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::Build>, Status> {
        let v1::GetRequest { build, user } = request.into_inner();
        Ok(Response::new(self.builds.get_for(&build, &user).await?))
    }
}

#[tonic::async_trait]
impl artifacts_server::Artifacts for Builds {
    async fn list(
        &self,
        request: Request<v1::ListArtifactsRequest>,
    ) -> Result<Response<v1::ListArtifactsResponse>, Status> {
        let v1::ListArtifactsRequest { name, limit } = request.into_inner();
        let limit = if limit == 0 { 1000 } else { (limit as usize).min(MAX_ARTIFACTS) };
        let found = self.builds.records().artifacts(&name, limit).await;
        let internal = |error: kiln_builds::RecordsError| Status::internal(error.to_string());
        let mut artifacts =
            self.builds.records().with_reproducibility(found.map_err(internal)?).await.map_err(internal)?;
        for artifact in &mut artifacts {
            artifact.reproducibility.truncate(1);
            artifact.reproducibility.iter_mut().for_each(|found| (found.steps, found.differences) = Default::default());
        }
        Ok(Response::new(v1::ListArtifactsResponse { artifacts }))
    }

    async fn get(&self, request: Request<v1::GetArtifactRequest>) -> Result<Response<v1::Artifact>, Status> {
        let v1::GetArtifactRequest { id, host_platform } = request.into_inner();
        let mut artifact = self.builds.artifact(&id, &host_platform).await?;
        let found = self.builds.records().reproducibility(&artifact.id).await;
        artifact.reproducibility = found.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(artifact))
    }

    async fn sign_index(
        &self,
        request: Request<v1::SignIndexRequest>,
    ) -> Result<Response<v1::SignIndexResponse>, Status> {
        let v1::SignIndexRequest { build, artifact } = request.into_inner();
        Ok(Response::new(self.builds.sign_index(&build, &artifact).await?))
    }
}
