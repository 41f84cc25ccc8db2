//! Chooses the environment that a target is built in.
//!
//! All steps of a target run in one environment, identified by its fingerprint, so that their results fit together.
//! Among the matching environments, native ones come before emulated ones, then those whose libc is not newer than the
//! target's, then those with the most CPUs, then the smallest fingerprint. The choice is deterministic.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod packages;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use kiln_planner::plan::{Libc, Step, Target, Tool};
use kiln_proto::property::{self, cpu_levels};
use kiln_proto::{clock, v1};
use kiln_scheduler::{Pool, Requirements};

/// The environment for a target, or the reason why there is none.
pub fn choose(
    workers: &[v1::Worker],
    target: &Target,
    steps: &[Step],
    allow_emulation: bool,
) -> Result<v1::Environment, String> {
    let mut refused = Vec::new();
    // By fingerprint, then by CPU: all steps whose results depend on the CPU run on the same kind.
    let mut groups: BTreeMap<&str, BTreeMap<&str, (u64, &v1::Environment)>> = BTreeMap::new();
    for worker in workers {
        let Some(environment) = worker.environment.as_ref() else { continue };
        let mut lacks = lacks(environment, target, steps);
        if environment.emulated && !allow_emulation {
            lacks.push("is emulated, which requires `--allow-emulation`".to_owned());
        }
        if lacks.is_empty() {
            let cpus = worker.capacity.map_or(0, |capacity| u64::from(capacity.milli_cpus));
            let kinds = groups.entry(&environment.fingerprint).or_default();
            let kind = kinds.entry(&environment.cpu).or_insert((0, environment));
            kind.0 = kind.0.saturating_add(cpus);
        } else {
            refused.push(format!("worker `{}` {}", worker.worker, lacks.join(" and ")));
        }
    }
    let groups = groups.into_iter().filter_map(|(fingerprint, kinds)| {
        let cpus: u64 = kinds.values().map(|(cpus, _)| cpus).sum();
        let (_, (_, environment)) = kinds.into_iter().max_by_key(|(cpu, (cpus, _))| (*cpus, Reverse(*cpu)))?;
        Some((fingerprint, cpus, environment))
    });
    let best = groups.max_by_key(|(fingerprint, cpus, environment)| {
        (!environment.emulated, !is_newer(environment, target), *cpus, Reverse(*fingerprint))
    });
    best.map(|(_, _, environment)| environment.clone()).ok_or_else(|| {
        let wanted = wanted(target);
        if refused.is_empty() {
            return format!("no worker is connected; one with {wanted} is required");
        }
        let isa = target.platform.isa();
        let is_elsewhere = |worker: &v1::Worker| worker.environment.as_ref().is_none_or(|found| found.isa != isa);
        let hint = match workers.iter().all(is_elsewhere) {
            true => format!(
                "; start a worker on such a machine, or cross-compile: a step runs on the machines that its `platform` in `kiln.toml` names, \
                 and `$KILN_TARGET_PLATFORM` tells it to build for {}",
                target.platform
            ),
            false => String::new(),
        };
        format!("no worker matches {wanted}: {}{hint}", refused.join("; "))
    })
}

/// What the steps recommend and the chosen environment lacks.
pub fn recommendations(environment: &v1::Environment, target: &Target, steps: &[Step]) -> BTreeSet<String> {
    let tools = steps.iter().filter(|step| target.image_of(step).is_none()).flat_map(|step| &step.tools);
    let recommended = tools.map(|entry| Tool::read(entry)).filter(|tool| tool.recommended);
    recommended.filter_map(|tool| tool.unmet(environment.tools.get(tool.name)?)).collect()
}

/// The workers that may still come where none matches: those that left recently, or a pool that the configuration
/// declares. `None` if nobody is expected.
pub fn expected(
    away: &[v1::Worker],
    pools: &[Pool],
    target: &Target,
    steps: &[Step],
    allow_emulation: bool,
) -> Option<String> {
    let now = clock::now();
    let age = |worker: &v1::Worker| clock::milliseconds_between(worker.last_seen.as_ref(), Some(&now)) / 1000;
    let matches = |worker: &&v1::Worker| {
        let environment = worker.environment.as_ref();
        environment.is_some_and(|environment| {
            (allow_emulation || !environment.emulated) && lacks(environment, target, steps).is_empty()
        })
    };
    let lately = away.iter().filter(|worker| age(worker) < LATELY_S).filter(matches);
    let mut words: Vec<String> = lately
        .map(|worker| {
            let since = match age(worker) {
                0..60 => "less than a minute ago".to_owned(),
                seconds => format!("{} min ago", seconds / 60),
            };
            format!("`{}` was last seen {since}", worker.worker)
        })
        .collect();
    let asked = Requirements { properties: asked(target, steps), ..Requirements::default() };
    let pools = pools.iter().filter(|pool| pool.may_run(&asked));
    words.extend(pools.map(|pool| format!("pool `{}` has no workers now", pool.name)));
    (!words.is_empty()).then(|| format!("a worker with {}: {}", wanted(target), words.join(", ")))
}

