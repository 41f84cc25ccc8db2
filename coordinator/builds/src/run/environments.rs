//! Environments: where a target is built, and what happens if all workers with its environment are gone.

use std::sync::Arc;
use std::time::Duration;

use kiln_planner::plan::Target;
use kiln_proto::v1::{self, Status as BuildStatus, event};

use super::{Outcome, Unsuccessful, Work, artifacts, steps};
use crate::{environment, waiting};

/// How long a resumed build, or a build on a farm that has just started, waits for workers to join.
const JOINING: Duration = Duration::from_secs(30);
/// How many environments are tried for a target.
const ENVIRONMENTS: u32 = 3;

/// Builds a target in one environment; in another one if the first disappeared with its workers meanwhile.
pub(super) async fn build_target(work: &Work, target: &Target, emulated: &mut bool) -> Outcome {
    let mut left = ENVIRONMENTS;
    loop {
        let environment = Arc::new(environment_of(work, target).await?);
        *emulated = environment.emulated;
        if environment.emulated {
            let text = format!("no native worker matches target `{}`; it is built on an emulated machine", target.name);
            work.tell(event::Event::Warning(v1::Warning { text }));
        }
        for text in environment::recommendations(&environment, target, &work.plan.steps) {
            work.tell(event::Event::Warning(v1::Warning {
                text: format!("target `{}`: the worker {text}", target.name),
            }));
        }
        let outcome = build_target_in(work, target, &environment).await;
        left -= 1;
        let Err(unsuccessful) = &outcome else { return outcome };
        if left == 0 || unsuccessful.status != BuildStatus::FarmFailed || !has_gone(work, target, &environment).await {
            return outcome;
        }
        let text = format!(
            "the workers that built target `{}` came back with a different system or tools; it is built again",
            target.name
        );
        work.tell(event::Event::Warning(v1::Warning { text }));
    }
}

async fn build_target_in(work: &Work, target: &Target, environment: &Arc<v1::Environment>) -> Outcome {
    let bases = async { work.bases.prepare(&work.plan, target).await.map_err(Unsuccessful::from) };
    let (steps, ()) = futures::future::try_join(steps::all_steps(work, target, environment), bases).await?;
    artifacts::make_artifacts(work, target, environment, &steps).await
}

/// Whether no worker has this environment any more, and another environment would do.
async fn has_gone(work: &Work, target: &Target, environment: &v1::Environment) -> bool {
    let Ok(farm) = work.execution.farm().await else { return false };
    let fingerprints = || farm.workers.iter().filter_map(|worker| worker.environment.as_ref());
    !fingerprints().any(|other| other.fingerprint == environment.fingerprint)
        && environment::choose(&farm.workers, target, &work.plan.steps, work.allow_emulation).is_ok()
}

/// The environment of a target. If no worker has one, waits: for expected workers, as long as the build's queue timeout
/// allows; and for any worker, a moment, if the farm has just started or the build was resumed.
async fn environment_of(work: &Work, target: &Target) -> Result<v1::Environment, Unsuccessful> {
    let now = tokio::time::Instant::now();
    let wait_limit = work.queue_timeout().unwrap_or_else(|| work.execution.queue_timeout());
    let (until, joining) = (now + wait_limit, if work.resumed { now } else { work.execution.began() } + JOINING);
    let mut told = String::new();
    let mut changed = work.execution.workers_changed();
    loop {
        changed.mark_unchanged();
        let farm = work.execution.farm().await.map_err(|status| Unsuccessful::farms(status.message()))?;
        let steps = &work.plan.steps;
        let words = match environment::choose(&farm.workers, target, steps, work.allow_emulation) {
            Ok(environment) => {
                if !told.is_empty() {
                    work.tell(event::Event::Waiting(waiting::of(target)));
                }
                return Ok(environment);
            }
            Err(words) => words,
        };
        let now = tokio::time::Instant::now();
        let starts = (farm.workers.is_empty() || work.resumed) && now < joining;
        let expected = environment::expected(&farm.away, work.execution.pools(), target, steps, work.allow_emulation);
        let (what, until) = match expected {
            _ if now >= until => {
                let waited = wait_limit.as_secs();
                return Err(Unsuccessful::farms(format!("{words}; none joined within {waited} s (`--queue-timeout`)")));
            }
            Some(expected) => (expected, until),
            None if starts => ("a worker to join: the farm has just started".to_owned(), joining.min(until)),
            None => return Err(Unsuccessful::farms(words)),
        };
        if what != told {
            let gives_up = waiting::gives_up(until.saturating_duration_since(now));
            let waiting = v1::Waiting { what: what.clone(), gives_up, ..waiting::of(target) };
            work.tell(event::Event::Waiting(waiting));
            told = what;
        }
        // Which workers are expected changes with time, too.
        let look = until.min(now + JOINING);
        let _ = tokio::time::timeout_at(look, changed.changed()).await;
    }
}
