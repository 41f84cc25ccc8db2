//! Runs one action of a build, from its inputs to its outcome: lower, execute, follow.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use kiln_planner::plan::{Platform, Step, Target};
use kiln_proto::digest::Digest;
use kiln_proto::v1::step_finished::Cache;
use kiln_proto::v1::{self, StepRef, event};
use kiln_proto::{precondition, reapi, usage};
use tonic::{Code, Status};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::Work;
use super::caches::Owner;
use super::images;
use super::in_root::Root;
use super::layer::{self, HitBefore};
use super::lower::{self, Lowered, Lowering, Outputs};
use super::remarks;
use super::reports;
use super::retries;
use super::shards::{self, Shares};
use super::step_log::StepLog;
use kiln_artifacts::StepFact;
use kiln_execution::{Attached, Done, Known, Request, Update};

/// Bytes of a failed command's output that are searched for its first error.
const SCANNED_BYTES: u64 = 16 << 20;

/// How an action of a build ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It produced all its outputs.
    Succeeded(Box<Finished>),
    /// Its inputs were evicted while it ran; the steps that made them must run again.
    InputsGone(String),
    /// The project's fault, with the reason.
    Failed(String),
    /// The farm's fault, with the reason.
    FarmFailed(String),
}

/// A finished action.
#[derive(Debug, Clone)]
pub(super) struct Finished {
    pub(super) outputs: Outputs,
    pub(super) fact: StepFact,
    /// The report of its tests.
    pub(super) tests: Option<Digest>,
}

/// What is run, and for which target.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) step: Step,
    pub(super) target: Target,
    /// The platform under which it is told of: that of the target that it builds for, even if it runs on another one.
    pub(super) shown: Platform,
    pub(super) environment: Arc<v1::Environment>,
    pub(super) shard: u32,
    /// The steps (and shards) that it needs, with what each produced.
    pub(super) needed: Vec<String>,
    pub(super) needs: Vec<Outputs>,
    pub(super) path_weight: u64,
    /// What it took before.
    pub(super) history: v1::StepHistory,
    /// Which tests each of its shards has; `None` if its command is to run as it is.
    pub(super) shares: Option<Arc<Shares>>,
    /// What it reserves, because it was stopped with less.
    pub(super) memory_bytes: Option<u64>,
    /// Run it even if its result is cached.
    pub(super) again: bool,
    /// The command of a Dockerfile that it is, if it is one.
    pub(super) rooted: Option<Arc<kiln_artifacts::Command>>,
    /// The file system that it runs in, if it is an image's.
    pub(super) root: Option<Arc<Root>>,
}

impl Job {
    /// The span of everything that is done for it.
    pub(super) fn span(&self) -> Span {
        let (step, platform) = (&self.step.name, self.shown);
        tracing::info_span!(
            "step", step, %platform, target = self.target.name, shard = self.shard, action = Empty, cache = Empty, ok = Empty
        )
    }

    pub(super) fn reference(&self) -> StepRef {
        StepRef {
            step: self.step.name.clone(),
            platform: self.shown.to_string(),
            target: self.target.name.clone(),
            shard: self.shard,
            shards: self.step.shards,
        }
    }
}

/// Runs one action of the build and reports its events.
///
/// A cached result that lacks an output of the step is not used: the step runs.
pub(super) async fn run(work: &Work, mut job: Job) -> Ended {
    let began = Instant::now();
    loop {
        match attempt(work, &job, began).await {
            Attempt::Ended(ended) => return ended,
            Attempt::Unbelievable if job.again => {
                let words = "the farm answered from its cache although the request forbade it";
                return Ended::FarmFailed(words.into());
            }
            Attempt::Unbelievable => job.again = true,
            Attempt::NeedsMemory(bytes) => job.memory_bytes = Some(bytes),
        }
    }
}

enum Attempt {
    Ended(Ended),
    /// The cached result lacks outputs.
    Unbelievable,
    /// It was stopped with less memory than this, and may have as much.
    NeedsMemory(u64),
}

