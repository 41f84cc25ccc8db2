//! Which of the farm's environments a target is built in.
//!
//! All steps of a target run in one environment, named by its fingerprint, so that their results fit together. Chosen is the one
//! with the most CPUs among those that match, and among equals the smallest fingerprint: deterministic.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::plan::{Step, Target};
use kiln_proto::v1;

/// An environment of the farm.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Its fingerprint.
    pub fingerprint: String,
    /// What its workers said of their machines.
    pub environment: v1::Environment,
}

/// The environment for a target, or in words why there is none.
pub fn choose(workers: &[v1::Worker], target: &Target, steps: &[Step]) -> Result<Chosen, String> {
    let mut refused = Vec::new();
    let mut groups: BTreeMap<String, (u64, v1::Environment)> = BTreeMap::new();
    for worker in workers {
        let Some(environment) = worker.environment.as_ref() else { continue };
        let lacks = lacks(environment, target, steps);
        if lacks.is_empty() {
            let cpus = worker.capacity.map_or(0, |capacity| u64::from(capacity.milli_cpus));
            groups.entry(environment.fingerprint.clone()).or_insert_with(|| (0, environment.clone())).0 += cpus;
        } else {
            refused.push(format!("worker `{}` {}", worker.worker, lacks.join(" and ")));
        }
    }
    let mut best: Option<(u64, Chosen)> = None;
    for (fingerprint, (cpus, environment)) in groups {
        if best.as_ref().is_none_or(|(most, _)| cpus > *most) {
            best = Some((cpus, Chosen { fingerprint, environment }));
        }
    }
    best.map(|(_, chosen)| chosen).ok_or_else(|| {
        let wanted = wanted(target);
        if refused.is_empty() {
            return format!("no worker is connected; target `{}` needs one with {wanted}", target.name);
        }
        format!("no worker matches target `{}` ({wanted}): {}", target.name, refused.join("; "))
    })
}

fn wanted(target: &Target) -> String {
    let mut words = vec![target.platform.to_string()];
    words.extend(target.os.clone());
    words.extend(target.labels.iter().map(|(name, value)| format!("label {name}={value}")));
    words.join(", ")
}

fn lacks(environment: &v1::Environment, target: &Target, steps: &[Step]) -> Vec<String> {
    let mut lacks = Vec::new();
    if environment.isa != target.platform.isa() {
        lacks.push(format!("is {}", environment.isa));
    }
    // Where every step brings its image, the worker's own system is nobody's.
    let on_its_own_system = steps.is_empty() || steps.iter().any(|step| step.image.is_none());
    if let Some(os) = target.os.as_ref().filter(|os| on_its_own_system && **os != environment.os) {
        lacks.push(format!("runs {} and not {os}", environment.os));
    }
    for (name, value) in &target.labels {
        if environment.labels.get(name) != Some(value) {
            lacks.push(format!("has no label {name}={value}"));
        }
    }
    let mut absent: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for step in steps.iter().filter(|step| step.image.is_none()) {
        for tool in step.tools.iter().map(String::as_str) {
            if kiln_proto::property::PROBED_TOOLS.contains(&tool) && !environment.tools.contains_key(tool) {
                absent.entry(tool).or_default().insert(&step.name);
            }
        }
    }
    if !absent.is_empty() {
        let tools: Vec<String> = absent
            .iter()
            .map(|(tool, steps)| {
                let steps: Vec<String> = steps.iter().map(|step| format!("`{step}`")).collect();
                format!("`{tool}` (called by step {})", steps.join(", "))
            })
            .collect();
        lacks.push(format!("has no {}: install what is missing there", tools.join(" and no ")));
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_core::plan::Platform;

    fn target(os: Option<&str>) -> Target {
        Target {
            name: "prod".into(),
            platform: Platform::Amd64,
            os: os.map(Into::into),
            glibc: None,
            labels: BTreeMap::new(),
            libraries: Vec::new(),
        }
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
    fn the_environment_with_the_most_cpus_is_chosen_whatever_the_order_of_workers() {
        let mut workers =
            vec![worker("a", "f1", 2000, &[]), worker("b", "f2", 1500, &[]), worker("c", "f2", 1500, &[])];
        for _ in 0..3 {
            workers.rotate_left(1);
            assert_eq!(choose(&workers, &target(None), &[]).unwrap().fingerprint, "f2");
        }
    }

    #[test]
    fn a_missing_tool_and_a_wrong_os_are_named_with_what_there_is() {
        let workers = [worker("a", "f1", 1, &["cc"])];
        let words = choose(&workers, &target(Some("ubuntu:24.04")), &[step(&["go"])]).unwrap_err();
        for part in ["`a`", "debian:12", "ubuntu:24.04", "`go`", "`compile`"] {
            assert!(words.contains(part), "expected {part} in: {words}");
        }
        assert!(choose(&[], &target(None), &[]).unwrap_err().contains("no worker is connected"));
    }

    #[test]
    fn a_workers_own_system_does_not_matter_where_every_step_has_an_image() {
        let workers = [worker("a", "f1", 1, &[])];
        let mut in_image = step(&["go"]);
        in_image.image = Some("golang:1".into());
        assert!(choose(&workers, &target(Some("ubuntu:24.04")), &[in_image.clone()]).is_ok());
        assert!(choose(&workers, &target(Some("ubuntu:24.04")), &[in_image, step(&[])]).is_err());
    }

    #[test]
    fn an_environment_without_a_tool_gives_way_to_one_that_has_it() {
        let workers = [worker("a", "f1", 64_000, &[]), worker("b", "f2", 1000, &["go"])];
        assert_eq!(choose(&workers, &target(None), &[step(&["go"])]).unwrap().fingerprint, "f2");
    }
}
