//! What comes of several steps: the outcome of an artifact, in words, in its provenance, and as a statement of its own.

use kiln_proto::v1::{self, Reproduced};
use kiln_proto::{
    clock,
    conditions::{varied, varied_in_all},
    protobuf::Timestamp,
};
use serde_json::{Value, json};

/// The type of a statement about what a verification found: `BUILDTYPE.md` of the artifacts.
pub const PREDICATE_TYPE: &str = "urn:kiln:reproduced:v1";

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
    let mut left: usize = ALL_DIFFERENCES;
    for step in &mut steps {
        step.differences.truncate(left);
        left = left.saturating_sub(step.differences.len());
    }
    v1::Reproducibility {
        outcome: outcome.into(),
        build: build.to_owned(),
        at: Some(clock::now()),
        compared: same.saturating_add(different),
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
                "directory": of.directory,
            })
        })
    };
    json!({
        "outcome": name(step.outcome()),
        "reason": step.reason,
        "worker": step.second.as_ref().map_or("", |second| second.worker.as_str()),
        "conditions": { "first": conditions(&step.first), "second": conditions(&step.second) },
        "varied": step.first.as_ref().zip(step.second.as_ref()).map(|(first, second)| varied(first, second)),
        "files": step.files,
        "differences": step.differences.iter().map(difference).collect::<Vec<_>>(),
    })
}

/// In which way an artifact was verified: `reproduced` if all of its steps ran again, `sampled` if some of them did, `rebuilt` if it was
/// built again from its sources.
pub fn way(found: &v1::Reproducibility) -> &'static str {
    match found {
        found if found.rebuilt => "rebuilt",
        found if found.sampled > 0 => "sampled",
        _ => "reproduced",
    }
}

/// The predicate of a statement about what a verification found.
pub fn predicate(found: &v1::Reproducibility) -> Value {
    let step = |step: &v1::ReproducedStep| {
        let name = step.step.as_ref().map_or("", |step| step.step.as_str());
        json!({ "name": name, "network": step.network, "reproduced": as_json(step) })
    };
    json!({
        "way": way(found),
        "outcome": name(found.outcome()),
        "invocationId": found.build,
        "finishedOn": found.at.as_ref().map(clock::rfc3339),
        "steps": found.steps.iter().map(step).collect::<Vec<_>>(),
        "stepsCompared": found.compared,
        "stepsDifferent": found.different,
        "varied": varied_in_all(&found.steps),
        "stepsInAll": (found.sampled > 0).then_some(found.sampled),
        "differences": found.differences.iter().map(difference).collect::<Vec<_>>(),
        "artifact": (!found.artifact.is_empty()).then_some(&found.artifact),
    })
}

fn difference(one: &v1::FileDifference) -> Value {
    json!({ "path": one.path, "kind": one.kind, "words": one.words })
}

fn name(outcome: Reproduced) -> &'static str {
    match outcome {
        Reproduced::Same => "same",
        Reproduced::Different => "different",
        Reproduced::NotRun | Reproduced::Unspecified => "not-run",
    }
}

/// Why a build fails whose artifact was compared, if it does, and whether that is the project's fault rather than the farm's.
///
/// # Errors
/// If the artifact did not come out the same, or that is not known.
pub fn verdict(artifact: &str, found: &v1::Reproducibility) -> Result<(), (bool, String)> {
    let words = words(found);
    match found.outcome() {
        Reproduced::Same => Ok(()),
        Reproduced::Different if found.rebuilt => {
            let made = &found.artifact;
            Err((true, format!("artifact `{artifact}` did not come out the same; this build made `{made}`\n{words}")))
        }
        Reproduced::Different => Err((true, format!("artifact `{artifact}` is not reproducible\n{words}"))),
        Reproduced::NotRun | Reproduced::Unspecified => {
            Err((false, format!("artifact `{artifact}` could not be verified\n{words}")))
        }
    }
}

/// What differs, a line each.
pub(super) fn words(found: &v1::Reproducibility) -> String {
    let mut named: Vec<String> = Vec::new();
    for step in found.steps.iter().filter(|step| step.outcome() == Reproduced::Different) {
        let name = step.step.as_ref().map_or("", |step| step.step.as_str());
        for one in &step.differences {
            let path = if one.path.is_empty() { String::new() } else { format!("`{}`: ", one.path) };
            named.push(format!("step `{name}`: {path}{}", one.words));
        }
    }
    for step in found.steps.iter().filter(|step| step.outcome() == Reproduced::NotRun) {
        let name = step.step.as_ref().map_or("", |step| step.step.as_str());
        named.push(format!("step `{name}` did not run again: {}", step.reason));
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
}