async fn attempt(work: &Work, job: &Job, began: Instant) -> Attempt {
    let mut ran = match ran(work, job).await {
        Ok(ran) => ran,
        Err(ended) => return Attempt::Ended(ended),
    };
    let (asked, job) = (job, &ran.job.clone());
    let lacks_outputs = || {
        let result = ran.done.response.result.clone().unwrap_or_default();
        Outputs::of(work.function, &result).is_ok_and(|outputs| !outputs.absent(&job.step.outputs).is_empty())
    };
    if ran.done.response.cached_result && !job.again && lacks_outputs() {
        return Attempt::Unbelievable;
    }
    if let Some(bytes) = needs_memory(work, job, &ran.done, ran.reserved).await {
        return Attempt::NeedsMemory(bytes);
    }
    learn(work, job, &ran.done, ran.merged).await;
    let hit_before = std::mem::replace(&mut ran.hit_before, HitBefore::unasked());
    let hit_before = hit_before.answer().await && !ran.merged;
    remarks::tell(work, job, ran.done.response.result.as_ref()).await;
    let mut tests = reports::of(work, job, ran.done.response.result.as_ref()).await;
    if let Some(told) = &mut tests {
        reports::flaky(work, &ran.lowered.digest, &mut told.tests, ran.done.response.cached_result).await;
        if let Err(ended) = retries::run(work, asked, &mut ran, told).await {
            return Attempt::Ended(ended);
        }
    }
    let tests = match tests {
        Some(told) => Some(reports::summary(work, told).await),
        None => None,
    };
    work.ran(job, &ran);
    let error = first_error(work, &ran.done).await;
    let lowered = (ran.lowered, &*ran.known, tests);
    Attempt::Ended(finish(work, job, lowered, &ran.done, error, ran.merged, hit_before, began))
}

/// A run of an action, or its result from the cache.
pub(super) struct Ran {
    /// The job, with its image resolved.
    pub(super) job: Job,
    pub(super) lowered: Lowered,
    pub(super) known: Arc<Known>,
    pub(super) done: Done,
    merged: bool,
    hit_before: HitBefore,
    /// The memory that it reserved, if that was not what the step says.
    reserved: Option<u64>,
}

/// Runs an action and reports what happens until it has ended.
pub(super) async fn ran(work: &Work, job: &Job) -> Result<Ran, Ended> {
    work.tell(event::Event::StepQueued(v1::StepQueued { step: Some(job.reference()) }));
    let job = images::fix(work, &shards::divided(retries::by_runner(job.clone()))).await?;
    let (lowered, known) = lower(work, &job).await?;
    if !job.step.caches.is_empty() && known.caches.is_empty() {
        let text = format!(
            "step `{}` runs in a container of a Docker Engine, where its caches are not kept; `--executor sandbox` keeps them",
            job.step.name
        );
        work.tell(event::Event::Warning(v1::Warning { text }));
    }
    let reserved = reserved(work, &job).await;
    let known = match reserved {
        Some(bytes) => Arc::new(Known { memory_bytes: Some(bytes), ..Known::clone(&known) }),
        None => known,
    };
    Span::current().record("action", tracing::field::display(lowered.digest));
    let place = work.waits.begin(&job);
    let attached = start(work, &job, lowered.digest, known.clone()).await;
    let mut attached = attached.map_err(|status| {
        let detailed = precondition::from_tonic(&status);
        if !precondition::subjects(&detailed).is_empty() {
            return Ended::InputsGone(status.message().to_owned());
        }
        match status.code() {
            Code::InvalidArgument => Ended::Failed(status.message().to_owned()),
            _ => Ended::FarmFailed(status.message().to_owned()),
        }
    })?;
    let mut hit_before = HitBefore::unasked();
    let mut log = StepLog::new(work, job.reference());
    let mut next = 0;
    let done = loop {
        match attached.next().await {
            Update::Queued => place.queued(attached.waiter()),
            Update::Executing { worker, .. } => {
                place.runs();
                hit_before = HitBefore::ask(work, &job);
                next = 0;
                work.tell(event::Event::StepStarted(v1::StepStarted {
                    step: Some(job.reference()),
                    worker,
                    expected_ms: job.history.duration_ms,
                }));
            }
            Update::Output { stream, data, skipped } => {
                log.push(stream, data, skipped);
                work.events.room().await;
            }
            Update::Calls(calls) => {
                work.tell(event::Event::StepCalls(v1::StepCalls { step: Some(job.reference()), calls: Some(*calls) }));
            }
            Update::Usage(used) => {
                // As often as workers that keep to the rules say it, or a worker could fill the journal.
                if used.run_ms >= next {
                    next = used.run_ms.saturating_add(usage::pause(used.run_ms).as_millis() as u64 / 2);
                    let step = Some(job.reference());
                    work.tell(event::Event::StepUsage(v1::StepUsage { step, usage: Some(used) }));
                }
            }
            Update::Done(done) => break Done::clone(&done),
        }
    };
    log.end();
    let merged = attached.merged;
    drop(place);
    Ok(Ran { job, lowered, known, done, merged, hit_before, reserved })
}

