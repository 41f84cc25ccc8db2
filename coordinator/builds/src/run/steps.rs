//! Runs steps: each starts as soon as those that it needs are done.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kiln_planner::plan::{Platform, Step, Target};
use kiln_proto::v1;
use tracing::Instrument;

use super::reruns::Reruns;
use super::{Unsuccessful, Work};
use crate::chosen::Chosen;
use crate::shards;
use crate::steps::{self, Ended, Finished, Job};

/// What tells a step that names a platform which one it builds for.
const TARGET_PLATFORM: &str = "KILN_TARGET_PLATFORM";

/// How long the longest chain of steps takes that depend on each step, itself included, if each takes this long.
fn path_weights(steps: &[Step], own: &[u64]) -> Vec<u64> {
    let mut weights = own.to_vec();
    for index in (0..steps.len()).rev() {
        for need in &steps[index].needs {
            if let Some(at) = steps.iter().position(|step| step.name == *need) {
                weights[at] = weights[at].max(weights[index].saturating_add(own[at]));
            }
        }
    }
    weights
}

/// What the steps took before on this target.
async fn histories(work: &Work, target: &Target) -> Vec<v1::StepHistory> {
    let (steps, files) = (&work.plan.steps, work.source.paths().len());
    let kind = |step: &Step| kiln_histories::kind(step, &target.platform_of(step).to_string(), files);
    let kinds: Vec<v1::StepKind> = steps.iter().map(kind).collect();
    let project = work.build.lock().project.clone();
    let found = work.histories.of(work.request.instance.trim_matches('/'), &project, &kinds).await;
    found.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read what the steps took before");
        vec![v1::StepHistory::default(); steps.len()]
    })
}

/// An action of a target: the index of the step in the plan, and the shard.
pub(super) type Place = (usize, u32);

/// The outputs of each step, by its index in the plan.
pub(super) type Done = BTreeMap<usize, Vec<Finished>>;

/// Where the steps of a target run, by platform. All are known before the first one begins: a build that lacks a worker for its last
/// step says so at once.
async fn places(
    work: &Work,
    of: &Target,
    chosen: &Chosen<'_>,
) -> Result<BTreeMap<Platform, (Target, Arc<v1::Environment>)>, String> {
    let mut places = BTreeMap::new();
    for platform in work.plan.steps.iter().map(|step| of.platform_of(step)).collect::<BTreeSet<_>>() {
        let place = if platform == of.platform {
            (of.clone(), chosen.get().await?)
        } else {
            work.places.find(work, of, platform).await?
        };
        places.insert(platform, place);
    }
    Ok(places)
}

/// A step as it runs for a target.
fn for_target(planned: &Step, target: &Target) -> Step {
    let mut step = Step { image: target.image_of(planned).map(str::to_owned), ..planned.clone() };
    // Only where it is asked for: the other steps are the same for every target, and run once.
    let texts = || std::iter::once(&step.run).chain(step.env.values()).chain(step.files.values());
    if step.platform.is_some() && texts().any(|text| text.contains(TARGET_PLATFORM)) {
        step.env.insert(TARGET_PLATFORM.to_owned(), target.platform.to_string());
    }
    step
}

