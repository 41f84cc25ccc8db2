//! What a build reports: its events, and the state of its steps that goes with them.

use std::time::Duration;

use kiln_planner::plan::Step;
use kiln_proto::clock;
use kiln_proto::v1::step_state::Phase;
use kiln_proto::v1::{self, StepRef, event};

use super::Work;

impl Work {
    /// How long its steps wait while no worker could run them, if the build sets its own limit.
    pub(crate) fn queue_timeout(&self) -> Option<Duration> {
        clock::read_duration(&self.request.queue_timeout?)
    }

    /// Appends an event and updates the build's own state accordingly.
    pub(crate) fn tell(&self, event: event::Event) {
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

pub(super) fn started(work: &Work) -> v1::BuildStarted {
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
    let steps = u32::try_from(planned.len()).unwrap_or(u32::MAX);
    work.build.lock().counts = Some(v1::StepCounts { steps, ..v1::StepCounts::default() });
    v1::BuildStarted {
        build: build.id,
        project: build.project,
        version: build.version,
        steps: planned,
        resumed: work.resumed,
    }
}

/// Whether a step stays a cache hit after an ordinary edit: it sees only some of the files, and fetches or serves a
/// step that sees them all.
fn is_layer(step: &Step, steps: &[Step]) -> bool {
    let sees_some = |step: &Step| step.inputs.iter().any(|glob| !glob.starts_with('!'));
    let serves_all = steps.iter().any(|other| other.needs.contains(&step.name) && !sees_some(other));
    sees_some(step) && (step.network || serves_all)
}
