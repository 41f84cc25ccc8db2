//! The state of a build, derived from its events.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1;

use super::lines::Lines;
use super::{Happening, brief};

/// Number of log lines kept of each step, in case it fails.
const TAIL_LINES: usize = 20;

/// An action of a build.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Key {
    /// The step.
    pub step: String,
    /// Its platform, such as `linux/amd64`.
    pub platform: String,
    /// The target's name.
    pub target: String,
    /// The index of its shard, from 0.
    pub shard: u32,
    /// The number of shards.
    pub shards: u32,
}

impl From<v1::StepRef> for Key {
    fn from(step: v1::StepRef) -> Self {
        let v1::StepRef { step, platform, target, shard, shards } = step;
        Self { step, platform, target, shard, shards: shards.max(1) }
    }
}

/// The state of an action.
#[derive(Debug, Default)]
pub struct Step {
    /// The worker that runs or ran it.
    pub worker: String,
    /// When it started running, by this machine's clock.
    pub since: Option<Instant>,
    /// Its last lines of output.
    pub tail: VecDeque<String>,
    /// Its result.
    pub finished: Option<v1::StepFinished>,
    /// Its tests that failed or are flaky, where its reports tell of any.
    pub tests: Vec<v1::TestCase>,
    /// Whether it waits for a worker.
    pub queued: bool,
    open: HashMap<String, Lines>,
}

/// A build's steps and artifacts.
#[derive(Debug, Default)]
pub struct Board {
    /// The build's id.
    pub build: String,
    /// The project's directory, if several are built at a time.
    pub project: String,
    /// The actions in the plan's order.
    pub steps: IndexMap<Key, Step>,
    /// The artifacts so far.
    pub artifacts: Vec<v1::Artifact>,
    /// How to run the downloaded artifacts.
    pub starts: Vec<String>,
    /// Each pair of platform and target.
    pub targets: Vec<(String, String)>,
    /// When the user's command started; `None` if it follows a build started elsewhere.
    pub began: Option<Instant>,
    /// The time of the last event, by the farm's clock.
    pub at: Option<Timestamp>,
    /// The steps that are dependency layers.
    pub layers: HashSet<String>,
    /// The actions that are instructions of Dockerfiles.
    pub instructions: HashSet<Key>,
    /// How many other instructions of theirs change files, which need no worker.
    pub copies: usize,
}

/// A build's progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of actions with a result.
    pub done: usize,
    /// Number of all actions.
    pub all: usize,
    /// Number of running actions.
    pub running: usize,
    /// Number of actions that wait for a worker.
    pub queued: usize,
}

impl Board {
    /// Handles an event. The caller handles artifacts and the end, about which it knows more.
    pub fn take(&mut self, event: v1::event::Event) -> Vec<Happening> {
        use v1::event::Event;
        match event {
            Event::BuildStarted(started) => self.started(started),
            Event::StepQueued(queued) => {
                self.steps.entry(key(queued.step)).or_default().queued = true;
                Vec::new()
            }
            Event::StepStarted(v1::StepStarted { step, worker, expected_ms }) => {
                let expected = (expected_ms > 0).then(|| Duration::from_millis(expected_ms));
                let key = key(step);
                let step = self.steps.entry(key.clone()).or_default();
                // After a lost worker the action starts again, and so does its log.
                *step = Step { worker: worker.clone(), since: Some(Instant::now()), ..Step::default() };
                vec![Happening::StepStarted { key, worker, expected }]
            }
            Event::StepCalls(v1::StepCalls { step, calls }) => {
                vec![Happening::StepCalls { key: key(step), calls: Box::new(calls.unwrap_or_default()) }]
            }
            // That is for pages; the summary has what matters of it.
            Event::StepUsage(_) => Vec::new(),
            Event::Log(log) => self.log(log),
            Event::StepFinished(finished) => self.finished(finished),
            Event::TargetFinished(finished) => vec![Happening::TargetFinished(finished)],
            Event::Waiting(waiting) => vec![Happening::Waiting(waiting)],
            Event::DockerfileRead(read) => self.dockerfile_read(read),
            Event::Warning(warning) => vec![Happening::Warning(warning.text)],
            Event::GateFinished(result) => vec![Happening::Gate(result)],
            Event::StepAgain(again) => vec![Happening::StepAgain(Box::new(again))],
            Event::ArtifactCompared(compared) => vec![Happening::Compared(compared)],
            Event::Artifact(_) | Event::BuildFinished(_) | Event::ShellOpened(_) => Vec::new(),
        }
    }

    fn started(&mut self, started: v1::BuildStarted) -> Vec<Happening> {
        self.build.clone_from(&started.build);
        self.steps.clear();
        self.targets.clear();
        self.layers.clear();
        self.instructions.clear();
        self.copies = 0;
        for step in &started.steps {
            let key = key(step.step.clone());
            let target = (key.platform.clone(), key.target.clone());
            if !self.targets.contains(&target) {
                self.targets.push(target);
            }
            if step.layer {
                self.layers.insert(key.step.clone());
            }
            self.steps.entry(key).or_default();
        }
        vec![Happening::Started(started)]
    }

    fn dockerfile_read(&mut self, read: v1::DockerfileRead) -> Vec<Happening> {
        for step in read.steps {
            let key: Key = step.into();
            self.steps.entry(key.clone()).or_default();
            self.instructions.insert(key);
        }
        self.copies += read.copies as usize;
        Vec::new()
    }

