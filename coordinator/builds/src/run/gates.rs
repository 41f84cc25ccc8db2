//! Gates: an artifact is made, and what it must pass runs before it is stored under its id.
//!
//! Invariants: all gates of an artifact run, and all that fail are told of; an artifact that fails one is neither stored nor announced. A gate
//! sees nothing of the build, its commit or the time unless it asks for the provenance, so that it is a hit as long as the artifact is the same.

use std::time::Instant;

use futures::future::join_all;
use kiln_artifacts::{CheckError, InImage, Made, Shown};
use kiln_gates::{TEST_RESULT, VULNERABILITIES};
use kiln_planner::plan::gates::{Check, Command, Gate, Place, Predicate};
use kiln_proto::clock;
use kiln_proto::digest::Digest;
use kiln_proto::v1::step_finished::Cache;
use kiln_proto::v1::{self, Status as BuildStatus, event};
use kiln_roots::Roots;
use kiln_store::recipes::Recipes;
use kiln_store::trees;
use kiln_trees::tree::Entry;
use prost::Message;
use serde_json::{Value, json};

use super::{Unsuccessful, Work, attest};
use crate::in_root;
use crate::libraries::OnWorker;
use crate::lower::{Lowering, Outputs};
use crate::rooted;
use crate::step_log::StepLog;
use crate::steps::{self, Ended, Finished, Job};

/// Where the checks of the farm itself run.
const COORDINATOR: &str = "coordinator";
/// Largest report, in bytes.
const MAX_REPORT_BYTES: u64 = 16 << 20;

/// What a gate is shown.
pub(super) struct Subject<'a> {
    pub(super) on: &'a OnWorker<'a>,
    pub(super) made: &'a Made,
    /// The bill of materials, without what changes with each commit.
    pub(super) sbom: &'a [u8],
    pub(super) provenance: &'a Value,
}

/// What an artifact has passed, with the statement about each.
#[derive(Debug, Default)]
pub(super) struct Passed {
    results: Vec<v1::GateResult>,
    statements: Vec<Value>,
}

impl Passed {
    /// States what it has passed.
    pub(super) async fn stated(self, work: &Work) -> Result<(Vec<v1::GateResult>, Vec<v1::Attestation>), Unsuccessful> {
        let mut attestations = Vec::new();
        for (result, statement) in self.results.iter().zip(&self.statements) {
            attestations.push(attest::put_statement(work, &format!("gate-{}", result.name), statement).await?);
        }
        Ok((self.results, attestations))
    }

    /// Adds what an artifact has passed that was there before; what it has passed then counts as well.
    pub(super) async fn add_to(self, work: &Work, known: v1::Artifact) -> Result<v1::Artifact, Unsuccessful> {
        let facts = |gate: &v1::GateResult| (gate.name.clone(), gate.warned, gate.message.clone());
        let is_new = |gate: &v1::GateResult| !known.gates.iter().any(|other| facts(other) == facts(gate));
        if !self.results.iter().any(is_new) {
            return Ok(known);
        }
        let (results, attestations) = self.stated(work).await?;
        work.records.add_statements(&known.id, results, attestations).await.map_err(Unsuccessful::farms)
    }
}

/// How a gate ended: what it found, and the predicate of that.
pub(super) struct Found {
    pub(super) warned: bool,
    pub(super) cached: bool,
    pub(super) message: String,
    pub(super) predicate: Value,
}

/// A gate that did not pass.
pub(super) struct Failed {
    pub(super) status: BuildStatus,
    pub(super) words: String,
}

impl Failed {
    pub(super) fn projects(words: impl Into<String>) -> Self {
        Self { status: BuildStatus::Failed, words: words.into() }
    }

    pub(super) fn farms(error: impl std::fmt::Display) -> Self {
        Self { status: BuildStatus::FarmFailed, words: error.to_string() }
    }
}

impl From<kiln_artifacts::Error> for Failed {
    fn from(error: kiln_artifacts::Error) -> Self {
        if error.is_project_fault() { Self::projects(error.to_string()) } else { Self::farms(error) }
    }
}

