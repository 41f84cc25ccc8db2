//! What scripts read. A name that is here stays.

use kiln_proto::clock;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1;
use serde::Serialize;

use crate::markup::usage::is_sound;
use crate::markup::words;
use crate::pages::layers::Contents;
use crate::pages::rates::Rate;
use crate::pages::tested;
use kiln_web_contents::Waste;
use kiln_web_model::{self as model, Progress};

fn time(at: Option<&Timestamp>) -> Option<String> {
    at.map(|at| clock::rfc3339(&Timestamp { nanos: 0, ..*at }))
}

fn set(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// A build in a list.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    id: String,
    project: String,
    version: Option<String>,
    status: &'static str,
    message: Option<String>,
    user: Option<String>,
    branch: Option<String>,
    commit: Option<String>,
    dirty: bool,
    repository: Option<String>,
    platforms: Vec<String>,
    started: Option<String>,
    finished: Option<String>,
    steps: Option<Counts>,
}

#[derive(Debug, Serialize)]
struct Counts {
    all: u32,
    ended: u32,
    hits: u32,
    failed: u32,
}

impl Summary {
    pub(super) fn of(build: &v1::Build) -> Self {
        let source = build.source.clone().unwrap_or_default();
        Self {
            id: build.id.clone(),
            project: build.project.clone(),
            version: set(&build.version),
            status: words::class(build.status()),
            message: set(&build.message),
            user: set(&build.user),
            branch: set(&source.branch),
            commit: set(&source.commit),
            dirty: source.dirty,
            repository: set(&source.repository),
            platforms: build.platforms.clone(),
            started: time(build.started.as_ref()),
            finished: time(build.finished.as_ref()),
            steps: build.counts.map(|counts| Counts {
                all: counts.steps,
                ended: counts.ended,
                hits: counts.hits,
                failed: counts.failed,
            }),
        }
    }
}

/// A build with its steps.
#[derive(Debug, Serialize)]
pub(crate) struct Build {
    #[serde(flatten)]
    summary: Summary,
    warnings: Vec<String>,
    waiting: Vec<String>,
    step: Vec<Step>,
    artifacts: Vec<Artifact>,
    notifications: Vec<Notification>,
}

impl Build {
    /// Of a build whose record may be older than these calls about its end.
    pub(super) fn of(build: &v1::Build, progress: &Progress, calls: &[v1::Notification]) -> Self {
        let mut summary = Summary::of(build);
        if let Some(status) = progress.status {
            summary.status = words::class(status);
            summary.message = set(&progress.message);
        }
        summary.steps = None;
        let artifacts = if progress.artifacts.is_empty() { &build.artifacts } else { &progress.artifacts };
        Self {
            summary,
            warnings: progress.warnings.clone(),
            waiting: progress.waiting.values().map(|waiting| waiting.what.clone()).collect(),
            step: (1..).zip(&progress.steps).map(|(number, step)| Step::of(number, step, progress)).collect(),
            artifacts: artifacts.iter().map(Artifact::of).collect(),
            notifications: calls.iter().map(Notification::of).collect(),
        }
    }
}

/// A call of a webhook about a build's end.
#[derive(Debug, Serialize)]
pub(crate) struct Notification {
    id: String,
    hook: Option<String>,
    to: String,
    event: String,
    state: &'static str,
    attempts: u32,
    reason: Option<String>,
    tried: Option<String>,
}

impl Notification {
    fn of(call: &v1::Notification) -> Self {
        use v1::notification::State;
        Self {
            id: call.id.clone(),
            hook: set(&call.hook),
            to: call.to.clone(),
            event: call.event.clone(),
            state: match call.state() {
                State::Pending => "pending",
                State::Delivered => "delivered",
                State::GivenUp => "given_up",
            },
            attempts: call.attempts,
            reason: set(&call.reason),
            tried: time(call.tried.as_ref()),
        }
    }
}

