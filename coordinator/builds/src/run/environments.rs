//! Environments: where a target is built, and what happens if all workers with its environment are gone.

use kiln_planner::plan::{Platform, Target};
use kiln_proto::v1::{self, Status as BuildStatus, event};

use super::steps::Done;
use super::{Outcome, Unsuccessful, Work, artifacts, places, steps};
use crate::chosen::{Chosen, steps_on};

/// How many environments are tried for a target.
const ENVIRONMENTS: u32 = 3;

/// Builds a target in one environment; in another one if the first disappeared with its workers meanwhile.
pub(super) async fn build_target(work: &Work, target: &Target, emulated: &mut bool) -> Outcome {
    let mut left = ENVIRONMENTS;
    loop {
        let chosen = Chosen::new(work, target);
        let outcome = build_target_in(work, target, &chosen).await;
        let mut used = work.places.used(target);
        used.extend(chosen.known().map(|environment| (target.platform, environment)));
        *emulated = used.values().any(|environment| environment.emulated);
        left -= 1;
        let Err(unsuccessful) = &outcome else { return outcome };
        let mut gone = false;
        for (platform, environment) in &used {
            gone |= has_gone(work, target, *platform, environment).await;
        }
        if left == 0 || unsuccessful.status != BuildStatus::FarmFailed || !gone {
            return outcome;
        }
        let text = format!(
            "the workers that built target `{}` came back with a different system or tools; it is built again",
            target.name
        );
        work.tell(event::Event::Warning(v1::Warning { text }));
        work.places.forget(target);
    }
}

async fn build_target_in(work: &Work, target: &Target, chosen: &Chosen<'_>) -> Outcome {
    let bases = async { work.bases.prepare(&work.plan, target).await.map_err(Unsuccessful::from) };
    let steps = async {
        if work.plan.steps.is_empty() {
            return Ok(Done::default());
        }
        steps::all_steps(work, target, chosen).await
    };
    let (steps, ()) = futures::future::try_join(steps, bases).await?;
    artifacts::make_artifacts(work, target, chosen, &steps).await
}

/// Whether no worker has this environment any more, and another environment would do.
async fn has_gone(work: &Work, target: &Target, platform: Platform, environment: &v1::Environment) -> bool {
    let Ok(farm) = work.execution.farm().await else { return false };
    let fingerprints = || farm.workers.iter().filter_map(|worker| worker.environment.as_ref());
    !fingerprints().any(|other| other.fingerprint == environment.fingerprint) && {
        let steps = steps_on(work, target, platform);
        kiln_environments::choose(&farm.workers, &places::on(target, platform), &steps, work.allow_emulation).is_ok()
    }
}
