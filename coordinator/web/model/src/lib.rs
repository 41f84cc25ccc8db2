//! A build as its events tell it: when each of its steps waited, ran and ended, and what depends on what.
//!
//! Invariant: a pure projection. The same events give the same, and a step keeps its place.

pub mod graph;
pub mod gutter;
mod step;

use std::collections::{BTreeMap, HashMap};

use kiln_proto::v1::step_state::Phase;
use kiln_proto::v1::{self, Event, Status, StepRef, event};

use kiln_proto::protobuf::Timestamp;

pub use step::{Outcome, Step};

/// What a step is known by.
type Key = (String, String, String, u32);

/// Milliseconds since 1970.
pub fn milliseconds(at: &Timestamp) -> i64 {
    at.seconds * 1000 + i64::from(at.nanos) / 1_000_000
}

/// Step, platform and target.
type Name = (String, String, String);

fn key(step: &StepRef) -> Key {
    (step.step.clone(), step.platform.clone(), step.target.clone(), step.shard)
}

/// What one target waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The first step that waits; empty if the target has no worker yet.
    pub step: String,
    /// In words.
    pub what: String,
    /// Actions that come first.
    pub ahead: u32,
}

/// A build, as far as its events were read.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// In the order in which they were told of; a place in it stays what it is.
    pub steps: Vec<Step>,
    places: HashMap<Key, usize>,
    /// The steps of a name on a target: several if it has shards.
    named: HashMap<Name, Vec<usize>>,
    /// What was worth a note.
    pub warnings: Vec<String>,
    /// Target and platform to what it waits for.
    pub waiting: BTreeMap<(String, String), Waiting>,
    /// Those that have ended, with their status and message.
    pub targets: BTreeMap<(String, String), (i32, String)>,
    /// None while it runs.
    pub status: Option<Status>,
    /// Why it did not succeed.
    pub message: String,
    /// Milliseconds since 1970.
    pub started: Option<i64>,
    /// Milliseconds since 1970.
    pub ended: Option<i64>,
    /// What it has made.
    pub artifacts: Vec<v1::Artifact>,
    /// The offset of the next event.
    pub next: u64,
}

impl Progress {
    /// The place of the step that a reference means.
    fn place(&mut self, step: &StepRef) -> usize {
        let key = key(step);
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        let name = (step.step.clone(), step.platform.clone(), step.target.clone());
        self.named.entry(name).or_default().push(self.steps.len());
        self.steps.push(Step::new(step.clone()));
        self.places.insert(key, self.steps.len() - 1);
        self.steps.len() - 1
    }

    /// The place of a step, if it is known.
    pub fn find(&self, step: &StepRef) -> Option<usize> {
        self.places.get(&key(step)).copied()
    }