/// The gates of an artifact.
pub(super) fn of<'a>(work: &'a Work, artifact: &str) -> Vec<&'a Gate> {
    work.plan.gates.iter().filter(|gate| gate.is_for(artifact)).collect()
}

/// Runs all gates of an artifact.
pub(super) async fn pass(subject: &Subject<'_>, gates: &[&Gate]) -> Result<Passed, Unsuccessful> {
    let ended = join_all(gates.iter().map(|gate| one(subject, gate))).await;
    let (mut passed, mut failed) = (Passed::default(), Vec::new());
    for ended in ended {
        match ended {
            Ok((result, predicate)) => {
                let about = kiln_artifacts::about(&subject.made.subjects, &result.predicate_type, predicate);
                passed.statements.push(about);
                passed.results.push(result);
            }
            Err(why) => failed.push(why),
        }
    }
    // What is the project's fault stays that, whatever the farm's is.
    let status = failed.iter().map(|failed| failed.status).min_by_key(|status| *status != BuildStatus::Failed);
    match status {
        None => Ok(passed),
        Some(status) => {
            let message = failed.into_iter().map(|failed| failed.words).collect::<Vec<_>>().join("; ");
            Err(Unsuccessful { status, message })
        }
    }
}

/// Runs one gate, and tells how it ended.
async fn one(subject: &Subject<'_>, gate: &Gate) -> Result<(v1::GateResult, Value), Failed> {
    let (on, began) = (subject.on, Instant::now());
    let found = match &gate.check {
        Check::Command(command) => by_command(subject, gate, command).await,
        _ => by_farm(subject, gate).await,
    };
    let mut result = v1::GateResult {
        name: gate.name.clone(),
        artifact: on.artifact.name.clone(),
        target: on.target.name.clone(),
        platform: on.target.platform.to_string(),
        duration_ms: began.elapsed().as_millis() as u64,
        ..v1::GateResult::default()
    };
    let ended = match found {
        Ok(found) => {
            result.passed = true;
            (result.warned, result.cached, result.message) = (found.warned, found.cached, found.message);
            let is_scan = found.predicate.get("scanner").is_some();
            result.predicate_type = if is_scan { VULNERABILITIES } else { TEST_RESULT }.to_owned();
            Ok((result.clone(), found.predicate))
        }
        Err(failed) => {
            let own = [format!("step `{}`: ", name(subject, gate)), format!("step `{}` ", name(subject, gate))];
            let words = own.iter().find_map(|own| failed.words.strip_prefix(own)).unwrap_or(&failed.words);
            result.message = words.to_owned();
            let words = format!("gate `{}` of artifact `{}`: {words}", gate.name, on.artifact.name);
            Err(Failed { words, ..failed })
        }
    };
    on.work.tell(event::Event::GateFinished(result));
    ended
}

fn name(subject: &Subject<'_>, gate: &Gate) -> String {
    gate.shown(&subject.on.artifact.name, &subject.on.work.plan.artifacts)
}

