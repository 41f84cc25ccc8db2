//! Feeds events to a scheduler, times each, and keeps account of every action.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use kiln_scheduler::{ActionKey, Config, Effect, Event, LeaseId, Millis, Outcome, Scheduler, WorkerId};

/// Events in a millisecond of the farm's time.
const EVENTS_IN_A_MILLISECOND: u64 = 64;

/// What an action is doing, as the effects tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Unknown,
    Waits,
    Runs(LeaseId),
    Completed,
    Left,
}

/// A scheduler with an account of what it did.
#[derive(Debug)]
pub struct Ledger {
    farm: Scheduler,
    events: u64,
    stages: Vec<Stage>,
    /// Leases in the order in which they were given.
    running: VecDeque<(WorkerId, LeaseId, u64)>,
    /// Assignments so far.
    pub assigned: u64,
    /// CPU time of all events so far.
    pub took: Duration,
    times: HashMap<&'static str, Histogram<u64>>,
}

/// CPU time of this thread: other work on the machine does not count, except that it empties the caches.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn number(key: &ActionKey) -> anyhow::Result<usize> {
    key.0.parse().context("expected a key of this benchmark")
}

impl Ledger {
    /// A scheduler without workers, for this number of actions.
    pub fn new(actions: u64) -> Self {
        let patient = Config { match_grace: u64::MAX, match_settle: 60_000, ..Config::default() };
        Self {
            farm: Scheduler::new(patient, 0),
            events: 0,
            stages: vec![Stage::Unknown; actions as usize],
            running: VecDeque::new(),
            assigned: 0,
            took: Duration::ZERO,
            times: HashMap::new(),
        }
    }

    /// The farm's time.
    pub fn now(&self) -> Millis {
        self.events / EVENTS_IN_A_MILLISECOND
    }

    /// Handles an event as the coordinator does, which then asks for the next deadline, and returns how many assignments it caused.
    pub fn step(&mut self, kind: &'static str, event: Event) -> anyhow::Result<u64> {
        self.events += 1;
        match &event {
            Event::Submit(submission) => self.stages[number(&submission.key)?] = Stage::Waits,
            Event::Leave(waiter) => self.stages[waiter.0 as usize] = Stage::Left,
            _ => {}
        }
        let now = self.now();
        let began = cpu_time();
        let effects = self.farm.step(now, event);
        std::hint::black_box(self.farm.next_deadline());
        let took = (cpu_time() - began).as_nanos() as u64;
        self.took += Duration::from_nanos(took);
        let minute = 60_000_000_000;
        let new = || Histogram::new_with_max(minute, 3).unwrap_or_else(|_| unreachable!("3 digits are valid"));
        self.times.entry(kind).or_insert_with(new).saturating_record(took);
        let before = self.assigned;
        for effect in effects {
            self.note(effect)?;
        }
        Ok(self.assigned - before)
    }

    fn note(&mut self, effect: Effect) -> anyhow::Result<()> {
        match effect {
            Effect::Assign { worker, lease, key, .. } => {
                let number = number(&key)?;
                let stage = std::mem::replace(&mut self.stages[number], Stage::Runs(lease));
                ensure!(stage == Stage::Waits, "action {number} was assigned although it {stage:?}");
                self.assigned += 1;
                self.running.push_back((worker, lease, number as u64));
            }
            Effect::Requeued { key, .. } => {
                let number = number(&key)?;
                let stage = std::mem::replace(&mut self.stages[number], Stage::Waits);
                ensure!(matches!(stage, Stage::Runs(_)), "action {number} waits again although it {stage:?}");
            }
            Effect::Completed { key, lease, .. } => {
                let number = number(&key)?;
                let stage = std::mem::replace(&mut self.stages[number], Stage::Completed);
                ensure!(stage == Stage::Runs(lease), "action {number} was completed although it {stage:?}");
            }
            Effect::Failed { key, failure, .. } => bail!("action {key:?} was given up: {failure:?}"),
            Effect::CancelLease { .. } | Effect::Adopted { .. } | Effect::Started { .. } | Effect::LeaseEnded(_) => {}
        }
        Ok(())
    }

    /// Completes the lease that has run for longest; `None` if nothing runs.
    pub fn finish_one(&mut self, kind: &'static str) -> anyhow::Result<Option<u64>> {
        while let Some((worker, lease, number)) = self.running.pop_front() {
            // It may have been lost with its worker.
            if self.stages[number as usize] == Stage::Runs(lease) {
                let event = Event::Finished { worker, lease, outcome: Outcome::Completed };
                return self.step(kind, event).map(Some);
            }
        }
        Ok(None)
    }

    /// The lease that was given last and still runs.
    pub fn newest(&self) -> Option<LeaseId> {
        let runs =
            |(_, lease, number): &&(WorkerId, LeaseId, u64)| self.stages[*number as usize] == Stage::Runs(*lease);
        self.running.iter().rev().find(runs).map(|(_, lease, _)| *lease)
    }

    /// Whether this action waits for a worker.
    pub fn waits(&self, number: u64) -> bool {
        self.stages[number as usize] == Stage::Waits
    }

    /// Number of leases of this worker.
    pub fn held_by(&self, worker: &WorkerId) -> usize {
        self.farm.workers().iter().find(|view| view.worker == *worker).map_or(0, |view| view.running)
    }

    /// Checks that every action but those whose callers left was assigned, completed once, and that nothing is left.
    pub fn check_the_end(&self) -> anyhow::Result<()> {
        let open = self.stages.iter().position(|stage| !matches!(stage, Stage::Completed | Stage::Left));
        ensure!(open.is_none(), "action {open:?} was not completed");
        ensure!(self.farm.workers().iter().all(|worker| worker.running == 0), "a worker still holds a lease");
        ensure!(self.farm.queues(self.now()).is_empty(), "a queue is not empty");
        Ok(())
    }

    /// Allows all actions to be submitted once more.
    pub fn forget_actions(&mut self) {
        self.stages.fill(Stage::Unknown);
    }

    /// The number and the time of events of each kind, in nanoseconds.
    pub fn times(&self) -> Vec<(&'static str, &Histogram<u64>)> {
        let mut times: Vec<_> = self.times.iter().map(|(kind, times)| (*kind, times)).collect();
        times.sort_unstable_by_key(|(kind, _)| *kind);
        times
    }
}
