//! Runs a build's plan: steps as soon as what they need is done, then the artifacts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kiln_planner::plan::{Step, Target};
use kiln_proto::clock;
use kiln_proto::digest::Digest;
use kiln_proto::v1::step_state::Phase;
use kiln_proto::v1::{self, Build, Status as BuildStatus, StepRef, event};
use kiln_trees::tree::Tree;
use tracing::Instrument;

use super::Work;
use super::environment;
use super::libraries::OnWorker;
use super::steps::{self, Ended, Finished, Job};
use super::waiting;
use kiln_artifacts::StepFact;
use kiln_store::Health;
use kiln_store::trees::overlay;

/// How long a build that was taken up again, or that meets a farm which has just started, waits for workers to join.
const JOINING: Duration = Duration::from_secs(30);
/// In how many environments a target is begun.
const ENVIRONMENTS: u32 = 3;
/// When an image was made of sources that have no commit: 2000-01-01, as everywhere in a build.
const UNDATED: i64 = 946_684_800;
/// How often the steps that one needs are run again because their outputs were evicted.
const HEALINGS: u32 = 2;

/// Why a build is no success.
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

/// The event that ends a build.
pub(super) fn finished(build: &Build) -> v1::BuildFinished {
    v1::BuildFinished {
        build: build.id.clone(),
        status: build.status,
        duration_ms: clock::milliseconds_between(build.started.as_ref(), build.finished.as_ref()),
        message: build.message.clone(),
    }
}

impl Work {
    /// How long its steps wait while no worker could take them, where the build has a limit of its own.
    pub(super) fn queue_timeout(&self) -> Option<Duration> {
        Duration::try_from(self.request.queue_timeout?).ok()
    }

    /// Appends an event, and keeps the build's own state in step with it.
    pub(super) fn tell(&self, event: event::Event) {
        let (reference, phase, done) = match &event {
            event::Event::StepQueued(queued) => (queued.step.clone(), Phase::Queued, None),
            event::Event::StepStarted(started) => (started.step.clone(), Phase::Running, None),
            event::Event::StepFinished(done) => {
                (done.step.clone(), if done.ok { Phase::Done } else { Phase::Failed }, Some(done.clone()))
            }
            _ => (None, Phase::Waiting, None),
        };
        if reference.is_some() {
            let mut build = self.build.lock();
            let state = v1::StepState { step: reference.clone(), phase: phase as i32, finished: done };
            match build.steps.iter_mut().find(|known| known.step == reference) {
                Some(known) => *known = state,
                None => build.steps.push(state),
            }
        }
        self.events.append(event);
    }
}

/// Runs the build to its end, whatever that is, and records it.
pub(super) async fn run(work: Work) {
    let began = Instant::now();
    tracing::info!(resumed = work.resumed, "build begins");
    let _counted = work.metrics.as_ref().map(|metrics| metrics.began());
    work.tell(event::Event::BuildStarted(started(&work)));
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
        build.finished = Some(clock::kiln_now());
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
    let (records, record) = (work.records.clone(), build.clone());
    let recorded = tokio::task::spawn_blocking(move || records.put_build(&record, "")).await;
    if !matches!(recorded, Ok(Ok(()))) {
        tracing::error!(build = build.id, ?recorded, "cannot record that a build ended");
    }
    work.events.append(event::Event::BuildFinished(finished(&build)));
}

/// Warns once where the shared cache is away while the build runs: it then takes longer, and nobody should wonder why.
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

fn started(work: &Work) -> v1::BuildStarted {
    let build = work.build.lock().clone();
    let mut planned = Vec::new();
    for target in &work.plan.targets {
        for step in &work.plan.steps {
            for shard in 0..step.shards {
                let reference = StepRef {
                    step: step.name.clone(),
                    platform: target.platform.to_string(),
                    target: target.name.clone(),
                    shard,
                    shards: step.shards,
                };
                planned.push(v1::PlannedStep {
                    step: Some(reference),
                    needs: step.needs.clone(),
                    why: step.why.clone(),
                    layer: is_layer(step, &work.plan.steps),
                });
            }
        }
    }
    v1::BuildStarted {
        build: build.id,
        project: build.project,
        version: build.version,
        steps: planned,
        resumed: work.resumed,
    }
}

