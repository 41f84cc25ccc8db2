//! Where steps and commands of a Dockerfile run that name a platform: on workers of that one, which need not be the target's.
//!
//! Invariant: a target needs workers of its platform only if a command runs on it. What belongs to one target and one platform
//! runs in one environment.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kiln_planner::plan::{Platform, Step, Target};
use kiln_proto::property;
use kiln_proto::v1::{self, Worker, event};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::Work;
use crate::chosen::{JOINING, environment_of, steps_on};

/// The environment for a target and a platform.
type Chosen = Arc<OnceCell<Arc<v1::Environment>>>;

/// The places of a build.
#[derive(Debug, Default)]
pub(crate) struct Places {
    builder: OnceCell<Platform>,
    chosen: Mutex<HashMap<(String, Platform), Chosen>>,
}

impl Places {
    /// The platform of stages that name it as `$BUILDPLATFORM`, and of downloads. It stays the same while the build runs.
    pub(crate) async fn builder(&self, work: &Work) -> Result<Platform, String> {
        self.builder.get_or_try_init(|| builder_of(work)).await.copied()
    }

    /// The target and the environment for what runs on a platform that is not the target's. Waits for workers as a target does.
    pub(crate) async fn find(
        &self,
        work: &Work,
        target: &Target,
        platform: Platform,
    ) -> Result<(Target, Arc<v1::Environment>), String> {
        let there = on(target, platform);
        let cell = self.chosen.lock().entry((target.name.clone(), platform)).or_default().clone();
        let steps = steps_on(work, target, platform);
        let environment = cell.get_or_try_init(|| chosen(work, &there, &steps)).await?.clone();
        Ok((there, environment))
    }

    /// The environments that were used for a target's commands on other platforms than its own.
    pub(super) fn used(&self, target: &Target) -> BTreeMap<Platform, Arc<v1::Environment>> {
        let chosen = self.chosen.lock();
        let of_target = chosen.iter().filter(|((name, _), _)| *name == target.name);
        of_target.filter_map(|((_, platform), cell)| Some((*platform, cell.get()?.clone()))).collect()
    }

    /// Chooses again, because workers have gone.
    pub(super) fn forget(&self, target: &Target) {
        self.chosen.lock().retain(|(name, _), _| *name != target.name);
    }
}

/// The same target on a platform. What only its own platform can have is left out for another one.
pub(crate) fn on(target: &Target, platform: Platform) -> Target {
    if target.platform == platform {
        return target.clone();
    }
    Target { platform, os: None, glibc: None, libc: None, cpu_level: None, ..target.clone() }
}

async fn chosen(work: &Work, target: &Target, steps: &[Step]) -> Result<Arc<v1::Environment>, String> {
    let environment = environment_of(work, target, steps).await?;
    if environment.emulated {
        let (platform, name) = (target.platform, &target.name);
        let text = format!("no native {platform} worker matches target `{name}`; an emulated one is used");
        work.tell(event::Event::Warning(v1::Warning { text }));
    }
    Ok(Arc::new(environment))
}

async fn builder_of(work: &Work) -> Result<Platform, String> {
    let until = if work.resumed { tokio::time::Instant::now() } else { work.execution.began() } + JOINING;
    let mut changed = work.execution.workers_changed();
    loop {
        changed.mark_unchanged();
        let farm = work.execution.farm().await.map_err(|status| status.message().to_owned())?;
        if !farm.workers.is_empty() || tokio::time::Instant::now() >= until {
            return Ok(builder(&farm.workers, &work.plan.targets));
        }
        let _ = tokio::time::timeout_at(until, changed.changed()).await;
    }
}

/// The first target's platform if native workers of it run commands in roots; otherwise that of most CPUs of such workers; the first
/// target's if there are none.
fn builder(workers: &[Worker], targets: &[Target]) -> Platform {
    let mut cpus: BTreeMap<Platform, u64> = BTreeMap::new();
    for worker in workers {
        let Some(environment) = &worker.environment else { continue };
        let is_able = !environment.emulated && environment.executors.iter().any(|one| one == property::IN_ROOT);
        let platform = Platform::ALL.into_iter().find(|platform| platform.isa() == environment.isa);
        if let Some(platform) = platform.filter(|_| is_able) {
            *cpus.entry(platform).or_default() += worker.capacity.map_or(0, |capacity| u64::from(capacity.milli_cpus));
        }
    }
    let first = targets.first().map_or(Platform::Amd64, |target| target.platform);
    if cpus.contains_key(&first) {
        return first;
    }
    cpus.into_iter().max_by_key(|(platform, cpus)| (*cpus, Reverse(*platform))).map_or(first, |(platform, _)| platform)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(isa: &str, milli_cpus: u32, emulated: bool, executor: &str) -> Worker {
        let environment = v1::Environment {
            isa: isa.to_owned(),
            emulated,
            executors: vec![executor.to_owned()],
            ..v1::Environment::default()
        };
        let capacity = Some(v1::Capacity { milli_cpus, memory_bytes: 1 });
        Worker { environment: Some(environment), capacity, ..Worker::default() }
    }

    #[test]
    fn commands_run_natively_on_the_first_target_or_else_where_the_most_cpus_are() {
        let amd64 = || worker("x86-64", 4000, false, property::IN_ROOT);
        let arm64 = || worker("arm-a64", 2000, false, property::IN_ROOT);
        let of = |workers: &[Worker], targets: &[Platform]| {
            let targets: Vec<Target> = targets.iter().map(|platform| Target::bare(*platform)).collect();
            builder(workers, &targets)
        };
        let (amd, arm) = (Platform::Amd64, Platform::Arm64);
        assert_eq!(of(&[amd64(), arm64()], &[arm, amd]), arm);
        assert_eq!(of(&[amd64(), arm64()], &[amd, arm]), amd);
        assert_eq!(of(&[amd64()], &[arm]), amd, "what is compiled for arm64 needs no worker of it");
        assert_eq!(of(&[amd64(), worker("arm-a64", 9000, true, property::IN_ROOT)], &[arm]), amd, "not emulated");
        assert_eq!(of(&[worker("x86-64", 1, false, property::SANDBOX)], &[arm]), arm, "it runs nothing in roots");
        assert_eq!(of(&[], &[]), amd);
    }

    #[test]
    fn another_platform_keeps_the_labels_of_the_target_and_not_its_system() {
        let mut target = Target::bare(Platform::Amd64);
        (target.os, target.cpu_level) = (Some("debian:12".to_owned()), Some("x86-64-v3".to_owned()));
        target.labels.insert("zone".to_owned(), "a".to_owned());
        assert_eq!(on(&target, Platform::Amd64), target);
        let other = on(&target, Platform::Arm64);
        assert_eq!((other.name.as_str(), other.os, other.cpu_level), ("linux-amd64", None, None));
        assert_eq!(other.labels.len(), 1);
    }
}
