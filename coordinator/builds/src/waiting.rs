//! Reports what a build waits for: a target with no running step says so after a moment, and again when the reason
//! changes.
//!
//! Invariant: a watcher never sees a target stand still for longer than [`LOOK_EVERY`] without a reason, unless it
//! waits for the same build's own steps.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use kiln_planner::plan::Target;
use kiln_proto::clock;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::{self, event};
use kiln_scheduler::WaiterId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Work;
use super::steps::Job;
use kiln_execution::{Holder, Wait};

/// How often waits are checked; shorter ones are not reported.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often a target reports changes of the same wait.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Maximum builds named as holding workers.
const NAMED: usize = 3;

/// An action of the build: target, step and shard.
type Key = (String, String, u32);

#[derive(Debug, Clone, Copy)]
enum State {
    /// The farm was asked to run it.
    Asked,
    /// It waits for a worker.
    Queued(WaiterId),
    Running,
}

/// The state of each of the build's actions.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<BTreeMap<Key, (State, Instant)>>);

/// One action; removed when this is dropped.
pub(super) struct Place<'a> {
    waits: &'a Waits,
    key: Key,
}

impl Waits {
    /// The farm is asked to run this action.
    pub(super) fn begin(&self, job: &Job) -> Place<'_> {
        let place = Place { waits: self, key: (job.target.name.clone(), job.step.name.clone(), job.shard) };
        place.set(State::Asked);
        place
    }

    /// The action of a target that has waited longest, if none of the target's actions runs.
    fn first(&self, target: &str) -> Option<(String, State, Instant)> {
        let all = self.0.lock();
        let of_target = || all.iter().filter(|((of, ..), _)| of == target);
        if of_target().any(|(_, (state, _))| matches!(state, State::Running)) {
            return None;
        }
        let ((_, step, _), (state, since)) = of_target().min_by_key(|(_, (_, since))| *since)?;
        Some((step.clone(), *state, *since))
    }
}

impl Place<'_> {
    fn set(&self, state: State) {
        self.waits.0.lock().insert(self.key.clone(), (state, Instant::now()));
    }

    /// It waits for a worker.
    pub(super) fn queued(&self, waiter: WaiterId) {
        self.set(State::Queued(waiter));
    }

    /// It is running.
    pub(super) fn runs(&self) {
        self.set(State::Running);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waits.0.lock().remove(&self.key);
    }
}

/// What was last reported for a target.
#[derive(Default)]
struct Told {
    what: String,
    at: Option<Instant>,
}

/// Reports what targets wait for, for as long as the build runs.
pub(super) async fn tell(work: &Work) -> Infallible {
    let mut told: BTreeMap<&str, Told> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for target in &work.plan.targets {
            let waiting = wait_of(work, target).await;
            let last = told.entry(&target.name).or_default();
            let what = waiting.as_ref().map_or("", |waiting| waiting.what.as_str());
            let soon = !what.is_empty() && last.at.is_some_and(|at| at.elapsed() < TELL_EVERY);
            if what == last.what || soon {
                continue;
            }
            *last = Told { what: what.to_owned(), at: Some(Instant::now()) };
            work.tell(event::Event::Waiting(waiting.unwrap_or_else(|| of(target))));
        }
    }
}

/// A report for a target that waits for nothing.
pub(super) fn of(target: &Target) -> v1::Waiting {
    v1::Waiting { platform: target.platform.to_string(), target: target.name.clone(), ..Default::default() }
}

/// When a wait that has this long left is given up.
pub(super) fn gives_up(left: Duration) -> Option<Timestamp> {
    Some(clock::timestamp(SystemTime::now() + left))
}

