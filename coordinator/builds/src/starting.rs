//! Starts a recorded build, and cleans up when it has ended.

use std::sync::Arc;

use kiln_artifacts::Bases;
use kiln_auth::Identity;
use kiln_planner::plan::Plan;
use kiln_proto::digest::DigestFunction;
use kiln_proto::v1::{Build, SubmitRequest};
use kiln_telemetry::trace;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use tracing::field::Empty;

use super::source::SourceTree;
use super::{Active, Builds, Work, images, run, verify, waiting};
use kiln_build_secrets::Secrets;
use kiln_records::EventLog;

/// A project with its plan.
pub(super) struct Planned {
    pub(super) function: DigestFunction,
    pub(super) source: SourceTree,
    pub(super) plan: Plan,
}

/// The span of a build's work. A resumed build stays in its trace.
fn span(build: &Build, resumed: bool) -> tracing::Span {
    let (id, project) = (build.id.as_str(), build.project.as_str());
    let span = tracing::info_span!(parent: None, "build", build = id, project, resumed, status = Empty);
    trace::adopt(&span, &build.traceparent);
    span
}

impl Builds {
    /// From here on the build is in progress for all callers: it can be watched and cancelled.
    pub(super) fn activate(
        &self,
        build: Build,
        events: EventLog,
        secrets: Secrets,
        place: Option<OwnedSemaphorePermit>,
    ) -> Active {
        let id = build.id.clone();
        let (build, secrets, place) = (Arc::new(Mutex::new(build)), Arc::new(secrets), Arc::new(place));
        let agents = Arc::default();
        let active = Active { build, events, cancel: CancellationToken::new(), secrets, agents, _place: place };
        self.shared.active.lock().insert(id, active.clone());
        active
    }

    pub(super) fn start(
        &self,
        active: Active,
        request: SubmitRequest,
        identity: Identity,
        Planned { function, source, plan }: Planned,
        resumed: bool,
    ) {
        let (id, span) = {
            let build = active.build.lock();
            (build.id.clone(), span(&build, resumed))
        };
        let settings = self.shared.settings.clone();
        let allow_emulation = settings.allow_emulation || request.allow_emulation;
        let work = Work {
            allow_emulation,
            metrics: settings.metrics.clone(),
            _hold: self.shared.stores.in_use.begin(),
            stores: self.shared.stores.clone(),
            execution: self.shared.execution.clone(),
            layers: self.shared.layers.clone(),
            records: self.shared.records.clone(),
            histories: self.shared.histories.clone(),
            shares: std::collections::HashMap::new(),
            build: active.build,
            events: active.events,
            cancel: active.cancel,
            bases: Bases::new(
                self.shared.stores.clone(),
                &request.instance,
                function,
                (settings.registries.clone(), settings.credentials.clone()),
            ),
            plan,
            source: Arc::new(source),
            function,
            request,
            secrets: active.secrets,
            agents: active.agents,
            resumed,
            images: images::Images::default(),
            waits: waiting::Waits::default(),
            places: run::places::Places::default(),
            identity,
            settings,
            notices: self.shared.notices.clone(),
            seen: verify::Seen::default(),
            pins: kiln_reproduce::Pins::default(),
        };
        let builds = self.clone();
        let working = async move {
            // Its client checked that they were present before the restart; the store may have lost them since.
            if work.resumed
                && let Err(error) = work.source.missing(&*work.stores.blobs, None).await
            {
                tracing::warn!(%error, "cannot look for the sources of a build that is being resumed");
            }
            let work = run::run(work.pinned().await).await;
            builds.forget(&id).await;
            work.sample().await;
        };
        tokio::spawn(working.instrument(span));
    }

    /// Removes a build from those in progress.
    pub(super) async fn forget(&self, id: &str) {
        let ended = self.shared.active.lock().remove(id);
        if let Some(active) = ended {
            active.events.close();
        }
        self.trim().await;
    }

    /// Deletes builds that are past the retention limits.
    pub(super) async fn trim(&self) {
        if let Err(error) = self.shared.histories.trim().await {
            tracing::error!(%error, "cannot delete what old steps took");
        }
        if let Err(error) = self.shared.records.trim_tests().await {
            tracing::error!(%error, "cannot delete what old tests took");
        }
        if let Err(error) = self.shared.records.trim_outcomes().await {
            tracing::error!(%error, "cannot delete what became of old tests");
        }
        match self.shared.records.trim(&self.shared.settings.keep).await {
            Ok(0) => {}
            Ok(builds) => tracing::info!(builds, "deleted old builds"),
            Err(error) => tracing::error!(%error, "cannot delete old builds"),
        }
    }
}