/// A step of a build.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    number: usize,
    name: String,
    platform: String,
    target: Option<String>,
    shard: u32,
    shards: u32,
    needs: Vec<String>,
    outcome: &'static str,
    worker: Option<String>,
    attempts: u32,
    took_ms: Option<u64>,
    queue_ms: Option<u64>,
    inputs_ms: Option<u64>,
    run_ms: Option<u64>,
    outputs_ms: Option<u64>,
    exit_code: Option<i32>,
    message: Option<String>,
    first_error: Vec<String>,
    action: Option<String>,
    output_bytes: Option<u64>,
    tests: Option<TestCounts>,
}

impl Step {
    pub(super) fn of(number: usize, step: &model::Step, progress: &Progress) -> Self {
        let done = step.finished.as_ref();
        let timing = done.and_then(|done| done.timing);
        let action = done.and_then(|done| done.action_digest.as_ref());
        Self {
            number,
            name: step.at.step.clone(),
            platform: step.at.platform.clone(),
            target: set(&step.at.target),
            shard: step.at.shard + 1,
            shards: step.at.shards.max(1),
            needs: step.needs.clone(),
            outcome: step.outcome(progress).word(),
            worker: set(&step.worker),
            attempts: step.attempts,
            took_ms: step.took(),
            queue_ms: timing.map(|timing| timing.queued_ms),
            inputs_ms: timing.map(|timing| timing.inputs_ms),
            run_ms: timing.map(|timing| timing.run_ms),
            outputs_ms: timing.map(|timing| timing.outputs_ms),
            exit_code: done.filter(|done| !done.no_exit_code).map(|done| done.exit_code),
            message: done.and_then(|done| set(&done.message)),
            first_error: done.map(|done| done.first_error.clone()).unwrap_or_default(),
            action: action.map(|action| format!("{}/{}", action.hash, action.size_bytes)),
            output_bytes: done.map(|done| done.output_bytes),
            tests: done.and_then(|done| done.tests.as_ref()).map(TestCounts::of),
        }
    }
}

/// How many tests became what.
#[derive(Debug, Serialize)]
pub(super) struct TestCounts {
    passed: u32,
    failed: u32,
    skipped: u32,
    flaky: u32,
    duration_ms: u64,
    unread: Vec<String>,
}

impl TestCounts {
    pub(super) fn of(tests: &v1::TestSummary) -> Self {
        Self {
            passed: tests.passed,
            failed: tests.failed,
            skipped: tests.skipped,
            flaky: tests.flaky,
            duration_ms: tests.duration_ms,
            unread: tests.unread.clone(),
        }
    }
}

/// A test.
#[derive(Debug, Serialize)]
pub(super) struct Test {
    step: usize,
    step_name: String,
    suite: Option<String>,
    name: String,
    outcome: &'static str,
    flaky: bool,
    duration_ms: u64,
    message: Option<String>,
    output: Option<String>,
    report: Option<String>,
}

impl Test {
    pub(super) fn of(test: &tested::Tested) -> Self {
        let case = &test.case;
        Self {
            step: test.number,
            step_name: test.step.clone(),
            suite: set(&case.suite),
            name: case.name.clone(),
            outcome: tested::word(case),
            flaky: case.flaky,
            duration_ms: case.duration_ms,
            message: set(&case.message),
            output: set(&case.output),
            report: set(&case.file),
        }
    }
}

/// What a step's run used.
#[derive(Debug, Serialize)]
pub(super) struct Usage {
    cpu_ms: u64,
    cpus_reserved: f64,
    peak_memory_bytes: u64,
    memory_limit_bytes: u64,
    over_time: Vec<Span>,
}

#[derive(Debug, Serialize)]
struct Span {
    until_ms: u32,
    cpus: f64,
    memory_bytes: u64,
}