/// The action of a job, with its messages stored.
async fn lower(work: &Work, job: &Job) -> Result<(Lowered, Arc<Known>), Ended> {
    let lowering = Lowering { source: &work.source, store: &*work.stores.blobs, function: work.function };
    let keyed = job.rooted.as_ref().map_or(&[][..], |command| command.keyed.as_slice());
    let keys = work.secrets.keys(&job.step, keyed, |secret| work.execution.secret_key(secret)).await;
    let Some(keys) = keys else {
        let lost = "the values of its secrets were lost when the coordinator restarted; run `kiln build` again";
        return Err(Ended::FarmFailed(format!("step `{}`: {lost}", job.step.name)));
    };
    let project = work.build.lock().project.clone();
    let owner = Owner { project: &project, scope: &work.request.scope };
    let lower = async {
        match (&job.rooted, &job.root) {
            (Some(command), _) => {
                lowering.rooted(command, &job.step, (owner, &job.target), &job.environment, &keys).await
            }
            (None, Some(root)) => lowering.in_root(job, root, owner).await,
            (None, None) => {
                let (step, environment) = (&job.step, &job.environment);
                lowering.action(step, &job.target, environment, job.shard, &job.needs, owner).await
            }
        }
    };
    let lowered = lower.instrument(tracing::info_span!("lower")).await.map_err(lowering_failed)?;
    let (lowered, known) = apart(work, job, &lowering, lowered.0, lowered.1).await.map_err(lowering_failed)?;
    retries::or_merged(work, job, &lowering, lowered, known).await.map_err(lowering_failed)
}

/// What a step reserves other than what it says; no more than what the largest worker has.
async fn reserved(work: &Work, job: &Job) -> Option<u64> {
    if !job.step.memory_auto {
        return None;
    }
    let learned = job.memory_bytes.or_else(|| kiln_histories::reservation(&job.history))?;
    Some(largest(work).await.map_or(learned, |largest| learned.min(largest)))
}

/// The memory of the largest worker.
async fn largest(work: &Work) -> Option<u64> {
    let workers = work.execution.farm().await.ok()?.workers;
    let capacities = workers.iter().filter(|worker| worker.connected).filter_map(|worker| worker.capacity.as_ref());
    capacities.map(|all| all.memory_bytes).max()
}

/// How much memory to run a step again with that had too little, if Kiln decides how much it has, and a worker has more.
async fn needs_memory(work: &Work, job: &Job, done: &Done, reserved: Option<u64>) -> Option<u64> {
    let metadata = done.response.result.as_ref()?.execution_metadata.as_ref()?;
    let is_out = usage::of(metadata).is_some_and(|usage| usage.out_of_memory);
    if !job.step.memory_auto || !is_out {
        return None;
    }
    let had = reserved.unwrap_or(job.step.memory_bytes);
    let more = kiln_histories::after_too_little(had, largest(work).await?)?;
    let text = format!(
        "step `{}` used more than {} MiB of memory; it runs again with {} MiB",
        job.step.name,
        had >> 20,
        more >> 20
    );
    work.tell(event::Event::Warning(v1::Warning { text }));
    Some(more)
}

