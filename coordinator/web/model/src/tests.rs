use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::{
    BuildFinished, BuildStarted, PlannedStep, StepFinished, StepQueued, StepStarted, step_finished::Cache,
};

use super::*;

/// A step that a test tells of.
pub(super) struct Told {
    pub(super) name: &'static str,
    pub(super) needs: &'static [&'static str],
    /// In seconds.
    pub(super) took: i64,
    pub(super) hit: bool,
    pub(super) ok: bool,
}

pub(super) fn reference(name: &str) -> StepRef {
    StepRef { step: name.into(), platform: "linux/amd64".into(), target: String::new(), shard: 0, shards: 1 }
}

pub(super) fn event(offset: u64, seconds: i64, event: event::Event) -> Event {
    Event { offset, at: Some(Timestamp { seconds, nanos: 0 }), event: Some(event) }
}

/// The events of a build whose steps run one after the other.
pub(super) fn events(steps: &[Told]) -> Vec<Event> {
    let planned = steps.iter().map(|step| PlannedStep {
        step: Some(reference(step.name)),
        needs: step.needs.iter().map(|need| (*need).to_owned()).collect(),
        ..PlannedStep::default()
    });
    let started = BuildStarted { steps: planned.collect(), ..BuildStarted::default() };
    let mut events = vec![event(0, 0, event::Event::BuildStarted(started))];
    let mut now = 0;
    for step in steps {
        let at = Some(reference(step.name));
        let mut tell = |now, what| events.push(event(events.len() as u64, now, what));
        tell(now, event::Event::StepQueued(StepQueued { step: at.clone() }));
        tell(
            now + 1,
            event::Event::StepStarted(StepStarted { step: at.clone(), worker: "one".into(), expected_ms: 0 }),
        );
        now += step.took;
        let cache = if step.hit { Cache::Hit } else { Cache::Miss };
        let done = StepFinished { step: at, cache: cache.into(), ok: step.ok, ..StepFinished::default() };
        tell(now, event::Event::StepFinished(done));
    }
    let status = if steps.iter().all(|step| step.ok) { Status::Succeeded } else { Status::Failed };
    let last = BuildFinished { status: status.into(), ..BuildFinished::default() };
    events.push(event(events.len() as u64, now, event::Event::BuildFinished(last)));
    events
}

pub(super) fn told(steps: &[Told]) -> Progress {
    let mut progress = Progress::default();
    events(steps).iter().for_each(|event| _ = progress.apply(event));
    progress
}

#[test]
fn a_build_is_what_its_events_say() {
    let progress = told(&[
        Told { name: "deps", needs: &[], took: 5, hit: true, ok: true },
        Told { name: "compile", needs: &["deps"], took: 50, hit: false, ok: false },
    ]);
    assert_eq!((progress.status, progress.started, progress.ended), (Some(Status::Failed), Some(0), Some(55_000)));
    assert_eq!((progress.count(Outcome::Hit), progress.count(Outcome::Failed)), (1, 1));
    let step = &progress.steps[1];
    assert_eq!((step.took(), step.worker.as_str(), step.attempts), (Some(50_000), "one", 1));
    assert_eq!(step.phases(0), Some((5_000, [1_000, 0, 49_000, 0])));
    assert_eq!(progress.find(&reference("compile")), Some(1));
}

#[test]
fn a_step_that_runs_again_keeps_its_place() {
    let mut progress = Progress::default();
    let mut all = events(&[Told { name: "compile", needs: &[], took: 5, hit: false, ok: true }]);
    all.pop();
    let again = event::Event::StepQueued(StepQueued { step: Some(reference("compile")) });
    all.push(event(9, 60, again));
    all.iter().for_each(|event| _ = progress.apply(event));
    assert_eq!((progress.steps.len(), progress.steps[0].attempts, progress.next), (1, 2, 10));
    assert_eq!(progress.steps[0].outcome(&progress), Outcome::Queued);
    assert_eq!(progress.steps[0].from, Some(1), "expected the log to begin with the first attempt");
}

#[test]
fn what_a_running_step_uses_is_kept_in_few_spans_until_its_end_says_all() {
    let mut progress = Progress::default();
    let at = || Some(reference("busy"));
    let begun = StepStarted { step: at(), ..StepStarted::default() };
    progress.apply(&event(0, 0, event::Event::StepStarted(begun.clone())));
    let uses = |second: u64, memory_bytes| {
        // Half a CPU.
        let usage =
            Some(v1::UsageSoFar { run_ms: second * 1000, cpu_ms: second * 500, memory_bytes, ..Default::default() });
        event(second, second as i64, event::Event::StepUsage(v1::StepUsage { step: at(), usage }))
    };
    for second in 1..=1000 {
        progress.apply(&uses(second, if second == 500 { 9 } else { 7 }));
    }
    // Time does not go back, and nothing is taken from what was used.
    progress.apply(&uses(3, 99));
    let usage = progress.steps[0].usage().unwrap();
    let spans = usage.over_time.as_ref().unwrap();
    assert!((60..120).contains(&spans.until_ms.len()), "{}", spans.until_ms.len());
    assert!(spans.until_ms.is_sorted() && spans.until_ms.last() == Some(&1_000_000), "{spans:?}");
    assert!(spans.milli_cpus.iter().all(|milli| *milli == 500), "{spans:?}");
    assert_eq!((spans.memory_bytes.iter().max(), usage.peak_memory_bytes, usage.cpu_ms), (Some(&9), 9, 500_000));
    // It was lost, and begins again elsewhere.
    progress.apply(&event(1001, 1001, event::Event::StepStarted(begun)));
    assert_eq!(progress.steps[0].usage(), None);
    let done = StepFinished { step: at(), ok: true, cache: Cache::Hit.into(), ..StepFinished::default() };
    progress.apply(&uses(1002, 1));
    progress.apply(&event(1003, 1003, event::Event::StepFinished(done)));
    assert_eq!(progress.steps[0].usage(), None, "expected a hit to have used nothing");
}