pub(super) async fn all_steps(work: &Work, of: &Target, chosen: &Chosen<'_>) -> Result<Done, Unsuccessful> {
    let places = places(work, of, chosen).await.map_err(Unsuccessful::farms)?;
    let histories = histories(work, of).await;
    let own: Vec<u64> = histories.iter().map(kiln_histories::weight).collect();
    let weights = path_weights(&work.plan.steps, &own);
    let mut results: HashMap<Place, Finished> = HashMap::new();
    let mut waiting: Vec<Place> = Vec::new();
    for (step, planned) in work.plan.steps.iter().enumerate() {
        waiting.extend((0..planned.shards).map(|shard| (step, shard)));
    }
    let mut again: HashSet<Place> = HashSet::new();
    let mut reruns = Reruns::default();
    let mut running = FuturesUnordered::new();
    let mut started: HashSet<Place> = HashSet::new();
    let mut failed: Option<(usize, Unsuccessful)> = None;
    loop {
        // The other shards of a step that has failed run to their end: all that fails is told of.
        if let Some((step, why)) = failed.take_if(|(step, _)| !started.iter().any(|(of, _)| of == step)) {
            tracing::debug!(step, "a step has failed");
            return Err(why);
        }
        let (ready, later): (Vec<Place>, Vec<Place>) =
            waiting.into_iter().partition(|(step, _)| failed.is_none() && is_ready(work, *step, &results));
        waiting = later;
        for place in ready {
            let (step, shard) = place;
            let needed = needs(work, step, &results);
            let planned = &work.plan.steps[step];
            let (target, environment) = places[&of.platform_of(planned)].clone();
            let job = Job {
                step: for_target(planned, of),
                target,
                shown: of.platform,
                environment,
                shard,
                needed: needed.iter().map(|finished| finished.fact.name.clone()).collect(),
                needs: needed.into_iter().map(|finished| finished.outputs).collect(),
                path_weight: weights[step],
                history: histories[step],
                shares: work.shares.get(&planned.name).cloned(),
                memory_bytes: None,
                again: again.contains(&place),
                rooted: None,
                root: None,
            };
            started.insert(place);
            let span = job.span();
            running.push(async move { (place, steps::run(work, job).await) }.instrument(span));
        }
        let Some((place, ended)) = running.next().await else { break };
        started.remove(&place);
        match ended {
            Ended::Succeeded(finished) => {
                results.insert(place, *finished);
                let all = (0..work.plan.steps[place.0].shards).map(|shard| results.get(&(place.0, shard)));
                if let Some(all) = all.collect::<Option<Vec<_>>>() {
                    shards::ended(work, &work.plan.steps[place.0], &all).await;
                }
            }
            Ended::Failed(message) if failed.is_none() => failed = Some((place.0, Unsuccessful::projects(message))),
            Ended::FarmFailed(message) if failed.is_none() => failed = Some((place.0, Unsuccessful::farms(message))),
            Ended::Failed(_) | Ended::FarmFailed(_) => {}
            Ended::InputsGone(message) => {
                let has_root = of.image_of(&work.plan.steps[place.0]).is_some();
                let needed = reruns.of(place, needed_places(work, place.0), has_root, &message)?;
                work.images.forget_roots();
                // The steps that it needs run again (results that are still complete are hits), then the step itself.
                for need in needed {
                    results.remove(&need);
                    again.insert(need);
                    waiting.push(need);
                }
                waiting.push(place);
            }
        }
    }
    let mut done = Done::new();
    let mut ended: Vec<(Place, Finished)> = results.into_iter().collect();
    ended.sort_by_key(|(place, _)| *place);
    for ((step, _), finished) in ended {
        done.entry(step).or_default().push(finished);
    }
    Ok(done)
}

fn needed_steps(work: &Work, step: usize) -> Vec<usize> {
    let needs = &work.plan.steps[step].needs;
    needs.iter().filter_map(|need| work.plan.steps.iter().position(|step| step.name == *need)).collect()
}

fn needed_places(work: &Work, step: usize) -> Vec<Place> {
    let steps = needed_steps(work, step).into_iter();
    steps.flat_map(|step| (0..work.plan.steps[step].shards).map(move |shard| (step, shard))).collect()
}

fn is_ready(work: &Work, step: usize, results: &HashMap<Place, Finished>) -> bool {
    needed_places(work, step).iter().all(|place| results.contains_key(place))
}

fn needs(work: &Work, step: usize, results: &HashMap<Place, Finished>) -> Vec<Finished> {
    needed_places(work, step).iter().filter_map(|place| results.get(place)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_chain_weighs_most() {
        let step = |name: &str, needs: &[&str]| {
            let mut step = Step::new(name, "true");
            step.needs = needs.iter().map(|need| (*need).to_owned()).collect();
            step
        };
        let steps =
            [step("deps", &[]), step("lint", &[]), step("compile", &["deps"]), step("test", &["compile", "lint"])];
        assert_eq!(path_weights(&steps, &[1, 1, 1, 1]), [3, 2, 2, 1]);
        assert_eq!(path_weights(&steps, &[1, 90, 5, 20]), [26, 110, 25, 20], "by what they take, `lint` goes first");
    }
}