/// A check that the farm makes itself. It is told of as a step that the coordinator runs.
async fn by_farm(subject: &Subject<'_>, gate: &Gate) -> Result<Found, Failed> {
    let work = subject.on.work;
    let target = subject.on.target;
    let reference = v1::StepRef {
        step: name(subject, gate),
        platform: target.platform.to_string(),
        target: target.name.clone(),
        shard: 0,
        shards: 1,
    };
    let (step, began, started) = (Some(reference.clone()), Instant::now(), clock::now());
    work.tell(event::Event::StepQueued(v1::StepQueued { step: step.clone() }));
    let started_event = v1::StepStarted { step: step.clone(), worker: COORDINATOR.to_owned(), expected_ms: 0 };
    work.tell(event::Event::StepStarted(started_event));
    let instance = work.request.instance.trim_matches('/');
    let checking = kiln_artifacts::Checking {
        recipes: Recipes { stores: &work.stores, instance, function: work.function },
        artifact: &subject.on.artifact.name,
        size_bytes: subject.made.size_bytes,
        sbom: subject.sbom,
        sources: &work.source.tree,
        may_reuse: !work.request.no_cache,
    };
    let checked = checking.check(&gate.check).await;
    let (failure, cached) = match &checked {
        Ok(checked) => (checked.failure.clone(), checked.cached),
        Err(error) => (Some(error.to_string()), false),
    };
    let mut log = StepLog::new(work, reference);
    log.push(v1::Stream::Stdout, checked.as_ref().map(|checked| checked.text.clone()).unwrap_or_default().into(), 0);
    log.end();
    work.tell(event::Event::StepFinished(v1::StepFinished {
        step,
        cache: if cached { Cache::Hit } else { Cache::Miss } as i32,
        exit_code: i32::from(failure.is_some()),
        duration_ms: began.elapsed().as_millis() as u64,
        worker: COORDINATOR.to_owned(),
        message: failure.clone().unwrap_or_default(),
        ok: failure.is_none(),
        ..v1::StepFinished::default()
    }));
    let checked = checked.map_err(|error| match error {
        CheckError::Invalid(words) => Failed::projects(words),
        CheckError::Store(error) => Failed::farms(error),
    })?;
    if let Some(words) = failure {
        return Err(Failed::projects(words));
    }
    let times = json!({ "scanStartedOn": clock::rfc3339(&started), "scanFinishedOn": clock::rfc3339(&clock::now()) });
    let predicate = match &checked.scanner {
        Some(scanner) => json!({ "scanner": scanner, "metadata": times }),
        None => kiln_gates::test_result(&gate.name, &kiln_artifacts::definition(gate), checked.warned, &[]),
    };
    Ok(Found { warned: checked.warned, cached, message: checked.summary(), predicate })
}

/// Runs a gate's command, as a step of the artifact.
async fn by_command(subject: &Subject<'_>, gate: &Gate, command: &Command) -> Result<Found, Failed> {
    let work = subject.on.work;
    let provenance = match kiln_artifacts::asks_for_provenance(command) {
        true => Some(put(work, kiln_artifacts::stable_provenance(subject.provenance.clone())).await?),
        false => None,
    };
    let shown = Shown { sbom: put(work, subject.sbom.to_vec()).await?, provenance, inputs: None };
    let mut job = match command.place {
        Place::Beside => beside(subject, command, shown).await?,
        Place::Inside | Place::Started { .. } => in_image(subject, gate, command, shown).await?,
    };
    job.step.name = name(subject, gate);
    let (span, rooted) = (job.span(), job.rooted.clone());
    let finished = match tracing::Instrument::instrument(steps::run(work, job), span).await {
        Ended::Succeeded(finished) => finished,
        Ended::Failed(words) => return Err(Failed::projects(words)),
        Ended::FarmFailed(words) | Ended::InputsGone(words) => return Err(Failed::farms(words)),
    };
    let predicate = match (command.predicate, &command.report) {
        (Predicate::Vulnerabilities, Some(path)) => {
            let data = report(work, &finished, rooted.as_deref(), path).await?;
            let wrong = |reason| Failed::projects(format!("its report `{path}` is no predicate: {reason}"));
            kiln_gates::read_report(&data).map_err(wrong)?
        }
        _ => {
            kiln_gates::test_result(&gate.name, &kiln_artifacts::definition(gate), false, &tests(work, &finished).await)
        }
    };
    Ok(Found { warned: false, cached: finished.fact.cached, message: String::new(), predicate })
}

async fn put(work: &Work, data: Vec<u8>) -> Result<Digest, Failed> {
    let digest = work.function.digest(&data);
    work.stores.blobs.put(&digest, data.into()).await.map_err(Failed::farms)?;
    Ok(digest)
}