impl Usage {
    pub(super) fn of(usage: &v1::Usage) -> Self {
        let sound = usage.over_time.iter().filter(|over_time| is_sound(over_time));
        let spans = sound.flat_map(|all| all.until_ms.iter().zip(&all.milli_cpus).zip(&all.memory_bytes));
        Self {
            cpu_ms: usage.cpu_ms,
            cpus_reserved: f64::from(usage.reserved_milli_cpus) / 1000.0,
            peak_memory_bytes: usage.peak_memory_bytes,
            memory_limit_bytes: usage.memory_limit_bytes,
            over_time: spans
                .map(|((until, milli), memory)| Span {
                    until_ms: *until,
                    cpus: f64::from(*milli) / 1000.0,
                    memory_bytes: *memory,
                })
                .collect(),
        }
    }
}

/// Why a step ran.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    pub(super) reason: String,
    pub(super) forgotten: bool,
    pub(super) differences: Vec<Difference>,
}

#[derive(Debug, Serialize)]
pub(super) struct Difference {
    kind: String,
    name: String,
    before: Option<String>,
    after: Option<String>,
}

impl Difference {
    pub(super) fn of(one: &v1::Difference) -> Self {
        let kind = one.kind().as_str_name().to_lowercase();
        Self { kind, name: one.name.clone(), before: one.before.clone(), after: one.after.clone() }
    }
}

/// An artifact.
#[derive(Debug, Serialize)]
pub(crate) struct Artifact {
    id: String,
    name: String,
    version: Option<String>,
    platform: String,
    kind: String,
    size_bytes: u64,
    digest: Option<String>,
    created: Option<String>,
    build: String,
    commit: Option<String>,
    dirty: bool,
}

impl Artifact {
    pub(super) fn of(artifact: &v1::Artifact) -> Self {
        Self {
            id: artifact.id.clone(),
            name: artifact.name.clone(),
            version: set(&artifact.version),
            platform: artifact.platform.clone(),
            kind: artifact.kind.clone(),
            size_bytes: artifact.size_bytes,
            digest: artifact.digest.as_ref().map(|digest| digest.hash.clone()),
            created: time(artifact.created.as_ref()),
            build: artifact.build.clone(),
            commit: set(&artifact.commit),
            dirty: artifact.dirty,
        }
    }
}

/// What is in an artifact's layers.
#[derive(Debug, Serialize)]
pub(crate) struct Layers {
    complete: bool,
    layers: Vec<Layer>,
    largest: Vec<File>,
    hidden: Vec<File>,
    again: Vec<File>,
}

#[derive(Debug, Serialize)]
struct Layer {
    created_by: String,
    stored_bytes: u64,
    bytes: u64,
    files: u64,
    hidden_bytes: u64,
    again_bytes: u64,
}

#[derive(Debug, Serialize)]
struct File {
    path: String,
    size_bytes: u64,
    layer: usize,
    other_layer: Option<usize>,
}

impl Layers {
    pub(super) fn of(contents: &Contents, waste: &Waste) -> Self {
        let layer = |(layer, sum): (&crate::pages::layers::Layer, &kiln_web_contents::Sum)| Layer {
            created_by: layer.by.clone(),
            stored_bytes: layer.size,
            bytes: sum.bytes,
            files: sum.files,
            hidden_bytes: sum.hidden,
            again_bytes: sum.again,
        };
        let files = |files: &[kiln_web_contents::Placed]| -> Vec<File> {
            let file = |one: &kiln_web_contents::Placed| File {
                path: one.path.clone(),
                size_bytes: one.size,
                layer: one.layer + 1,
                other_layer: one.other.map(|other| other + 1),
            };
            files.iter().map(file).collect()
        };
        Self {
            complete: contents.is_complete(),
            layers: contents.layers.iter().zip(&waste.layers).map(layer).collect(),
            largest: files(&waste.largest),
            hidden: files(&waste.hidden),
            again: files(&waste.again),
        }
    }
}

/// The farm.
#[derive(Debug, Serialize)]
pub(crate) struct Farm {
    version: String,
    store_bytes: u64,
    store_capacity_bytes: u64,
    workers: Vec<Worker>,
    queues: Vec<Queue>,
}

#[derive(Debug, Serialize)]
struct Worker {
    name: String,
    state: &'static str,
    os: Option<String>,
    isa: Option<String>,
    cpus: f64,
    cpus_used: f64,
    memory_bytes: u64,
    memory_used_bytes: u64,
    running: u32,
}

