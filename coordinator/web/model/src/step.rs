//! One step of a build.

use kiln_proto::v1::step_finished::Cache;
use kiln_proto::v1::step_state::Phase;
use kiln_proto::v1::{PlannedStep, SplitCalls, StepFinished, StepRef, StepStarted, Usage, UsageOverTime, UsageSoFar};

use super::Progress;

/// Maximum number of spans of what a running step uses; when there are as many, each two become one.
const MOST_SPANS: usize = 120;

/// What became of a step, as it is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Something that it needs has not ended.
    Waiting,
    /// No worker has taken it yet.
    Queued,
    /// A worker runs it.
    Running,
    /// Its result was known.
    Hit,
    /// Its result was known although a step that it needs ran: what that one made was the same as before.
    CutOff,
    /// It shared another build's run.
    Merged,
    /// Its command ran for this build.
    Ran,
    /// Its command failed, or did not run.
    Failed,
    /// It was not needed any more.
    Skipped,
}

impl Outcome {
    /// As a word, which is also its class.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Hit => "hit",
            Self::CutOff => "cut-off",
            Self::Merged => "shared",
            Self::Ran => "ran",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// A step, as far as is known.
#[derive(Debug, Clone)]
pub struct Step {
    /// Which one.
    pub at: StepRef,
    /// Names of the steps that it needs.
    pub needs: Vec<String>,
    /// Why the plan has it.
    pub why: String,
    /// A dependency layer.
    pub is_layer: bool,
    /// An instruction of a Dockerfile.
    pub is_instruction: bool,
    /// How far it is.
    pub phase: Phase,
    /// Milliseconds since 1970, of its last attempt.
    pub queued: Option<i64>,
    /// Milliseconds since 1970, of its last attempt.
    pub started: Option<i64>,
    /// Milliseconds since 1970.
    pub ended: Option<i64>,
    /// Who ran it last; empty: nobody.
    pub worker: String,
    /// How long it is likely to run; 0: unknown.
    pub expected_ms: u64,
    /// How often it was queued: again if it was lost, or needed more memory.
    pub attempts: u32,
    /// How it ended.
    pub finished: Option<StepFinished>,
    /// What became of its compiler calls, so far.
    pub calls: Option<SplitCalls>,
    /// What its run has used so far, while it runs.
    so_far: Option<Usage>,
    /// The offset of its first event, before its output.
    pub from: Option<u64>,
    /// The offset of the event that changed it last.
    pub revision: u64,
}

impl Step {
    pub(super) fn new(at: StepRef) -> Self {
        Self {
            at,
            needs: Vec::new(),
            why: String::new(),
            is_layer: false,
            is_instruction: false,
            phase: Phase::Waiting,
            queued: None,
            started: None,
            ended: None,
            worker: String::new(),
            expected_ms: 0,
            attempts: 0,
            finished: None,
            calls: None,
            so_far: None,
            from: None,
            revision: 0,
        }
    }

    pub(super) fn plan(&mut self, planned: &PlannedStep) {
        self.needs.clone_from(&planned.needs);
        self.why.clone_from(&planned.why);
        self.is_layer = planned.layer;
        // A resumed build runs its plan again.
        if self.phase != Phase::Done {
            self.phase = Phase::Waiting;
        }
    }

    pub(super) fn queue(&mut self, at: i64, offset: u64) {
        self.from = self.from.or(Some(offset));
        self.phase = Phase::Queued;
        self.queued = Some(at);
        (self.started, self.ended, self.finished, self.so_far) = (None, None, None, None);
        self.attempts += 1;
    }

    pub(super) fn start(&mut self, at: i64, begun: &StepStarted) {
        self.phase = Phase::Running;
        self.started = Some(at);
        self.so_far = None;
        self.worker.clone_from(&begun.worker);
        self.expected_ms = begun.expected_ms;
    }

    pub(super) fn finish(&mut self, at: i64, done: &StepFinished) {
        self.phase = if done.ok { Phase::Done } else { Phase::Failed };
        self.ended = Some(at);
        if !done.worker.is_empty() {
            self.worker.clone_from(&done.worker);
        }
        self.so_far = None;
        self.calls = done.calls.clone().or(self.calls.take());
        self.finished = Some(done.clone());
        // A hit may be known before it was queued.
        self.queued = self.queued.or(Some(at - done.duration_ms as i64));
    }