/// The first declared pool whose workers the target could be built on.
pub fn pool<'a>(pools: &'a [Pool], target: &Target, steps: &[Step]) -> Option<&'a str> {
    let asked = Requirements { properties: asked(target, steps), ..Requirements::default() };
    pools.iter().find(|pool| pool.may_run(&asked)).map(|pool| pool.name.as_str())
}

/// How long a worker that left is expected back: one hour, as in the scheduler.
const LATELY_S: u64 = 60 * 60;

/// What a target requires of a pool.
fn asked(target: &Target, steps: &[Step]) -> BTreeSet<(String, String)> {
    let mut asked = BTreeSet::from([(property::ISA.to_owned(), target.platform.isa().to_owned())]);
    let on_its_own_system = steps.is_empty() || steps.iter().any(|step| target.image_of(step).is_none());
    asked.extend(target.os.iter().filter(|_| on_its_own_system).map(|os| (property::OS.to_owned(), os.clone())));
    asked
        .extend(target.labels.iter().map(|(name, value)| (format!("{}{name}", property::LABEL_PREFIX), value.clone())));
    asked
}

fn wanted(target: &Target) -> String {
    let mut words = vec![target.platform.to_string()];
    words.extend(target.os.clone());
    words.extend(target.libc.map(|libc| libc.name().to_owned()));
    words.extend(target.cpu_level.clone());
    words.extend(target.labels.iter().map(|(name, value)| format!("label {name}={value}")));
    words.join(", ")
}