    /// Takes an event in. Returns the place of the step that it is about.
    pub fn apply(&mut self, event: &Event) -> Option<usize> {
        let at = event.at.as_ref().map(milliseconds).unwrap_or_default();
        let offset = event.offset;
        self.next = self.next.max(offset + 1);
        let change = |progress: &mut Self, step: &Option<StepRef>, change: &dyn Fn(&mut Step)| {
            let place = progress.place(step.as_ref()?);
            let step = progress.steps.get_mut(place)?;
            change(step);
            step.revision = offset;
            Some(place)
        };
        match event.event.as_ref()? {
            event::Event::BuildStarted(begun) => {
                self.started = self.started.or(Some(at));
                for planned in &begun.steps {
                    change(self, &planned.step, &|step| step.plan(planned));
                }
                None
            }
            event::Event::StepQueued(queued) => change(self, &queued.step, &|step| step.queue(at, offset)),
            event::Event::StepStarted(begun) => change(self, &begun.step, &|step| step.start(at, begun)),
            event::Event::StepFinished(done) => change(self, &done.step, &|step| step.finish(at, done)),
            event::Event::StepCalls(calls) => change(self, &calls.step, &|step| step.calls.clone_from(&calls.calls)),
            event::Event::StepUsage(told) => {
                change(self, &told.step, &|step| told.usage.iter().for_each(|used| step.uses(used)))
            }
            event::Event::DockerfileRead(read) => {
                for step in &read.steps {
                    change(self, &Some(step.clone()), &|step| step.is_instruction = true);
                }
                None
            }
            event::Event::Warning(warning) => {
                self.warnings.push(warning.text.clone());
                None
            }
            event::Event::Waiting(waiting) => {
                let target = (waiting.target.clone(), waiting.platform.clone());
                if waiting.what.is_empty() {
                    self.waiting.remove(&target);
                } else {
                    let v1::Waiting { step, what, ahead, .. } = waiting.clone();
                    self.waiting.insert(target, Waiting { step, what, ahead });
                }
                None
            }
            event::Event::TargetFinished(done) => {
                let target = (done.target.clone(), done.platform.clone());
                self.waiting.remove(&target);
                self.targets.insert(target, (done.status, done.message.clone()));
                None
            }
            event::Event::Artifact(artifact) => {
                self.artifacts.retain(|known| known.id != artifact.id);
                self.artifacts.push(artifact.clone());
                None
            }
            event::Event::BuildFinished(done) => {
                self.end(at, done);
                None
            }
            event::Event::ArtifactCompared(compared) => {
                let its = self.artifacts.iter_mut().filter(|known| known.id == compared.artifact);
                its.for_each(|known| known.reproducibility.splice(..0, compared.result.clone()).for_each(drop));
                None
            }
            event::Event::Log(_)
            | event::Event::ShellOpened(_)
            | event::Event::GateFinished(_)
            | event::Event::StepAgain(_) => None,
        }
    }

    fn end(&mut self, at: i64, done: &v1::BuildFinished) {
        self.status = Some(done.status());
        self.message.clone_from(&done.message);
        self.ended = Some(at);
        self.waiting.clear();
        // What had not begun will not.
        for step in &mut self.steps {
            if !matches!(step.phase, Phase::Done | Phase::Failed) {
                step.phase = Phase::Skipped;
                step.revision = self.next;
            }
        }
    }

    /// Whether an event of a build's own and not of a step changes what its page says at the top.
    pub fn is_about_all(event: &event::Event) -> bool {
        !matches!(event, event::Event::Log(_) | event::Event::StepCalls(_) | event::Event::StepUsage(_))
    }

    /// How many of its steps have an outcome.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.steps.iter().filter(|step| step.outcome(self) == outcome).count() as u64
    }

    /// The steps that a step needs, by their places: those of its own target.
    pub fn needs(&self, step: &Step) -> Vec<usize> {
        let named = |need: &String| {
            let name = (need.clone(), step.at.platform.clone(), step.at.target.clone());
            self.named.get(&name).cloned().unwrap_or_default()
        };
        step.needs.iter().flat_map(named).collect()
    }

    /// What was sent to compilers, of all its steps.
    pub fn calls(&self) -> v1::SplitCalls {
        let mut all = v1::SplitCalls::default();
        for calls in self.steps.iter().filter_map(|step| step.calls.as_ref()) {
            all.hits += calls.hits;
            all.compiled += calls.compiled;
            all.elsewhere += calls.elsewhere;
            all.go_hits += calls.go_hits;
            all.go_misses += calls.go_misses;
            for (reason, number) in &calls.refused {
                *all.refused.entry(reason.clone()).or_default() += number;
            }
        }
        all
    }

    /// The span that its waterfall shows, in milliseconds since 1970.
    pub fn span(&self, now: i64) -> (i64, i64) {
        let begin = self.steps.iter().filter_map(|step| step.queued).min();
        let begin = self.started.into_iter().chain(begin).min().unwrap_or(now);
        (begin, self.ended.unwrap_or(now).max(begin + 1))
    }
}

#[cfg(test)]
mod tests;
