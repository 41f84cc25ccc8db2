//! Runs a build's plan: its targets concurrently, each in an environment. Records how the build ended.

mod artifacts;
mod attest;
mod environments;
mod gates;
mod notices;
pub(crate) mod places;
mod reruns;
mod steps;
mod told;

use std::convert::Infallible;
use std::time::Instant;

use kiln_planner::plan::Target;
use kiln_proto::clock;
use kiln_proto::v1::step_state::Phase;
use kiln_proto::v1::{self, Build, Status as BuildStatus, event};

use super::{Work, shards, waiting};
use kiln_store::Health;

/// Why a build did not succeed.
#[derive(Debug)]
struct Unsuccessful {
    status: BuildStatus,
    message: String,
}

impl Unsuccessful {
    fn projects(message: impl Into<String>) -> Self {
        Self { status: BuildStatus::Failed, message: message.into() }
    }

    fn farms(message: impl std::fmt::Display) -> Self {
        Self { status: BuildStatus::FarmFailed, message: message.to_string() }
    }
}

impl From<kiln_artifacts::Error> for Unsuccessful {
    fn from(error: kiln_artifacts::Error) -> Self {
        if error.is_project_fault() { Self::projects(error.to_string()) } else { Self::farms(error) }
    }
}

/// The event that ends a build.
pub(super) fn finished(build: &Build) -> v1::BuildFinished {
    v1::BuildFinished {
        build: build.id.clone(),
        status: build.status,
        duration_ms: clock::milliseconds_between(build.started.as_ref(), build.finished.as_ref()),
        message: build.message.clone(),
    }
}

/// Runs the build to its end, whatever the outcome, and records it.
pub(super) async fn run(mut work: Work) -> Work {
    let began = Instant::now();
    shards::settle(&mut work).await;
    tracing::info!(resumed = work.resumed, "build started");
    let _counted = work.metrics.as_ref().map(|metrics| metrics.began());
    work.tell(event::Event::BuildStarted(told::started(&work)));
    for note in &work.plan.notes {
        work.tell(event::Event::Warning(v1::Warning { text: note.clone() }));
    }
    let outcome = tokio::select! {
        outcome = carry_out(&work) => outcome,
        never = tell_of_redis(&work) => match never {},
        never = waiting::tell(&work) => match never {},
        () = work.settings.revoked(&work.identity) => {
            let message = format!("the build was cancelled: `{}` has been revoked", work.identity.name);
            Err(Unsuccessful { status: BuildStatus::Cancelled, message })
        }
        () = work.cancel.cancelled() => {
            Err(Unsuccessful { status: BuildStatus::Cancelled, message: "the build was cancelled".to_owned() })
        }
    };
    let build = {
        let mut build = work.build.lock();
        build.finished = Some(clock::now());
        match outcome {
            Ok(()) => build.set_status(BuildStatus::Succeeded),
            Err(Unsuccessful { status, message }) => {
                build.set_status(status);
                build.message = message;
            }
        }
        for state in &mut build.steps {
            if matches!(state.phase(), Phase::Waiting | Phase::Queued | Phase::Running) {
                state.set_phase(Phase::Skipped);
            }
        }
        build.clone()
    };
    tracing::Span::current().record("status", build.status().as_str_name());
    tracing::info!(status = build.status().as_str_name(), "build ended");
    if let Some(metrics) = &work.metrics {
        metrics.ended(build.status(), began.elapsed());
    }
    let last = event::Event::BuildFinished(finished(&build));
    let calls = notices::of(&work, &build).await;
    match work.records.finish(&build, (&work.events, last), &calls).await {
        Ok(()) => work.notices.iter().for_each(|notices| notices.take(&calls)),
        Err(error) => tracing::error!(%error, build = build.id, "cannot record that a build ended"),
    }
    work
}

/// Warns once if the shared cache is unavailable while the build runs: the build then takes longer, and the user should
/// know why.
async fn tell_of_redis(work: &Work) -> Infallible {
    if let Some(redis) = &work.stores.redis {
        let mut health = redis.health();
        let why = health.wait_for(|health| *health != Health::Up).await.map(|health| match &*health {
            Health::Up => String::new(),
            Health::Away(why) => format!("is unreachable ({why}): the build continues without it"),
            Health::NoWrites(why) => format!("accepts no writes ({why}): what is built now is not shared"),
        });
        if let Ok(why) = why {
            work.tell(event::Event::Warning(v1::Warning { text: format!("the farm's shared cache {why}") }));
        }
    }
    std::future::pending().await
}

/// The outcome of a target.
type Outcome = Result<(), Unsuccessful>;

/// Builds all targets concurrently. One that fails does not affect the others.
async fn carry_out(work: &Work) -> Outcome {
    let targets = work.plan.targets.iter().map(|target| async move {
        let mut emulated = false;
        let outcome = environments::build_target(work, target, &mut emulated).await;
        let (status, message) = match &outcome {
            Ok(()) => (BuildStatus::Succeeded, String::new()),
            Err(Unsuccessful { status, message }) => (*status, message.clone()),
        };
        work.tell(event::Event::TargetFinished(v1::TargetFinished {
            platform: target.platform.to_string(),
            target: target.name.clone(),
            status: status.into(),
            message,
            emulated,
        }));
        (target, outcome)
    });
    together(futures::future::join_all(targets).await)
}

/// The outcome of a build from those of its targets: the project's fault if one target failed by it, otherwise the
/// farm's.
fn together(outcomes: Vec<(&Target, Outcome)>) -> Outcome {
    let several = outcomes.len() > 1;
    let (mut failed, mut well) = (Vec::new(), Vec::new());
    for (target, outcome) in outcomes {
        match outcome {
            Ok(()) => well.push(format!("`{}`", target.name)),
            Err(unsuccessful) => failed.push((&target.name, unsuccessful)),
        }
    }
    let is_project_fault = failed.iter().any(|(_, one)| one.status == BuildStatus::Failed);
    let status = if is_project_fault { BuildStatus::Failed } else { BuildStatus::FarmFailed };
    let mut words: Vec<String> = failed
        .into_iter()
        .map(|(target, one)| if several { format!("target `{target}`: {}", one.message) } else { one.message })
        .collect();
    if words.is_empty() {
        return Ok(());
    }
    if !well.is_empty() {
        words.push(format!("succeeded: {}", well.join(", ")));
    }
    Err(Unsuccessful { status, message: words.join("\n") })
}