/// Whether an environment's GLIBC is newer than the target's: a program linked there may need symbols that production
/// lacks.
fn is_newer(environment: &v1::Environment, target: &Target) -> bool {
    let version = || {
        let (major, minor) = environment.libc.strip_prefix("glibc:")?.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    target.glibc.is_some_and(|bound| version().is_some_and(|version| version > bound))
}

fn lacks(environment: &v1::Environment, target: &Target, steps: &[Step]) -> Vec<String> {
    let mut lacks = Vec::new();
    if environment.isa != target.platform.isa() {
        lacks.push(format!("is {}", environment.isa));
    }
    // If every step brings its own image, the worker's system does not matter.
    let on_its_own_system = steps.is_empty() || steps.iter().any(|step| target.image_of(step).is_none());
    if let Some(os) = target.os.as_ref().filter(|os| on_its_own_system && **os != environment.os) {
        lacks.push(format!("runs {} instead of {os}", environment.os));
    }
    let libc = target.libc.filter(|_| on_its_own_system);
    let has_libc = |libc: &Libc| environment.libc.split(':').next() == Some(libc.name());
    if let Some(libc) = libc.filter(|libc| !has_libc(libc)) {
        let own = if environment.libc.is_empty() { "an unknown libc" } else { &environment.libc };
        lacks.push(format!("has {own} instead of {}", libc.name()));
    }
    if let Some(level) = target.cpu_level.as_ref().filter(|level| !cpu_levels(&environment.cpu_level).contains(level)) {
        lacks.push(format!("has CPU level {} instead of {level}", environment.cpu_level));
    }
    for (name, value) in &target.labels {
        match environment.labels.get(name) {
            Some(own) if own == value => {}
            Some(own) => lacks.push(format!("has label {name}={own} instead of {value}")),
            None => lacks.push(format!("is missing required label {name}={value}")),
        }
    }
    let mut unmet: BTreeSet<String> = BTreeSet::new();
    let mut absent: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for step in steps.iter().filter(|step| target.image_of(step).is_none()) {
        for tool in step.tools.iter().map(|entry| Tool::read(entry)) {
            match environment.tools.get(tool.name) {
                None if kiln_proto::property::PROBED_TOOLS.contains(&tool.name) => {
                    absent.entry(tool.name).or_default().insert(&step.name);
                }
                Some(said) if !tool.recommended => unmet.extend(tool.unmet(said)),
                _ => {}
            }
        }
    }
    if !unmet.is_empty() {
        let words = unmet.into_iter().collect::<Vec<_>>().join(" and ");
        lacks.push(format!(
            "{words}: install that version there, change what requires it, or set `tools` of the step in `kiln.toml`"
        ));
    }
    if !absent.is_empty() {
        let tools: Vec<String> = absent
            .iter()
            .map(|(tool, steps)| {
                let steps: Vec<String> = steps.iter().map(|step| format!("`{step}`")).collect();
                format!("`{tool}` (called by step {})", steps.join(", "))
            })
            .collect();
        let with = packages::install(&environment.os, absent.keys().copied());
        let with = with.map(|command| format!(": `{command}`")).unwrap_or_default();
        lacks.push(format!("has no {}: install what is missing on the worker{with}", tools.join(" and no ")));
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_planner::plan::Platform;

    fn target(os: Option<&str>) -> Target {
        Target { name: "prod".into(), os: os.map(Into::into), libraries: Vec::new(), ..Target::bare(Platform::Amd64) }
    }

    fn worker(name: &str, fingerprint: &str, cpus: u32, tools: &[&str]) -> v1::Worker {
        let environment = v1::Environment {
            fingerprint: fingerprint.into(),
            isa: "x86-64".into(),
            os: "debian:12".into(),
            tools: tools.iter().map(|tool| ((*tool).to_owned(), "1".to_owned())).collect(),
            ..Default::default()
        };
        let capacity = Some(v1::Capacity { milli_cpus: cpus, memory_bytes: 1 });
        v1::Worker { worker: name.into(), environment: Some(environment), capacity, ..Default::default() }
    }

    fn step(tools: &[&str]) -> Step {
        let mut step = Step::new("compile", "true");
        step.tools = tools.iter().map(|tool| (*tool).to_owned()).collect();
        step
    }

    #[test]
    fn without_a_machine_of_the_architecture_the_error_says_how_to_do_without_one() {
        let arm64 = Target { platform: Platform::Arm64, ..target(None) };
        let mut workers = vec![worker("a", "f1", 2000, &[]), worker("b", "f1", 2000, &[])];
        let refused = choose(&workers, &arm64, &[step(&[])], false).unwrap_err();
        assert!(refused.contains("`a` is x86-64; worker `b` is x86-64; start a worker on such a machine"), "{refused}");
        assert!(refused.contains("cross-compile") && refused.contains("build for linux/arm64"), "{refused}");
        // There is one, but it may not be used.
        workers[1].environment.as_mut().unwrap().isa = "arm-a64".into();
        workers[1].environment.as_mut().unwrap().emulated = true;
        let refused = choose(&workers, &arm64, &[step(&[])], false).unwrap_err();
        assert!(refused.contains("--allow-emulation") && !refused.contains("cross-compile"), "{refused}");
    }

    #[test]
    fn the_environment_with_the_most_cpus_is_chosen_whatever_the_order_of_workers() {
        let mut workers =
            vec![worker("a", "f1", 2000, &[]), worker("b", "f2", 1500, &[]), worker("c", "f2", 1500, &[])];
        for _ in 0..3 {
            workers.rotate_left(1);
            assert_eq!(choose(&workers, &target(None), &[], false).unwrap().fingerprint, "f2");
        }
    }

    #[test]
    fn a_worker_that_was_here_lately_or_a_declared_pool_is_expected_and_others_are_not() {
        let now = clock::now();
        let left = |ago: i64| Some(kiln_proto::protobuf::Timestamp { seconds: now.seconds - ago, ..now });
        let away = v1::Worker { last_seen: left(300), ..worker("a", "f1", 1, &["cc"]) };
        let expect =
            |away: &[v1::Worker], pools: &[Pool], steps: &[Step]| expected(away, pools, &target(None), steps, false);
        let words = expect(std::slice::from_ref(&away), &[], &[step(&["cc"])]).unwrap();
        assert_eq!(words, "a worker with linux/amd64: `a` was last seen 5 min ago");
        assert_eq!(expect(std::slice::from_ref(&away), &[], &[step(&["go"])]), None);
        assert_eq!(expect(&[v1::Worker { last_seen: left(3600), ..away }], &[], &[]), None);
        let pool = |isa: &str| Pool {
            name: "cloud".to_owned(),
            properties: [("ISA".to_owned(), isa.to_owned())].into(),
            capacity: None,
        };
        assert!(expect(&[], &[pool("x86-64")], &[]).unwrap().contains("pool `cloud` has no workers now"));
        assert_eq!(expect(&[], &[pool("arm-a64")], &[]), None);
    }

    #[test]
    fn a_missing_tool_and_a_wrong_os_are_named_with_what_there_is() {
        let workers = [worker("a", "f1", 1, &["cc"])];
        let words = choose(&workers, &target(Some("ubuntu:24.04")), &[step(&["go"])], false).unwrap_err();
        for part in ["`a`", "debian:12", "ubuntu:24.04", "`go`", "`compile`", "`apt-get install golang-go`"] {
            assert!(words.contains(part), "expected {part} in: {words}");
        }
        assert!(choose(&[], &target(None), &[], false).unwrap_err().contains("no worker is connected"));
    }

    #[test]
    fn a_pinned_version_is_held_against_the_workers_tool() {
        let mut old = worker("a", "f1", 1, &[]);
        let tools = [("python3".to_owned(), "Python 3.11.2".to_owned()), ("node".to_owned(), "v20.1.0".to_owned())];
        old.environment.as_mut().unwrap().tools = tools.into();
        let workers = [old];
        let words = choose(&workers, &target(None), &[step(&["python3 =3.12 (.python-version)"])], false).unwrap_err();
        assert!(words.contains("has python3 3.11.2, but `.python-version` requires =3.12"), "{words}");
        let recommended = [step(&["python3 =3.11 (.python-version)", "node ^22? (package.json)"])];
        let chosen = choose(&workers, &target(None), &recommended, false).unwrap();
        let told: Vec<String> = recommendations(&chosen, &target(None), &recommended).into_iter().collect();
        assert_eq!(told, ["has node 20.1.0, but `package.json` requires ^22"]);
    }

    #[test]
    fn a_workers_own_system_does_not_matter_where_every_step_has_an_image() {
        let workers = [worker("a", "f1", 1, &[])];
        let mut in_image = step(&["go"]);
        in_image.image = Some("golang:1".into());
        assert!(choose(&workers, &target(Some("ubuntu:24.04")), &[in_image.clone()], false).is_ok());
        assert!(choose(&workers, &target(Some("ubuntu:24.04")), &[in_image, step(&[])], false).is_err());
    }

    #[test]
    fn an_environment_without_a_tool_gives_way_to_one_that_has_it() {
        let workers = [worker("a", "f1", 64_000, &[]), worker("b", "f2", 1000, &["go"])];
        assert_eq!(choose(&workers, &target(None), &[step(&["go"])], false).unwrap().fingerprint, "f2");
    }

    #[test]
    fn an_emulated_environment_is_taken_only_where_it_is_allowed_and_nothing_native_matches() {
        let mut emulated = worker("fast", "f1", 64_000, &[]);
        emulated.environment.as_mut().unwrap().emulated = true;
        let native = worker("slow", "f2", 1000, &[]);
        let both = [emulated.clone(), native];
        assert_eq!(choose(&both, &target(None), &[], true).unwrap().fingerprint, "f2");
        let alone = [emulated];
        assert_eq!(choose(&alone, &target(None), &[], true).unwrap().fingerprint, "f1");
        let words = choose(&alone, &target(None), &[], false).unwrap_err();
        assert!(words.contains("`fast`") && words.contains("--allow-emulation"), "{words}");
    }

    #[test]
    fn libc_cpu_level_and_labels_that_miss_are_named_with_what_there_is() {
        let mut poor = worker("a", "f1", 1, &[]);
        let environment = poor.environment.as_mut().unwrap();
        environment.libc = "musl:1.2.4".into();
        environment.cpu_level = "x86-64-v2".into();
        environment.labels = [("gpu".to_owned(), "a100".to_owned())].into();
        let mut asked = target(None);
        asked.libc = Some(Libc::Glibc);
        asked.cpu_level = Some("x86-64-v3".into());
        asked.labels = [("gpu".to_owned(), "none".to_owned()), ("disk".to_owned(), "ssd".to_owned())].into();
        let words = choose(&[poor.clone()], &asked, &[], false).unwrap_err();
        let parts =
            ["musl:1.2.4 instead of glibc", "x86-64-v2 instead of x86-64-v3", "gpu=a100 instead of none", "disk=ssd"];
        for part in parts {
            assert!(words.contains(part), "expected {part} in: {words}");
        }
        asked = target(None);
        asked.cpu_level = Some("x86-64-v1".into());
        assert!(choose(&[poor], &asked, &[], false).is_ok(), "expected a CPU to run what a lower level asks for");
    }

    #[test]
    fn an_environment_with_an_older_libc_than_productions_goes_before_one_with_a_newer() {
        let of = |name: &str, fingerprint: &str, cpus: u32, libc: &str| {
            let mut worker = worker(name, fingerprint, cpus, &[]);
            worker.environment.as_mut().unwrap().libc = libc.into();
            worker
        };
        let mut asked = target(None);
        asked.glibc = Some((2, 36));
        let workers = [of("new", "f1", 64_000, "glibc:2.39"), of("old", "f2", 1000, "glibc:2.9")];
        assert_eq!(choose(&workers, &asked, &[], false).unwrap().fingerprint, "f2");
        // Without one, the check of the artifact decides.
        assert_eq!(choose(&workers[..1], &asked, &[], false).unwrap().fingerprint, "f1");
    }
}