/// Whether an ordinary edit of the sources leaves a step a hit: it sees some files, and fetches or serves a step that sees them all.
fn is_layer(step: &Step, steps: &[Step]) -> bool {
    let sees_some = |step: &Step| step.inputs.iter().any(|glob| !glob.starts_with('!'));
    let serves_all = steps.iter().any(|other| other.needs.contains(&step.name) && !sees_some(other));
    sees_some(step) && (step.network || serves_all)
}

/// How a target came out.
type Outcome = Result<(), Unsuccessful>;

/// Builds all targets side by side. One that does not come out well leaves the others to theirs.
async fn carry_out(work: &Work) -> Outcome {
    let targets = work.plan.targets.iter().map(|target| async move {
        let mut emulated = false;
        let outcome = build_target(work, target, &mut emulated).await;
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

/// Builds a target in one environment; in another one where the first went away with its workers meanwhile.
async fn build_target(work: &Work, target: &Target, emulated: &mut bool) -> Outcome {
    let mut left = ENVIRONMENTS;
    loop {
        let environment = Arc::new(environment_of(work, target).await?);
        *emulated = environment.emulated;
        if environment.emulated {
            let text = format!("no native worker matches target `{}`; it is built on an emulated machine", target.name);
            work.tell(event::Event::Warning(v1::Warning { text }));
        }
        for text in environment::recommendations(&environment, &work.plan.steps) {
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
            "the workers that built target `{}` came back with another system or other tools; it is built again there",
            target.name
        );
        work.tell(event::Event::Warning(v1::Warning { text }));
    }
}

async fn build_target_in(work: &Work, target: &Target, environment: &Arc<v1::Environment>) -> Outcome {
    let bases = async { work.bases.prepare(&work.plan, target).await.map_err(not_made) };
    let (steps, ()) = futures::future::try_join(all_steps(work, target, environment), bases).await?;
    make_artifacts(work, target, environment, &steps).await
}

/// Whether no worker has this environment any more, and another one would do.
async fn has_gone(work: &Work, target: &Target, environment: &v1::Environment) -> bool {
    let Ok(farm) = work.execution.farm().await else { return false };
    let fingerprints = || farm.workers.iter().filter_map(|worker| worker.environment.as_ref());
    !fingerprints().any(|other| other.fingerprint == environment.fingerprint)
        && environment::choose(&farm.workers, target, &work.plan.steps, work.allow_emulation).is_ok()
}

/// The outcome of a build of these targets: the project's fault where one target failed by it, else the farm's.
fn together(outcomes: Vec<(&Target, Outcome)>) -> Outcome {
    let several = outcomes.len() > 1;
    let (mut failed, mut well) = (Vec::new(), Vec::new());
    for (target, outcome) in outcomes {
        match outcome {
            Ok(()) => well.push(format!("`{}`", target.name)),
            Err(unsuccessful) => failed.push((&target.name, unsuccessful)),
        }
    }
    let is_projects = failed.iter().any(|(_, one)| one.status == BuildStatus::Failed);
    let status = if is_projects { BuildStatus::Failed } else { BuildStatus::FarmFailed };
    let mut words: Vec<String> = failed
        .into_iter()
        .map(|(target, one)| if several { format!("target `{target}`: {}", one.message) } else { one.message })
        .collect();
    if words.is_empty() {
        return Ok(());
    }
    if !well.is_empty() {
        words.push(format!("built well: {}", well.join(", ")));
    }
    Err(Unsuccessful { status, message: words.join("\n") })
}

/// The environment of a target. Where no worker has one, this waits: for those that are expected, as long as the build is patient; and
/// while the farm has just started, or the build was resumed, a moment for any.
async fn environment_of(work: &Work, target: &Target) -> Result<v1::Environment, Unsuccessful> {
    let now = tokio::time::Instant::now();
    let patience = work.queue_timeout().unwrap_or_else(|| work.execution.queue_timeout());
    let (until, joining) = (now + patience, if work.resumed { now } else { work.execution.began() } + JOINING);
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
                let waited = patience.as_secs();
                return Err(Unsuccessful::farms(format!("{words}; none came within {waited} s (`--queue-timeout`)")));
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
        // Who is expected changes with time, too.
        let look = until.min(now + JOINING);
        let _ = tokio::time::timeout_at(look, changed.changed()).await;
    }
}

/// Longest chain of steps that wait for each, itself included.
fn path_weights(steps: &[Step]) -> Vec<u64> {
    let mut weights = vec![1; steps.len()];
    for index in (0..steps.len()).rev() {
        for need in &steps[index].needs {
            if let Some(at) = steps.iter().position(|step| step.name == *need) {
                weights[at] = weights[at].max(weights[index] + 1);
            }
        }
    }
    weights
}

/// An action of a target: step and shard by their places in the plan.
type Place = (usize, u32);

/// What each step left, by its place in the plan.
type Done = BTreeMap<usize, Vec<Finished>>;

async fn all_steps(work: &Work, target: &Target, environment: &Arc<v1::Environment>) -> Result<Done, Unsuccessful> {
    let weights = path_weights(&work.plan.steps);
    let mut results: HashMap<Place, Finished> = HashMap::new();
    let mut waiting: Vec<Place> = Vec::new();
    for (step, planned) in work.plan.steps.iter().enumerate() {
        waiting.extend((0..planned.shards).map(|shard| (step, shard)));
    }
    let mut again: HashSet<Place> = HashSet::new();
    let mut healed: HashMap<Place, u32> = HashMap::new();
    let mut running = FuturesUnordered::new();
    loop {
        let (ready, later): (Vec<Place>, Vec<Place>) =
            waiting.into_iter().partition(|(step, _)| is_ready(work, *step, &results));
        waiting = later;
        for place in ready {
            let (step, shard) = place;
            let needed = needs(work, step, &results);
            let job = Job {
                step: work.plan.steps[step].clone(),
                target: target.clone(),
                environment: environment.clone(),
                shard,
                needed: needed.iter().map(|finished| finished.fact.name.clone()).collect(),
                needs: needed.into_iter().map(|finished| finished.outputs).collect(),
                path_weight: weights[step],
                again: again.contains(&place),
            };
            let span = job.span();
            running.push(async move { (place, steps::run(work, job).await) }.instrument(span));
        }
        let Some((place, ended)) = running.next().await else { break };
        match ended {
            Ended::Well(finished) => {
                results.insert(place, *finished);
            }
            Ended::Failed(message) => return Err(Unsuccessful::projects(message)),
            Ended::FarmFailed(message) => return Err(Unsuccessful::farms(message)),
            Ended::InputsGone(message) => {
                let times = healed.entry(place).or_default();
                *times += 1;
                let needed = needed_places(work, place.0);
                if *times > HEALINGS || needed.is_empty() {
                    let words =
                        format!("blobs of the build's inputs were evicted from the store ({message}); build again");
                    return Err(Unsuccessful::farms(words));
                }
                // What it needs runs again (results that are still whole are hits), then the step itself.
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
    let mut places: Vec<(Place, Finished)> = results.into_iter().collect();
    places.sort_by_key(|(place, _)| *place);
    for ((step, _), finished) in places {
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

async fn make_artifacts(
    work: &Work,
    target: &Target,
    environment: &Arc<v1::Environment>,
    steps: &Done,
) -> Result<(), Unsuccessful> {
    let facts: Vec<StepFact> = steps.values().flatten().map(|finished| finished.fact.clone()).collect();
    for artifact in &work.plan.artifacts {
        let outputs = outputs(work, artifact, steps).await?;
        let span = tracing::info_span!("artifact", name = artifact.name, kind = artifact.kind.name());
        let made = make(work, target, environment, artifact, &outputs, &facts).instrument(span).await?;
        work.build.lock().artifacts.push(made.clone());
        work.tell(event::Event::Artifact(made));
    }
    Ok(())
}

/// What each step of an artifact left, in the plan's order; the shards of one as one.
async fn outputs(
    work: &Work,
    artifact: &kiln_planner::plan::Artifact,
    steps: &BTreeMap<usize, Vec<Finished>>,
) -> Result<Vec<(String, Tree)>, Unsuccessful> {
    let mut found = Vec::new();
    for (index, step) in work.plan.steps.iter().enumerate().filter(|(_, step)| artifact.from.contains(&step.name)) {
        let mut tree = Tree::default();
        for finished in steps.get(&index).into_iter().flatten() {
            overlay(&*work.stores.blobs, &mut tree, finished.outputs.tree.clone())
                .await
                .map_err(Unsuccessful::farms)?;
        }
        found.push((step.name.clone(), tree));
    }
    Ok(found)
}

fn not_made(error: kiln_artifacts::Error) -> Unsuccessful {
    if error.is_projects() { Unsuccessful::projects(error.to_string()) } else { Unsuccessful::farms(error) }
}

async fn make(
    work: &Work,
    target: &Target,
    environment: &Arc<v1::Environment>,
    artifact: &kiln_planner::plan::Artifact,
    outputs: &[(String, Tree)],
    facts: &[StepFact],
) -> Result<v1::Artifact, Unsuccessful> {
    let build = work.build.lock().clone();
    let source = build.source.clone().unwrap_or_default();
    let platform = target.platform.to_string();
    let version = work.plan.version.as_deref();
    let stem = kiln_artifacts::stem(&artifact.name, version, &source, &platform);
    let origin = kiln_images::image::Origin {
        created: if source.commit_time > 0 { source.commit_time } else { UNDATED },
        revision: source.commit.clone(),
        source: source.repository.clone(),
        version: version.unwrap_or_default().to_owned(),
        ..Default::default()
    };
    let made = kiln_artifacts::assemble(&kiln_artifacts::Ingredients {
        stores: &work.stores,
        function: work.function,
        instance: build.instance.trim_matches('/'),
        artifact,
        target,
        outputs,
        stem: &stem,
        sources: &work.source.tree,
        bases: &work.bases,
        origin: &origin,
        system: &OnWorker { work, target, environment, artifact },
    })
    .await
    .map_err(not_made)?;
    for text in made.notes.clone() {
        work.tell(event::Event::Warning(v1::Warning { text }));
    }
    let id = kiln_artifacts::id(&artifact.name, version, &source, &platform, &made.content);
    if let Some(known) = work.records.artifact(&id).map_err(Unsuccessful::farms)?
        && known.root == Some(made.root.to_wire())
    {
        return Ok(known);
    }
    let mut record = v1::Artifact {
        id,
        name: artifact.name.clone(),
        version: work.plan.version.clone().unwrap_or_default(),
        platform,
        target: target.name.clone(),
        kind: artifact.kind.name().to_owned(),
        root: Some(made.root.to_wire()),
        digest_function: v1_function(work),
        digest: Some(made.content.to_wire()),
        size_bytes: made.size_bytes,
        provenance: None,
        created: Some(clock::kiln_now()),
        build: build.id.clone(),
        commit: source.commit.clone(),
        dirty: source.dirty,
        instance: build.instance.clone(),
        emulated: environment.emulated,
        sbom: None,
        checksums: None,
        start: made.start.program.clone(),
        start_with: made.start.with.clone(),
    };
    let statement = kiln_artifacts::statement(&build, &record, environment, &made, facts);
    let statement = serde_json::to_vec_pretty(&statement).map_err(Unsuccessful::farms)?;
    record.provenance = Some(put_beside(work, statement).await?);
    for blob in &made.blobs {
        keep(work, blob).await.map_err(Unsuccessful::farms)?;
    }
    let sbom = kiln_artifacts::sbom(&record, &work.source.planned, &made.wants);
    record.sbom = Some(put_beside(work, serde_json::to_vec_pretty(&sbom).map_err(Unsuccessful::farms)?).await?);
    if let Some(lines) = made.checksums {
        record.checksums = Some(put_beside(work, lines.into_bytes()).await?);
    }
    let records = work.records.clone();
    let put = tokio::task::spawn_blocking(move || records.put_artifact(record)).await.map_err(Unsuccessful::farms)?;
    put.map_err(|error| match error {
        super::RecordsError::Conflict { .. } => Unsuccessful::projects(error.to_string()),
        other => Unsuccessful::farms(other),
    })
}

/// Puts what is said about an artifact to where nothing is evicted.
async fn put_beside(work: &Work, data: Vec<u8>) -> Result<kiln_proto::reapi::Digest, Unsuccessful> {
    let digest = work.function.digest(&data);
    work.stores.artifacts.put(&digest, data.into()).await.map_err(Unsuccessful::farms)?;
    Ok(digest.to_wire())
}

fn v1_function(work: &Work) -> i32 {
    work.function.to_wire()
}

/// Copies a blob to where nothing is evicted.
async fn keep(work: &Work, blob: &Digest) -> Result<(), kiln_store::Error> {
    if work.stores.artifacts.find_missing(&[*blob]).await?.is_empty() {
        return Ok(());
    }
    kiln_store::copy(&*work.stores.blobs, &*work.stores.artifacts, blob).await
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
        assert_eq!(path_weights(&steps), [3, 2, 2, 1]);
    }
}