#[derive(Debug, Serialize)]
struct Queue {
    platform: std::collections::BTreeMap<String, String>,
    queued: u64,
    oldest_ms: u64,
    waits_for: Option<String>,
    /// None: of the default tenant, or one whose name the visitor may not know.
    tenant: Option<String>,
    own: bool,
}

impl Farm {
    pub(super) fn of(status: &v1::FarmStatus) -> Self {
        let worker = |worker: &v1::Worker, is_away: bool| {
            let environment = worker.environment.clone().unwrap_or_default();
            let (capacity, used) = (worker.capacity.unwrap_or_default(), worker.used.unwrap_or_default());
            Worker {
                name: worker.worker.clone(),
                state: match (is_away || !worker.connected, worker.distrusted, worker.draining) {
                    (true, _, _) => "away",
                    (_, true, _) => "distrusted",
                    (_, _, true) => "draining",
                    _ => "connected",
                },
                os: set(&environment.os),
                isa: set(&environment.isa),
                cpus: f64::from(capacity.milli_cpus) / 1000.0,
                cpus_used: f64::from(used.milli_cpus) / 1000.0,
                memory_bytes: capacity.memory_bytes,
                memory_used_bytes: used.memory_bytes,
                running: worker.running,
            }
        };
        let here = status.workers.iter().map(|one| worker(one, false));
        let queue = |queue: &v1::Queue| Queue {
            platform: queue.platform.clone().into_iter().collect(),
            queued: queue.queued,
            oldest_ms: queue.oldest_ms,
            waits_for: set(&queue.waits_for),
            tenant: set(&queue.tenant),
            own: !queue.of_another_tenant,
        };
        Self {
            version: status.version.clone(),
            store_bytes: status.store_bytes,
            store_capacity_bytes: status.store_capacity_bytes,
            workers: here.chain(status.away.iter().map(|one| worker(one, true))).collect(),
            queues: status.queues.iter().map(queue).collect(),
        }
    }
}

/// What the cache saves.
#[derive(Debug, Serialize)]
pub(crate) struct Cache {
    total: Rates,
    steps: Vec<OfStep>,
    over_time: Vec<Rate>,
    mounts: Vec<Mount>,
}

/// A cache mount.
#[derive(Debug, Serialize)]
struct Mount {
    project: Option<String>,
    id: String,
    platform: String,
    scope: Option<String>,
    size_bytes: u64,
    published: Option<String>,
    last_used: Option<String>,
    worker: String,
}

impl Mount {
    fn of(mount: &v1::Mount) -> Self {
        let name = mount.name.clone().unwrap_or_default();
        Self {
            project: set(&name.project),
            id: name.id,
            platform: name.platform,
            scope: set(&name.scope),
            size_bytes: mount.size_bytes,
            published: time(mount.published.as_ref()),
            last_used: time(mount.last_use.as_ref()),
            worker: mount.writer.clone(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Rates {
    hits: u64,
    misses: u64,
    shared: u64,
    saved_bytes: u64,
}

#[derive(Debug, Serialize)]
struct OfStep {
    project: String,
    step: String,
    #[serde(flatten)]
    rates: Rates,
}

impl Cache {
    pub(super) fn of(stats: &v1::LayerStatsResponse, over_time: Vec<Rate>, mounts: &[v1::Mount]) -> Self {
        let rates = |counts: Option<v1::LayerCounts>| {
            let counts = counts.unwrap_or_default();
            Rates { hits: counts.hits, misses: counts.misses, shared: counts.merged, saved_bytes: counts.saved_bytes }
        };
        let of_step = |step: &v1::StepStats| OfStep {
            project: step.project.clone(),
            step: step.step.clone(),
            rates: rates(step.counts),
        };
        Self {
            total: rates(stats.total),
            steps: stats.steps.iter().map(of_step).collect(),
            over_time,
            mounts: mounts.iter().map(Mount::of).collect(),
        }
    }
}