/// Remembers what a step took that ran and succeeded.
async fn learn(work: &Work, job: &Job, done: &Done, merged: bool) {
    let Some(result) = done.response.result.as_ref().filter(|result| result.exit_code == 0) else { return };
    if done.response.cached_result || merged || job.rooted.is_some() {
        return;
    }
    let metadata = result.execution_metadata.clone().unwrap_or_default();
    let took = metadata.virtual_execution_duration.as_ref().and_then(kiln_proto::clock::read_duration);
    let Some(took) = took else { return };
    let peak_bytes = usage::of(&metadata).unwrap_or_default().peak_memory_bytes;
    let project = work.build.lock().project.clone();
    let planned = work.plan.steps.iter().find(|step| step.name == job.step.name);
    let Some(planned) = planned else { return };
    let kind = kiln_histories::kind(planned, &job.target.platform.to_string(), work.source.paths().len());
    work.histories.ran(work.request.instance.trim_matches('/'), &project, &kind, took, peak_bytes).await;
}

/// The action as it is run. What a step with caches makes in a branch scope may come from what that branch left in them, so it is a result of the
/// branch alone: unless everyone has one, the action is another one.
async fn apart(
    work: &Work,
    job: &Job,
    lowering: &Lowering<'_>,
    lowered: Lowered,
    known: Arc<Known>,
) -> Result<(Lowered, Arc<Known>), lower::Error> {
    let (scope, instance) = (&work.request.scope, work.request.instance.trim_matches('/'));
    if scope.is_empty() || known.caches.is_empty() {
        return Ok((lowered, known));
    }
    let asks = !work.request.no_cache && !job.again && job.step.cache;
    if asks && work.stores.actions.get(instance, &lowered.digest).await?.is_some() {
        return Ok((lowered, known));
    }
    lowering.salted(lowered, &known, scope.as_bytes()).await
}

/// Starts the action. If it needs secrets that were lost when the coordinator restarted, and its result is not cached,
/// this waits until the client that follows the build has sent them again.
async fn start(work: &Work, job: &Job, action: Digest, known: Arc<Known>) -> Result<Attached, Status> {
    let build = work.build.lock().clone();
    loop {
        let lost = work.secrets.missing(&job.step).map(str::to_owned);
        let request = Request {
            instance: work.request.instance.trim_matches('/').to_owned(),
            action_digest: action,
            skip_cache_lookup: work.request.no_cache || job.again,
            priority: work.request.priority,
            share: build.user.clone(),
            build: build.id.clone(),
            path_weight: job.path_weight,
            secrets: work.secrets.of(&job.step),
            agents: Some(work.agents.clone()),
            shell: None,
            queue_timeout: work.queue_timeout(),
            known: Some(known.clone()),
        };
        let answer = work.execution.execute(request).await;
        let (Some(lost), Err(status)) = (lost, &answer) else { return answer };
        if status.code() != Code::FailedPrecondition
            || !precondition::subjects(&precondition::from_tonic(status)).is_empty()
        {
            return answer;
        }
        let again = format!(
            "step `{}` needs the secret `{lost}`, which the farm kept in memory only and lost when its coordinator restarted",
            job.step.name
        );
        let text = format!("{again}; the `kiln build` that follows sends it again");
        work.tell(event::Event::Warning(v1::Warning { text }));
        if !work.secrets.given_again(&job.step).await {
            return Err(Status::unavailable(format!("{again}; run `kiln build` again")));
        }
    }
}

fn lowering_failed(error: lower::Error) -> Ended {
    match error {
        lower::Error::Store(kiln_store::Error::NotFound { .. })
        | lower::Error::Source(kiln_store::trees::Error::Store(kiln_store::Error::NotFound { .. })) => {
            Ended::InputsGone(error.to_string())
        }
        lower::Error::Tree { .. } => Ended::Failed(error.to_string()),
        other => Ended::FarmFailed(other.to_string()),
    }
}

/// The first error that a failed command printed.
async fn first_error(work: &Work, done: &Done) -> Vec<String> {
    let Some(result) = &done.response.result else { return Vec::new() };
    if result.exit_code == 0 {
        return Vec::new();
    }
    let stderr = output(work, result.stderr_digest.as_ref(), &result.stderr_raw).await;
    let stdout = output(work, result.stdout_digest.as_ref(), &result.stdout_raw).await;
    kiln_failures::first_error(&stderr, &stdout)
}

