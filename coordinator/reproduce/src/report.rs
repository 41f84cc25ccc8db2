//! What comes of several steps: the outcome of an artifact, in words and in its provenance.

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1::{self, Reproduced};
use kiln_proto::{clock, protobuf::Timestamp};
use serde_json::{Value, json};

/// Steps that are recorded with an artifact.
const RECORDED: usize = 200;
/// Differences that are recorded of all steps together.
const ALL_DIFFERENCES: usize = 200;
/// Differences that a summary names.
const NAMED: usize = 10;

/// The outcome of an artifact from those of its steps. Steps with network access count if `network` says so.
pub fn outcome(steps: &[v1::ReproducedStep], network: bool) -> Reproduced {
    let counts = || steps.iter().filter(|step| network || !step.network);
    if counts().any(|step| step.outcome() == Reproduced::Different) {
        return Reproduced::Different;
    }
    if counts().any(|step| step.outcome() != Reproduced::Same) {
        return Reproduced::NotRun;
    }
    Reproduced::Same
}

/// What one verification of an artifact found, with as many steps as are recorded: those that differ first.
pub fn summary(build: &str, mut steps: Vec<v1::ReproducedStep>, network: bool) -> v1::Reproducibility {
    let outcome = outcome(&steps, network);
    let count = |which: Reproduced| steps.iter().filter(|step| step.outcome() == which).count() as u32;
    let (same, different) = (count(Reproduced::Same), count(Reproduced::Different));
    steps.sort_by_key(|step| match step.outcome() {
        Reproduced::Different => 0,
        Reproduced::NotRun | Reproduced::Unspecified => 1,
        Reproduced::Same => 2,
    });
    steps.truncate(RECORDED);
    let mut left = ALL_DIFFERENCES;
    for step in &mut steps {
        step.differences.truncate(left);
        left -= step.differences.len();
    }
    v1::Reproducibility {
        outcome: outcome.into(),
        build: build.to_owned(),
        at: Some(clock::now()),
        compared: same + different,
        different,
        steps,
        ..v1::Reproducibility::default()
    }
}

/// The annotation `reproduced` of a step in a provenance.
pub fn as_json(step: &v1::ReproducedStep) -> Value {
    let time = |at: &Option<Timestamp>| at.as_ref().map(clock::rfc3339);
    let conditions = |of: &Option<v1::RunConditions>| {
        of.as_ref().map(|of| {
            json!({
                "worker": of.worker,
                "startedOn": time(&of.began),
                "finishedOn": time(&of.ended),
                "cpus": of.cpus,
                "hostName": of.host_name,
            })
        })
    };
    json!({
        "outcome": name(step.outcome()),
        "reason": step.reason,
        "worker": step.second.as_ref().map_or("", |second| second.worker.as_str()),
        "conditions": { "first": conditions(&step.first), "second": conditions(&step.second) },
        "files": step.files,
        "differences": step.differences.iter().map(|one| json!({
            "path": one.path, "kind": one.kind, "words": one.words,
        })).collect::<Vec<_>>(),
    })
}

fn name(outcome: Reproduced) -> &'static str {
    match outcome {
        Reproduced::Same => "same",
        Reproduced::Different => "different",
        Reproduced::NotRun | Reproduced::Unspecified => "not-run",
    }
}

/// Whether a sample of a farm has an action of a build: others in each build, so that all get their turn. `millionths` of all are.
pub fn chosen(action: &Digest, build: &str, millionths: u64) -> bool {
    let hash = DigestFunction::Sha256.digest(format!("{action} {build}").as_bytes()).hex();
    let number = u64::from_str_radix(hash.get(..12).unwrap_or_default(), 16).unwrap_or(u64::MAX);
    number % 1_000_000 < millionths
}

/// The message of a build whose artifact did not come out the same.
pub fn words(found: &v1::Reproducibility) -> String {
    let mut named: Vec<String> = Vec::new();
    for step in found.steps.iter().filter(|step| step.outcome() == Reproduced::Different) {
        let name = step.step.as_ref().map_or("", |step| step.step.as_str());
        for one in &step.differences {
            let path = if one.path.is_empty() { String::new() } else { format!("`{}`: ", one.path) };
            named.push(format!("step `{name}`: {path}{}", one.words));
        }
    }
    named.extend(found.differences.iter().map(|one| format!("`{}`: {}", one.path, one.words)));
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    named.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(outcome: Reproduced, network: bool) -> v1::ReproducedStep {
        v1::ReproducedStep { outcome: outcome.into(), network, ..v1::ReproducedStep::default() }
    }

    #[test]
    fn what_was_fetched_may_differ_unless_that_counts() {
        let (same, different) = (step(Reproduced::Same, false), step(Reproduced::Different, true));
        assert_eq!(outcome(&[same.clone(), different.clone()], false), Reproduced::Same);
        assert_eq!(outcome(&[same.clone(), different], true), Reproduced::Different);
        assert_eq!(outcome(&[same.clone(), step(Reproduced::Different, false)], false), Reproduced::Different);
        assert_eq!(outcome(&[same, step(Reproduced::NotRun, false)], false), Reproduced::NotRun, "it is not proven");
    }

    #[test]
    fn a_sample_has_its_part_of_all_actions_and_others_in_another_build() {
        let action = |number: u32| DigestFunction::Sha256.digest(&number.to_le_bytes());
        let of = |build: &str| (0..10_000).filter(|number| chosen(&action(*number), build, 10_000)).collect::<Vec<_>>();
        let (one, other) = (of("a"), of("b"));
        assert!((50..200).contains(&one.len()), "{}", one.len());
        assert_ne!(one, other);
        assert!(!chosen(&action(1), "a", 0) && chosen(&action(1), "a", 1_000_000));
    }
}
