//! The environment of a target, chosen when something is to run there.
//!
//! Invariant: a target whose images are only copied together waits for no worker.

use std::sync::Arc;
use std::time::Duration;

use kiln_planner::plan::{Platform, Step, Target};
use kiln_proto::v1::{self, event};
use tokio::sync::OnceCell;

use super::{Work, waiting};

/// How long a resumed build, or a build on a farm that has just started, waits for workers to join.
pub(super) const JOINING: Duration = Duration::from_secs(30);

/// Where a target is built.
pub(super) struct Chosen<'a> {
    work: &'a Work,
    target: &'a Target,
    found: OnceCell<Arc<v1::Environment>>,
}

impl<'a> Chosen<'a> {
    /// Nothing is chosen yet.
    pub(super) fn new(work: &'a Work, target: &'a Target) -> Self {
        Self { work, target, found: OnceCell::new() }
    }

    /// The environment. The first call chooses it, and says what the user should know of it.
    ///
    /// # Errors
    /// If no worker has one, with the reason. It is the farm's fault.
    pub(super) async fn get(&self) -> Result<Arc<v1::Environment>, String> {
        self.found.get_or_try_init(|| self.choose()).await.cloned()
    }

    /// The system there, as `debian:12`; empty if nothing was to run.
    pub(super) fn os(&self) -> &str {
        self.found.get().map_or("", |environment| &environment.os)
    }

    /// The environment, if something was to run.
    pub(super) fn known(&self) -> Option<Arc<v1::Environment>> {
        self.found.get().cloned()
    }

    async fn choose(&self) -> Result<Arc<v1::Environment>, String> {
        let (work, target) = (self.work, self.target);
        let steps = steps_on(work, target, target.platform);
        let environment = environment_of(work, target, &steps).await?;
        if environment.emulated {
            let text = format!("no native worker matches target `{}`; it is built on an emulated machine", target.name);
            work.tell(event::Event::Warning(v1::Warning { text }));
        }
        for text in kiln_environments::recommendations(&environment, target, &steps) {
            work.tell(event::Event::Warning(v1::Warning {
                text: format!("target `{}`: the worker {text}", target.name),
            }));
        }
        Ok(Arc::new(environment))
    }
}

/// The steps of a target that run on a platform.
pub(super) fn steps_on(work: &Work, target: &Target, platform: Platform) -> Vec<Step> {
    work.plan.steps.iter().filter(|step| target.platform_of(step) == platform).cloned().collect()
}

/// The environment in which these steps of a target run. If no worker has one, waits: for expected workers, as long as the build's queue timeout
/// allows; and for any worker, a moment, if the farm has just started or the build was resumed.
pub(super) async fn environment_of(work: &Work, target: &Target, steps: &[Step]) -> Result<v1::Environment, String> {
    let now = tokio::time::Instant::now();
    let wait_limit = work.queue_timeout().unwrap_or_else(|| work.execution.queue_timeout());
    let (until, joining) = (now + wait_limit, if work.resumed { now } else { work.execution.began() } + JOINING);
    let mut told = String::new();
    let mut counted = None;
    let mut changed = work.execution.workers_changed();
    loop {
        changed.mark_unchanged();
        let farm = work.execution.farm().await.map_err(|status| status.message().to_owned())?;
        let words = match kiln_environments::choose(&farm.workers, target, steps, work.allow_emulation) {
            Ok(environment) => {
                if !told.is_empty() {
                    work.tell(event::Event::Waiting(waiting::of(target)));
                }
                return Ok(environment);
            }
            Err(words) => words,
        };
        let now = tokio::time::Instant::now();
        let starts = (farm.workers.is_empty() || work.resumed) && now < joining;
        let expected =
            kiln_environments::expected(&farm.away, work.execution.pools(), target, steps, work.allow_emulation);
        let (what, until) = match expected {
            _ if now >= until => {
                let waited = wait_limit.as_secs();
                return Err(format!("{words}; none joined within {waited} s (`--queue-timeout`)"));
            }
            Some(expected) => (expected, until),
            None if starts => ("a worker to join: the farm has just started".to_owned(), joining.min(until)),
            None => return Err(words),
        };
        let pool = kiln_environments::pool(work.execution.pools(), target, steps);
        counted = counted.or_else(|| Some(work.metrics.as_ref()?.waits(target.platform, pool)));
        if what != told {
            let gives_up = waiting::gives_up(until.saturating_duration_since(now));
            let waiting = v1::Waiting { what: what.clone(), gives_up, ..waiting::of(target) };
            work.tell(event::Event::Waiting(waiting));
            told = what;
        }
        // Which workers are expected changes with time, too.
        let look = until.min(now + JOINING);
        let _ = tokio::time::timeout_at(look, changed.changed()).await;
    }
}
