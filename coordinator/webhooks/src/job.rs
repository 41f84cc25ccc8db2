//! Handles one push, from its acceptance to the status of its commit.
//!
//! Every part may be repeated after a restart: the same push gives the same build, and reporting the same status again
//! is harmless.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use kiln_proto::v1::{Build, Status as BuildStatus};

use super::checkout::Remote;
use super::config::Hook;
use super::deliveries::{Job, Key};
use super::forge::State;
use super::{Webhooks, report, submit};
use crate::Tenant;

/// Delays between attempts to fetch a commit and to submit its build: seven attempts in all.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_secs(2))
    .with_max_delay(Duration::from_secs(64))
    .with_jitter()
    .with_max_times(6);

/// Why a push is not built.
struct NotBuilt {
    state: State,
    words: String,
    may_pass: bool,
}

/// A push that is being handled.
pub(super) struct Running<'a> {
    webhooks: &'a Webhooks,
    hook: Arc<Hook>,
    key: Key,
    job: Job,
}

impl<'a> Running<'a> {
    pub(super) fn new(webhooks: &'a Webhooks, hook: Arc<Hook>, key: Key, job: Job) -> Self {
        Self { webhooks, hook, key, job }
    }

    /// Builds it and reports; returns when there is nothing more to do.
    pub(super) async fn run(self) {
        let (hook, commit, reference) = (self.hook.name(), &self.job.push.commit, &self.job.push.reference);
        self.tell(None, State::Waiting, "waiting to be built".to_owned()).await;
        let (tenant, build) = match self.submit_patiently().await {
            Ok(submitted) => submitted,
            Err(NotBuilt { state, words, .. }) => {
                tracing::warn!(hook, commit, reference, reason = words, "push not built");
                return self.tell(None, state, words).await;
            }
        };
        tracing::info!(hook, commit, reference, build = build.id, "building a push");
        self.tell(Some(&build.id), State::Running, format!("build {} is running", build.id)).await;
        let ended = follow(&tenant, build).await;
        let (state, words) = verdict(&ended);
        tracing::info!(hook, commit, reference, build = ended.id, outcome = ?state, "the build of a push ended");
        self.tell(Some(&ended.id), state, words).await;
    }

    async fn tell(&self, build: Option<&str>, state: State, words: String) {
        let shared = &self.webhooks.shared;
        let taken =
            report::tell((&shared.http, shared.farm.pages.as_ref()), &self.hook, &self.job, build, state, words).await;
        if let (Some(taken), Some(metrics)) = (taken, &shared.farm.metrics) {
            metrics.told(taken);
        }
    }

    async fn submit_patiently(&self) -> Result<(Tenant, Build), NotBuilt> {
        let mut pauses = PAUSES.build();
        loop {
            let failed = match self.submit().await {
                Err(failed) if failed.may_pass => failed,
                outcome => return outcome,
            };
            let Some(pause) = pauses.next() else { return Err(failed) };
            let (hook, commit) = (self.hook.name(), &self.job.push.commit);
            tracing::warn!(hook, commit, reason = failed.words, "cannot build a push yet; trying again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn submit(&self) -> Result<(Tenant, Build), NotBuilt> {
        let farms = |words: String| NotBuilt { state: State::Error, words, may_pass: true };
        let shared = &self.webhooks.shared;
        let whose = self.hook.whose();
        let tenant = shared.farm.tenants.tenant(&whose).await.map_err(|status| farms(status.message().to_owned()))?;
        let token = self.hook.token().map_err(farms)?.map(|token| (self.hook.forge.token_user(), token));
        let remote =
            Remote { url: &self.job.repository, token, submodules: self.hook.submodules(&self.job.repository) };
        let _turn = shared.fetching.acquire().await.map_err(|error| farms(error.to_string()))?;
        let push = &self.job.push;
        let checkout = shared.checkouts.check_out(&remote, &push.reference, &push.commit).await;
        let fetched = |error: super::checkout::Error| NotBuilt {
            state: if error.may_pass() { State::Error } else { State::Failure },
            words: format!("cannot fetch the commit: {error}"),
            may_pass: error.may_pass(),
        };
        let checkout = checkout.map_err(fetched)?;
        let project = checkout.project(&self.hook.directory).map_err(fetched)?;
        match submit::submit(&tenant, &self.hook, self.key, &self.job, &project).await {
            Ok(build) => Ok((tenant, build)),
            Err(submit::Error::Project(words)) => Err(NotBuilt { state: State::Failure, words, may_pass: false }),
            Err(submit::Error::Farm(words)) => Err(farms(words)),
        }
    }
}

/// Waits for the end of a build.
async fn follow(tenant: &Tenant, build: Build) -> Build {
    loop {
        match tenant.builds.watch(&build.id, 0).await {
            Ok(mut events) => while let Some(Ok(_)) = events.recv().await {},
            // The limit of watchers is reached.
            Err(status) => {
                tracing::debug!(build = build.id, reason = status.message(), "a build cannot be followed yet")
            }
        }
        match tenant.builds.get(&build.id).await {
            Ok(now) if now.status() != BuildStatus::Running => return now,
            _ => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

fn verdict(build: &Build) -> (State, String) {
    let why = |otherwise: &str| if build.message.is_empty() { otherwise.to_owned() } else { build.message.clone() };
    match build.status() {
        BuildStatus::Succeeded => {
            let names: Vec<&str> = build.artifacts.iter().map(|artifact| artifact.id.as_str()).collect();
            (State::Success, format!("made {}", names.join(", ")))
        }
        BuildStatus::Failed => (State::Failure, why("the build failed")),
        BuildStatus::Cancelled => (State::Cancelled, why("the build was cancelled")),
        BuildStatus::FarmFailed | BuildStatus::Running | BuildStatus::Unspecified => {
            (State::Error, why("the farm failed"))
        }
    }
}