    fn log(&mut self, log: v1::Log) -> Vec<Happening> {
        let key = key(log.step);
        let step = self.steps.entry(key.clone()).or_default();
        let mut happenings = Vec::new();
        let mut text = String::new();
        if log.skipped_bytes > 0 {
            text.extend(step.open.remove(&log.stream).and_then(Lines::finish));
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&format!(
                "[{} bytes omitted; see all with `kiln logs {} {}`]\n",
                log.skipped_bytes, self.build, key.step
            ));
        }
        text.extend(step.open.entry(log.stream.clone()).or_default().push(&log.data));
        if !text.is_empty() {
            step.keep(&text);
            happenings.push(Happening::Log { key, stream: log.stream, text });
        }
        happenings
    }

    fn finished(&mut self, finished: v1::StepFinished) -> Vec<Happening> {
        let key = key(finished.step.clone());
        let step = self.steps.entry(key.clone()).or_default();
        let mut happenings = Vec::new();
        let mut open: Vec<(String, Lines)> = step.open.drain().collect();
        open.sort_by(|one, other| one.0.cmp(&other.0));
        for (stream, lines) in open {
            if let Some(text) = lines.finish() {
                step.keep(&text);
                happenings.push(Happening::Log { key: key.clone(), stream, text });
            }
        }
        if !finished.worker.is_empty() {
            step.worker.clone_from(&finished.worker);
        }
        (step.since, step.queued) = (None, false);
        step.finished = Some(finished.clone());
        happenings.push(Happening::StepFinished { key, finished: Box::new(finished) });
        happenings
    }

    /// The build's progress.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { all: self.steps.len(), ..Counts::default() };
        for step in self.steps.values() {
            counts.done += usize::from(step.finished.is_some());
            counts.running += usize::from(step.since.is_some());
            counts.queued += usize::from(step.queued && step.since.is_none() && step.finished.is_none());
        }
        counts
    }

    /// How the instructions of Dockerfiles went, if the build has any: `3 instructions run, 2 cached, 4 copied`.
    pub fn instructions_words(&self) -> Option<String> {
        if self.instructions.is_empty() && self.copies == 0 {
            return None;
        }
        let finished = self.instructions.iter().filter_map(|key| self.steps.get(key)?.finished.as_ref());
        let (cached, run): (Vec<_>, Vec<_>) =
            finished.partition(|finished| finished.ok && finished.cache() == v1::step_finished::Cache::Hit);
        let mut words = format!("{} run", kiln_terminal::count(run.len(), "instruction"));
        for (count, word) in [(cached.len(), "cached"), (self.copies, "copied")] {
            if count > 0 {
                words.push_str(&format!(", {count} {word}"));
            }
        }
        Some(words)
    }

    /// The running actions, and how long each has been running.
    pub fn running(&self) -> impl Iterator<Item = (&Key, Duration)> {
        self.steps.iter().filter_map(|(key, step)| Some((key, step.since?.elapsed())))
    }

    /// How long the user's command has been running.
    pub fn elapsed(&self) -> Option<Duration> {
        self.began.map(|began| began.elapsed())
    }

    /// An action's label: its step, and what distinguishes it from other actions of that step.
    pub fn label(&self, key: &Key) -> String {
        let mut label = brief(&key.step);
        if !self.project.is_empty() {
            label.insert_str(0, &format!("{}:", self.project));
        }
        if key.shards > 1 {
            label.push_str(&format!("[{}/{}]", key.shard + 1, key.shards));
        }
        if self.targets.len() > 1 {
            label.push_str(&format!(" {}", self.target_label(&key.platform, &key.target)));
        }
        label
    }

    /// A target's label: its platform, or its own name if several targets have that platform.
    pub fn target_label<'a>(&self, platform: &'a str, target: &'a str) -> &'a str {
        let same_platform = self.targets.iter().filter(|(other, _)| other == platform).count();
        if same_platform > 1 { target } else { platform }
    }

    /// The directory below the output directory for artifacts of a platform and target; `None` for a build with only
    /// one.
    pub fn directory(&self, platform: &str, target: &str) -> Option<String> {
        if self.targets.len() <= 1 {
            return None;
        }
        let plain = |text: &str| -> String {
            text.chars()
                .map(|char| if char.is_ascii_alphanumeric() || "._-".contains(char) { char } else { '-' })
                .collect()
        };
        let platform_dir = plain(platform).trim_start_matches('.').to_owned();
        let same_platform = self.targets.iter().filter(|(other, _)| other == platform).count();
        Some(if same_platform > 1 { format!("{platform_dir}-{}", plain(target)) } else { platform_dir })
    }

    /// The first dependency layer that was a hit in an earlier build and had to run in this one. Other steps miss after
    /// every edit.
    pub fn surprising(&self) -> Option<&Key> {
        let hit_before =
            |step: &Step| step.finished.as_ref().is_some_and(|finished| finished.ok && finished.hit_before);
        let is_layer = |key: &Key| self.layers.contains(&key.step);
        self.steps.iter().find(|(key, step)| is_layer(key) && hit_before(step)).map(|(key, _)| key)
    }

    /// The actions that failed.
    pub fn failed(&self) -> impl Iterator<Item = (&Key, &Step, &v1::StepFinished)> {
        self.steps.iter().filter_map(|(key, step)| {
            step.finished.as_ref().filter(|finished| !finished.ok).map(|finished| (key, step, finished))
        })
    }
}

impl Step {
    /// Keeps text for the last lines.
    pub fn keep(&mut self, text: &str) {
        for line in text.lines() {
            if self.tail.len() == TAIL_LINES {
                self.tail.pop_front();
            }
            self.tail.push_back(line.to_owned());
        }
    }
}

fn key(step: Option<v1::StepRef>) -> Key {
    step.unwrap_or_default().into()
}