    /// What it has used when this was told.
    pub(super) fn uses(&mut self, used: &UsageSoFar) {
        let usage = self.so_far.get_or_insert_default();
        let spans = usage.over_time.get_or_insert_default();
        let last = spans.until_ms.last().copied().unwrap_or(0);
        let until = u32::try_from(used.run_ms).unwrap_or(u32::MAX);
        let Some(span) = until.checked_sub(last).filter(|span| *span > 0) else { return };
        let cpus = used.cpu_ms.saturating_sub(usage.cpu_ms).saturating_mul(1000) / u64::from(span);
        spans.until_ms.push(until);
        spans.milli_cpus.push(u32::try_from(cpus).unwrap_or(u32::MAX));
        spans.memory_bytes.push(used.memory_bytes);
        if spans.until_ms.len() >= MOST_SPANS {
            *spans = halved(spans);
        }
        usage.cpu_ms = usage.cpu_ms.max(used.cpu_ms);
        usage.peak_memory_bytes = usage.peak_memory_bytes.max(used.memory_bytes);
        (usage.memory_limit_bytes, usage.reserved_milli_cpus) = (used.memory_limit_bytes, used.reserved_milli_cpus);
    }

    /// What its run for this build used, so far while it runs.
    pub fn usage(&self) -> Option<&Usage> {
        match &self.finished {
            Some(done) => done.usage.as_ref(),
            None => self.so_far.as_ref(),
        }
    }

    /// Its name, with its shard.
    pub fn name(&self) -> String {
        match self.at.shards {
            0 | 1 => self.at.step.clone(),
            shards => format!("{} {}/{shards}", self.at.step, self.at.shard + 1),
        }
    }

    fn cache(&self) -> Option<Cache> {
        self.finished.as_ref().map(|done| done.cache())
    }

    /// Whether its command ran for this build.
    fn ran(&self) -> bool {
        matches!(self.cache(), Some(Cache::Miss | Cache::Merged))
    }

    /// What became of it.
    pub fn outcome(&self, progress: &Progress) -> Outcome {
        match self.phase {
            Phase::Waiting => Outcome::Waiting,
            Phase::Queued => Outcome::Queued,
            Phase::Running => Outcome::Running,
            Phase::Failed => Outcome::Failed,
            Phase::Skipped => Outcome::Skipped,
            Phase::Done => match self.cache() {
                Some(Cache::Hit)
                    if !self.needs.is_empty()
                        && progress.needs(self).iter().any(|need| progress.steps[*need].ran()) =>
                {
                    Outcome::CutOff
                }
                Some(Cache::Hit) => Outcome::Hit,
                Some(Cache::Merged) => Outcome::Merged,
                _ => Outcome::Ran,
            },
        }
    }

    /// How long it took, in milliseconds; none if it has not ended.
    pub fn took(&self) -> Option<u64> {
        match (self.queued, self.ended) {
            (Some(from), Some(to)) => Some(u64::try_from(to - from).unwrap_or(0)),
            _ => self.finished.as_ref().map(|done| done.duration_ms),
        }
    }

    /// Where its time went, one after the other: queue, inputs, run, outputs; in milliseconds, with when it began.
    pub fn phases(&self, now: i64) -> Option<(i64, [u64; 4])> {
        let queued = self.queued?;
        let end = self.ended.unwrap_or(now).max(queued);
        let all = (end - queued) as u64;
        let timing = self.finished.as_ref().and_then(|done| done.timing.as_ref());
        if let Some(timing) = timing {
            // The worker's clock says how long, and the coordinator's when.
            let parts = [timing.queued_ms, timing.inputs_ms, timing.run_ms, timing.outputs_ms];
            let sum: u64 = parts.iter().sum();
            if sum > 0 && sum <= all + 1000 {
                let queue = all.saturating_sub(parts[1] + parts[2] + parts[3]);
                return Some((queued, [queue, parts[1], parts[2], parts[3]]));
            }
        }
        let wait = self.started.map_or(all, |started| u64::try_from(started - queued).unwrap_or(0).min(all));
        match self.phase {
            Phase::Done | Phase::Failed if self.started.is_none() => Some((queued, [0, 0, all, 0])),
            _ => Some((queued, [wait, 0, all - wait, 0])),
        }
    }
}

/// The same in half as many spans.
fn halved(spans: &UsageOverTime) -> UsageOverTime {
    let mut halved = UsageOverTime::default();
    let mut begin = 0;
    let all = spans.until_ms.chunks(2).zip(spans.milli_cpus.chunks(2)).zip(spans.memory_bytes.chunks(2));
    for ((until_ms, milli_cpus), memory_bytes) in all {
        let (mut at, mut used) = (begin, 0);
        for (until, milli) in until_ms.iter().zip(milli_cpus) {
            used += u64::from(until - at) * u64::from(*milli);
            at = *until;
        }
        halved.until_ms.push(at);
        halved.milli_cpus.push((used / u64::from(at - begin).max(1)) as u32);
        halved.memory_bytes.push(memory_bytes.iter().copied().max().unwrap_or(0));
        begin = at;
    }
    halved
}