/// The beginning of an output, where the first error is, if the store still has it.
async fn output(work: &Work, digest: Option<&reapi::Digest>, raw: &[u8]) -> String {
    let read = async {
        let digest = Digest::required(work.function, digest).ok()?;
        let mut pieces = work.stores.blobs.read(&digest, 0, Some(SCANNED_BYTES)).await.ok()?;
        let mut data = Vec::new();
        while let Some(piece) = pieces.next().await {
            data.extend_from_slice(&piece.ok()?);
        }
        Some(data)
    };
    let data = if raw.is_empty() { read.await.unwrap_or_default() } else { raw.to_vec() };
    String::from_utf8_lossy(&data).into_owned()
}

#[allow(clippy::too_many_arguments)]
fn finish(
    work: &Work,
    job: &Job,
    (lowered, known, tests): (Lowered, &Known, Option<v1::TestSummary>),
    done: &Done,
    error: Vec<String>,
    merged: bool,
    hit_before: bool,
    began: Instant,
) -> Ended {
    let (response, action) = (&done.response, lowered.digest);
    let result = response.result.clone().unwrap_or_default();
    let metadata = result.execution_metadata.clone().unwrap_or_default();
    let status = response.status.as_ref().filter(|status| status.code != 0);
    if let Some(status) = status
        && !precondition::subjects(status).is_empty()
    {
        return Ended::InputsGone(status.message.clone());
    }
    let outputs = Outputs::of(work.function, &result);
    let report = tests.as_ref().and_then(|tests| tests.report.as_ref());
    let report = report.and_then(|report| Digest::from_wire(work.function, report).ok());
    let message = why_not(job, response, status, &outputs, &error);
    let cache = match (response.cached_result, merged) {
        (true, _) => Cache::Hit,
        (_, true) => Cache::Merged,
        _ => Cache::Miss,
    };
    let digest = |wire: &Option<reapi::Digest>| wire.clone().filter(|digest| digest.size_bytes > 0);
    let span = Span::current();
    span.record("cache", cache.as_str_name()).record("ok", message.is_none());
    work.tell(event::Event::StepFinished(v1::StepFinished {
        step: Some(job.reference()),
        cache: cache as i32,
        exit_code: result.exit_code,
        duration_ms: began.elapsed().as_millis() as u64,
        worker: metadata.worker.clone(),
        action_digest: Some(action.to_wire()),
        stdout_digest: digest(&result.stdout_digest),
        stderr_digest: digest(&result.stderr_digest),
        message: message.clone().unwrap_or_default(),
        output_bytes: output_bytes(&result),
        ok: message.is_none(),
        environment: job.step.image.clone().unwrap_or_else(|| job.environment.fingerprint.clone()),
        emulated: job.environment.emulated,
        hit_before,
        first_error: error,
        no_exit_code: response.result.is_none() || status.is_some(),
        calls: kiln_proto::calls::of(&metadata).filter(|_| cache != Cache::Hit),
        timing: Some(timing(&metadata)).filter(|_| cache == Cache::Miss),
        times: known.times.map(|times| times.to_wire()),
        tests,
        usage: usage::of(&metadata).filter(|_| cache == Cache::Miss),
        caches: known.caches.clone(),
        hosts: known.hosts.clone(),
    }));
    layer::record(work, job, layer::End { lowered, cache, ok: message.is_none(), result: result.clone() });
    match (message, outputs) {
        (None, Ok(outputs)) => {
            let name = match job.step.shards {
                1 => job.step.name.clone(),
                shards => format!("{} {}/{shards}", job.step.name, job.shard + 1),
            };
            let fact = StepFact {
                name,
                action,
                cached: response.cached_result,
                worker: metadata.worker.clone(),
                run: job.step.run.clone(),
                network: job.step.network,
                secrets: job.step.secrets.clone(),
                image: job.step.image.clone(),
                writer: kiln_proto::made::writer(&metadata),
                recorded: kiln_proto::made::recorded(&metadata).map(kiln_proto::clock::timestamp),
                calls: kiln_proto::calls::of(&result.execution_metadata.unwrap_or_default()),
                reproduced: None,
            };
            Ended::Succeeded(Box::new(Finished { outputs, fact, tests: report }))
        }
        (Some(message), _) if done.farm_fault || status.is_some_and(is_farm_fault) => Ended::FarmFailed(message),
        (Some(message), _) => Ended::Failed(message),
        (None, Err(error)) => Ended::FarmFailed(error),
    }
}