/// A command with the artifact among its inputs.
async fn beside(subject: &Subject<'_>, command: &Command, shown: Shown) -> Result<Job, Failed> {
    let on = subject.on;
    let target = on.target.platform;
    let (step, tree) = kiln_artifacts::beside(command, on.artifact, target, subject.made, shown);
    let platform = step.platform.unwrap_or(target);
    let job = on.job_on(step, None, platform).await.map_err(Failed::farms)?;
    Ok(Job { needed: on.artifact.from.clone(), needs: vec![Outputs { tree }], shown: target, ..job })
}

/// A command in the image, or beside it while it runs.
async fn in_image(subject: &Subject<'_>, gate: &Gate, command: &Command, shown: Shown) -> Result<Job, Failed> {
    let (on, work) = (subject.on, subject.on.work);
    let platform = on.target.platform;
    let roots = Roots::new(work.stores.clone(), work.request.instance.trim_matches('/'), work.function);
    let lowering = Lowering { source: &work.source, store: &*work.stores.blobs, function: work.function };
    let inputs = match &command.step.inputs[..] {
        [nothing, ..] if nothing == "!**" && command.step.files.is_empty() => None,
        _ => {
            let tree = lowering.own_inputs(&command.step).await.map_err(Failed::farms)?;
            Some(trees::store_tree(&*work.stores.blobs, work.function, &tree).await.map_err(Failed::farms)?)
        }
    };
    let mut step = command.step.clone();
    (step.inputs, step.files, step.working_directory) = (vec!["!**".to_owned()], Default::default(), None);
    let image = step.image.take();
    let job = on.job_on(step, None, platform).await.map_err(Failed::farms)?;
    let other = match &image {
        None => None,
        Some(image) => Some(in_root::root(work, &job, image).await.map_err(|refused| Failed {
            status: if refused.is_project_fault { BuildStatus::Failed } else { BuildStatus::FarmFailed },
            words: refused.words,
        })?),
    };
    let shown = Shown { inputs, ..shown };
    let (stores, bases, artifact, made) = (&work.stores, &work.bases, on.artifact, subject.made);
    let given = InImage { stores, bases, roots: &roots, artifact, made, platform, shown };
    let other = other.as_ref().map(|root| (root.tree, root.times, &root.env));
    let rooted = given.command(&gate.name, command, other).await?;
    Ok(Job { rooted: Some(std::sync::Arc::new(rooted)), ..job })
}

/// What a command wrote as its report: to its output, or to a file of its root.
async fn report(
    work: &Work,
    finished: &Finished,
    rooted: Option<&kiln_artifacts::Command>,
    path: &str,
) -> Result<Vec<u8>, Failed> {
    let found = match rooted {
        None => match finished.outputs.tree.get(path.trim_start_matches("./")) {
            Some(Entry::File { digest, .. }) if digest.size <= MAX_REPORT_BYTES => {
                Some(work.stores.blobs.get(digest).await.map_err(Failed::farms)?)
            }
            _ => None,
        },
        Some(command) => {
            let left = rooted::left(&finished.outputs).ok_or_else(|| Failed::farms("the worker reported no layer"))?;
            let roots = Roots::new(work.stores.clone(), work.request.instance.trim_matches('/'), work.function);
            let files = kiln_roots::Files { root: left.layer, times: Default::default() };
            let path = kiln_artifacts::report_path(command, path);
            roots.content(&files, &path, MAX_REPORT_BYTES).await.map_err(Failed::farms)?
        }
    };
    let absent = || Failed::projects(format!("it succeeded but did not write its report `{path}`; check `report`"));
    found.map(|data| data.to_vec()).ok_or_else(absent)
}

/// The tests that its report names as passed.
async fn tests(work: &Work, finished: &Finished) -> Vec<String> {
    let Some(digest) = finished.tests else { return Vec::new() };
    let read = work.stores.blobs.get(&digest).await.ok().and_then(|data| v1::TestReport::decode(data).ok());
    let tests = read.unwrap_or_default().tests.into_iter();
    let passed = tests.filter(|test| test.outcome() == v1::test_case::Outcome::Passed);
    passed.map(|test| [test.suite, test.name].join(" ").trim().to_owned()).collect()
}