async fn wait_of(work: &Work, target: &Target) -> Option<v1::Waiting> {
    let (step, state, since) = work.waits.first(&target.name)?;
    if since.elapsed() < LOOK_EVERY {
        return None;
    }
    let waiting = v1::Waiting { step, ..of(target) };
    let waiter = match state {
        State::Running => return None,
        State::Asked => return work.execution.full_quota().map(|what| v1::Waiting { what, ..waiting }),
        State::Queued(waiter) => waiter,
    };
    match work.execution.wait_of(waiter).await? {
        Wait::Worker { reasons, left_ms } => Some(v1::Waiting {
            what: format!("a {} worker: {}", target.platform, reasons.join("; ")),
            gives_up: gives_up(Duration::from_millis(left_ms)),
            ..waiting
        }),
        Wait::Return { workers } => Some(v1::Waiting { what: returning(&workers), ..waiting }),
        Wait::Room { ahead, holders } => {
            let own = work.build.lock().id.clone();
            if !holders.is_empty() && holders.iter().all(|holder| holder.build.as_ref() == Some(&own)) {
                return None;
            }
            let names = names(work, &holders).await;
            let what = room(&holders, ahead, |build| names.get(build).cloned().unwrap_or_default());
            Some(v1::Waiting { what, ahead: ahead as u32, ..waiting })
        }
    }
}

/// Describes workers that may bring what they run.
fn returning(workers: &[String]) -> String {
    let (named, more) =
        (workers.iter().take(NAMED).map(|name| format!("`{name}`")), workers.len().saturating_sub(NAMED));
    let names = named.collect::<Vec<_>>().join(", ");
    let names = if more > 0 { format!("{names} and {more} more") } else { names };
    format!("workers that may be running it since before the coordinator restarted: {names}")
}

/// The names of builds that hold workers.
async fn names(work: &Work, holders: &[Holder]) -> BTreeMap<String, String> {
    let builds: BTreeSet<&String> = holders.iter().filter_map(|holder| holder.build.as_ref()).collect();
    let mut names = BTreeMap::new();
    for id in builds.into_iter().take(NAMED) {
        names.insert(id.clone(), whose(work, id).await);
    }
    names
}

/// Describes a build of this tenant.
async fn whose(work: &Work, id: &str) -> String {
    match work.records.build(id).await {
        Ok(Some(build)) if build.user.is_empty() => format!("build {id} ({})", build.project),
        Ok(Some(build)) => format!("build {id} ({}, by {})", build.project, build.user),
        _ if id.is_empty() => "a Remote Execution client's action".to_owned(),
        _ => format!("invocation {id}"),
    }
}

/// Describes what holds the workers.
fn room(holders: &[Holder], ahead: usize, whose: impl Fn(&str) -> String) -> String {
    let mut workers: Vec<&str> = holders.iter().map(|holder| holder.worker.as_str()).collect();
    workers.dedup();
    let mut builds: Vec<Option<&str>> = holders.iter().map(|holder| holder.build.as_deref()).collect();
    builds.sort_unstable();
    builds.dedup();
    let mut words = match workers.as_slice() {
        [] => "capacity on a worker, which is reserved for a larger action".to_owned(),
        [worker] => format!("capacity on worker `{worker}`, which runs "),
        some => format!("capacity on {} workers, which run ", some.len()),
    };
    let mut named: Vec<String> = builds.iter().flatten().take(NAMED).map(|build| whose(build)).collect();
    let others = builds.iter().flatten().count().saturating_sub(NAMED);
    if others > 0 {
        named.push(format!("{others} more"));
    }
    if builds.contains(&None) {
        named.push("work of other tenants".to_owned());
    }
    words.push_str(&named.join(", "));
    match ahead {
        0 => {}
        1 => words.push_str("; 1 action is ahead in the queue"),
        many => words.push_str(&format!("; {many} actions are ahead in the queue")),
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(worker: &str, build: Option<&str>) -> Holder {
        Holder { worker: worker.to_owned(), build: build.map(str::to_owned) }
    }

    #[test]
    fn what_holds_the_workers_is_named_once_and_other_tenants_are_not() {
        let whose = |build: &str| format!("build {build}");
        let one = [holder("a", Some("x")), holder("a", Some("x"))];
        assert_eq!(
            room(&one, 2, whose),
            "capacity on worker `a`, which runs build x; 2 actions are ahead in the queue"
        );
        let many = [holder("a", Some("x")), holder("b", None), holder("b", Some("y"))];
        assert_eq!(room(&many, 0, whose), "capacity on 2 workers, which run build x, build y, work of other tenants");
        assert_eq!(
            room(&[], 1, whose),
            "capacity on a worker, which is reserved for a larger action; 1 action is ahead in the queue"
        );
    }
}