/// Where the time of a run went, as its worker measured it.
fn timing(metadata: &reapi::ExecutedActionMetadata) -> v1::StepTiming {
    let between =
        |from: &Option<_>, to: &Option<_>| kiln_proto::clock::milliseconds_between(from.as_ref(), to.as_ref());
    v1::StepTiming {
        queued_ms: between(&metadata.queued_timestamp, &metadata.worker_start_timestamp),
        inputs_ms: between(&metadata.input_fetch_start_timestamp, &metadata.input_fetch_completed_timestamp),
        run_ms: between(&metadata.execution_start_timestamp, &metadata.execution_completed_timestamp),
        outputs_ms: between(&metadata.output_upload_start_timestamp, &metadata.output_upload_completed_timestamp),
    }
}

/// How a step ends whose action was not run to its end through no fault of its own.
pub(super) fn not_its_fault(job: &Job, done: &Done) -> Option<Ended> {
    let status = done.response.status.as_ref().filter(|status| status.code != 0)?;
    if !precondition::subjects(status).is_empty() {
        return Some(Ended::InputsGone(status.message.clone()));
    }
    let message = format!("step `{}`: {}", job.step.name, status.message);
    (done.farm_fault || is_farm_fault(status)).then_some(Ended::FarmFailed(message))
}

pub(super) fn is_farm_fault(status: &kiln_proto::rpc::Status) -> bool {
    !matches!(
        Code::from_i32(status.code),
        Code::DeadlineExceeded | Code::InvalidArgument | Code::FailedPrecondition | Code::ResourceExhausted
    )
}

fn output_bytes(result: &reapi::ActionResult) -> u64 {
    result.output_files.iter().filter_map(|file| file.digest.as_ref()).map(|digest| digest.size_bytes as u64).sum()
}

/// Why a step did not succeed; `None` if it did.
fn why_not(
    job: &Job,
    response: &reapi::ExecuteResponse,
    status: Option<&kiln_proto::rpc::Status>,
    outputs: &Result<Outputs, String>,
    error: &[String],
) -> Option<String> {
    let step = match job.step.shards {
        // The line that it is on has the rest of the instruction.
        1 if job.rooted.is_some() => format!("step `{}`", kiln_failures::instruction(&job.step.name)),
        1 => format!("step `{}`", job.step.name),
        shards => format!("step `{}` (shard {} of {shards})", job.step.name, job.shard + 1),
    };
    if let Some(status) = status {
        return Some(match Code::from_i32(status.code) {
            Code::DeadlineExceeded => {
                let limit =
                    job.step.timeout.map_or("the farm's".to_owned(), |limit| format!("its {} s", limit.as_secs()));
                format!("{step} was stopped after {limit} timeout; raise `timeout`, or check where it hangs")
            }
            _ => format!("{step}: {}", status.message),
        });
    }
    let code = response.result.as_ref().map_or(0, |result| result.exit_code);
    let error = kiln_failures::in_short(error).map(|error| format!(": {error}")).unwrap_or_default();
    // A worker reports if a signal ended the command; all other codes are the command's own.
    if let Some(signal) = response.message.strip_prefix("the command ").filter(|_| code > 128) {
        return Some(format!("{step} {signal}{error}"));
    }
    match code {
        0 => {}
        127 => {
            let place = match (&job.rooted, &job.step.image) {
                (Some(_), _) => "a command was not found; install it in an instruction before, or in the image",
                (None, Some(_)) => "a command was not found in its image",
                (None, None) => "a command was not found; install it on the workers (`kiln workers` lists their tools)",
            };
            return Some(format!("{step} failed with exit code 127: {place}{error}"));
        }
        code => return Some(format!("{step} failed with {}{error}", kiln_failures::exit_code(code))),
    }
    let absent = outputs.as_ref().ok()?.absent(&job.step.outputs);
    if absent.is_empty() {
        return None;
    }
    let absent: Vec<String> = absent.iter().map(|path| format!("`{path}`")).collect();
    Some(format!("{step} succeeded but did not produce its output {}; check `outputs`", absent.join(", ")))
}
