//! Accepts a build: plans, records and starts it.

use std::collections::BTreeSet;

use kiln_planner::plan::{ArtifactKind, Plan};
use kiln_proto::clock;
use kiln_proto::v1::{Build, Status as BuildStatus, SubmitRequest};
use kiln_telemetry::trace;
use tonic::Status;
use tracing::Instrument;

use super::starting::Planned;
use super::{Builds, internal, named_user, unread};
use kiln_auth::Identity;
use kiln_build_secrets::Secrets;

/// Maximum builds in progress: each keeps its tree's names and its plan in memory.
pub(super) const MAX_ACTIVE: usize = 1000;
/// Maximum bytes of a submission: it holds only facts about the project, whose files are blobs.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Maximum bytes of the id that a client gives its request.
const MAX_REQUEST_ID: usize = 256;

/// What the farm knows about a request from its own sources.
#[derive(Debug, Default)]
struct Known {
    /// The authenticated caller, if the farm requires authentication.
    identity: Option<String>,
    /// The farm itself fetched the sources.
    source_verified: bool,
}

impl Builds {
    /// Like [`submit`](Self::submit), for this caller: if the farm requires authentication, the build belongs to the
    /// caller whatever the request says.
    pub async fn submit_for(&self, identity: Identity, mut request: SubmitRequest) -> Result<Build, Status> {
        let asked = !identity.is_anonymous();
        if asked {
            request.user.clone_from(&identity.name);
        }
        // Recorded with the request, so that a resumed build has it too.
        if let Some(scope) = &identity.scope {
            request.scope.clone_from(scope);
        }
        let known = Known { identity: asked.then(|| identity.name.clone()), source_verified: false };
        self.submit_as(identity, known, request).await
    }

    /// Like [`submit`](Self::submit), for a commit that the farm itself fetched.
    pub async fn submit_verified(&self, request: SubmitRequest) -> Result<Build, Status> {
        let known = Known { identity: None, source_verified: true };
        self.submit_as(named_user(&request.user), known, request).await
    }

    /// Plans a tree and starts its build. `INVALID_ARGUMENT` if the project is wrong, with the reason.
    pub async fn submit(&self, request: SubmitRequest) -> Result<Build, Status> {
        self.submit_as(named_user(&request.user), Known::default(), request).await
    }

    async fn submit_as(&self, identity: Identity, known: Known, mut request: SubmitRequest) -> Result<Build, Status> {
        let bytes = prost::Message::encoded_len(&request);
        if bytes > MAX_REQUEST_BYTES {
            return Err(Status::resource_exhausted(format!(
                "a request of {bytes} bytes to build; expected at most {MAX_REQUEST_BYTES}"
            )));
        }
        if request.request_id.len() > MAX_REQUEST_ID {
            return Err(Status::invalid_argument(format!(
                "a request id of {} bytes; expected at most {MAX_REQUEST_ID}",
                request.request_id.len()
            )));
        }
        if !request.scope.is_empty() {
            kiln_auth::check_scope(&request.scope).map_err(Status::invalid_argument)?;
        }
        if let Some(id) = request.verify.as_ref().map(|verify| verify.rebuild.as_str()).filter(|id| !id.is_empty())
            && self.shared.records.artifact(id).await.map_err(unread)?.is_none()
        {
            return Err(Status::invalid_argument(format!("verify.rebuild is `{id}`, and there is no such artifact")));
        }
        // From here on the request holds no secrets, so it can be recorded.
        let secrets = Secrets::new(std::mem::take(&mut request.secrets)).map_err(Status::invalid_argument)?;
        let planned = self.plan(&request).instrument(tracing::info_span!("plan")).await?;
        secrets.fit(&planned.plan).map_err(Status::invalid_argument)?;
        // In a task of its own: if the caller goes away, a recorded build must still be started.
        let builds = self.clone();
        let begun = async move { builds.begin(identity, known, request, secrets, planned).await };
        tokio::spawn(begun.in_current_span()).await.map_err(internal)?
    }

    async fn begin(
        &self,
        identity: Identity,
        known: Known,
        request: SubmitRequest,
        secrets: Secrets,
        planned: Planned,
    ) -> Result<Build, Status> {
        let _one = self.shared.submitting.turn(&request.request_id).await;
        if !request.request_id.is_empty()
            && let Some(id) = self.shared.records.request(&request.request_id).await.map_err(unread)?
        {
            if let Some(active) = self.shared.active.lock().get(&id) {
                active.secrets.take(secrets);
            }
            return self.get(&id).await;
        }
        let place = self.shared.places.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{MAX_ACTIVE} builds are in progress, which is the farm's limit; try again when some have ended"
            ))
        })?;
        if let Some(usage) = &self.shared.stores.usage {
            usage.settle();
            if let Some(words) = usage.refuses() {
                return Err(Status::resource_exhausted(words));
            }
        }
        let build = Build {
            id: uuid::Uuid::now_v7().simple().to_string(),
            project: planned.plan.name.clone(),
            version: planned.plan.version.clone().unwrap_or_default(),
            source: request.source.clone(),
            status: BuildStatus::Running as i32,
            started: Some(clock::now()),
            user: request.user.clone(),
            platforms: planned.plan.targets.iter().map(|target| target.platform.to_string()).collect(),
            instance: request.instance.clone(),
            tenant: self.shared.settings.tenant.clone(),
            identity: known.identity.unwrap_or_default(),
            source_verified: known.source_verified,
            source_is_complete: request.check_source,
            digest_function: request.digest_function,
            dockerfiles: dockerfiles(&planned.plan),
            traceparent: trace::current(),
            ..Default::default()
        };
        self.shared.records.submit(&build, &request).await.map_err(unread)?;
        let events = self.shared.records.new_events(&build.id);
        let active = self.activate(build.clone(), events, secrets, Some(place));
        self.start(active, request, identity, planned, false);
        Ok(build)
    }
}

/// The Dockerfiles that a plan builds.
fn dockerfiles(plan: &Plan) -> Vec<String> {
    let kinds = plan.artifacts.iter().map(|artifact| &artifact.kind);
    let files = kinds.filter_map(|kind| match kind {
        ArtifactKind::Dockerfile(dockerfile) => Some(dockerfile.file.clone()),
        _ => None,
    });
    files.collect::<BTreeSet<_>>().into_iter().collect()
}
