//! Second runs of steps, and what comes of comparing them.

use kiln_proto::clock;
use kiln_proto::conditions::{varied, varied_in_all};
use kiln_proto::v1::{self, Reproduced};
use serde_json::{Value, json};

use super::{Board, Key};
use kiln_terminal as terminal;

/// What came of it, in a word for programs.
pub(super) fn outcome_word(outcome: Reproduced) -> &'static str {
    match outcome {
        Reproduced::Same => "same",
        Reproduced::Different => "different",
        Reproduced::NotRun | Reproduced::Unspecified => "not-run",
    }
}

/// The lines about a second run; none when it is only queued.
pub(super) fn step_lines(board: &Board, again: &v1::StepAgain) -> Vec<String> {
    let label = board.label(&Key::from(again.step.clone().unwrap_or_default()));
    let Some(result) = &again.result else {
        return match again.worker.as_str() {
            "" => Vec::new(),
            worker => vec![format!("{label} | runs again on {worker}, to be compared")],
        };
    };
    let mut lines = vec![match result.outcome() {
        Reproduced::Same => format!("{label} | made the same again{}", elsewhere(result)),
        Reproduced::Different => {
            let files = terminal::count(usize::try_from(result.files.max(1)).unwrap_or(usize::MAX), "file");
            let counts = if result.network { "; it has network access, so this does not count" } else { "" };
            format!("{label} | DIFFERENT when it ran again{}: {files}{counts}", elsewhere(result))
        }
        Reproduced::NotRun | Reproduced::Unspecified => format!("{label} | could not run again: {}", result.reason),
    }];
    lines.extend(result.differences.iter().map(|one| format!("{label} |   {}", difference(one))));
    lines
}

/// Where the second run took place and what was other there.
fn elsewhere(result: &v1::ReproducedStep) -> String {
    let (Some(first), Some(second)) = (&result.first, &result.second) else { return String::new() };
    let mut words = Vec::new();
    if first.worker != second.worker {
        words.push(format!("on {} instead of {}", second.worker, first.worker));
    }
    if first.cpus != second.cpus && first.cpus > 0 {
        words.push(format!("{} instead of {}", terminal::count(second.cpus as usize, "CPU"), first.cpus));
    }
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

/// A difference in one line.
pub(super) fn difference(one: &v1::FileDifference) -> String {
    let path = if one.path.is_empty() { String::new() } else { format!("`{}`: ", one.path) };
    format!("{path}{} [{}]", one.words, one.kind)
}

/// What came of comparing an artifact, in one line.
pub fn compared_words(artifact: &str, found: &v1::Reproducibility) -> String {
    let steps = terminal::count(found.compared as usize, "step");
    let ran = match found.sampled {
        0 => format!("{steps} ran again"),
        all => format!("{} of {} ran again", found.compared, terminal::count(all as usize, "step")),
    };
    match (found.outcome(), found.rebuilt) {
        (Reproduced::Same, true) => format!("artifact {artifact} came out the same from its sources"),
        (Reproduced::Different, true) => {
            format!("artifact {artifact} came out DIFFERENT from its sources: {}", found.artifact)
        }
        (Reproduced::Same, false) if found.different > 0 => {
            format!(
                "artifact {artifact} is reproducible but for what it fetches: {ran}, {} with network access made something else",
                found.different
            )
        }
        (Reproduced::Same, false) => {
            let varied = varied_in_all(&found.steps);
            let under = if varied.is_empty() { String::new() } else { format!(" (varied: {})", varied.join(", ")) };
            format!("artifact {artifact} is reproducible: {ran} and made the same{under}")
        }
        (Reproduced::Different, false) => {
            format!("artifact {artifact} is NOT reproducible: {ran}, {} made something else", found.different)
        }
        (Reproduced::NotRun | Reproduced::Unspecified, _) => {
            format!("artifact {artifact} is not verified: not all of its steps could run again")
        }
    }
}

pub(super) fn step_object(again: &v1::StepAgain) -> Value {
    json!({ "worker": again.worker, "result": again.result.as_ref().map(result) })
}

fn result(step: &v1::ReproducedStep) -> Value {
    json!({
        "outcome": outcome_word(step.outcome()),
        "reason": step.reason,
        "network": step.network,
        "files": step.files,
        "first": step.first.as_ref().map(conditions),
        "second": step.second.as_ref().map(conditions),
        "varied": step.first.as_ref().zip(step.second.as_ref()).map(|(first, second)| varied(first, second)),
        "differences": step.differences.iter().map(difference_object).collect::<Vec<_>>(),
    })
}

fn conditions(of: &v1::RunConditions) -> Value {
    json!({
        "worker": of.worker,
        "began": of.began.as_ref().map(clock::rfc3339),
        "cpus": of.cpus,
        "host_name": of.host_name,
        "directory": of.directory,
    })
}

fn difference_object(one: &v1::FileDifference) -> Value {
    json!({ "path": one.path, "kind": one.kind, "words": one.words })
}

/// What came of comparing an artifact, for programs.
pub fn compared_object(found: &v1::Reproducibility) -> Value {
    json!({
        "outcome": outcome_word(found.outcome()),
        "build": found.build,
        "at": found.at.as_ref().map(clock::rfc3339),
        "rebuilt": found.rebuilt,
        "made": found.artifact,
        "compared": found.compared,
        "different": found.different,
        "sampled_of": found.sampled,
        "varied": varied_in_all(&found.steps),
        "differences": found.differences.iter().map(difference_object).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_told_of_with_where_it_was_and_what_differs() {
        let step = Some(v1::StepRef { step: "compile".into(), shards: 1, ..v1::StepRef::default() });
        let at = |worker: &str, cpus| Some(v1::RunConditions { worker: worker.into(), cpus, ..Default::default() });
        let one = v1::FileDifference { path: "out".into(), kind: "time".into(), words: "line 1".into() };
        let mut result = v1::ReproducedStep { first: at("a", 2), second: at("b", 1), files: 1, ..Default::default() };
        result.differences.push(one);
        result.set_outcome(Reproduced::Different);
        let again = v1::StepAgain { step, worker: String::new(), result: Some(result.clone()) };
        let board = Board::default();
        assert_eq!(
            step_lines(&board, &again),
            [
                "compile | DIFFERENT when it ran again (on b instead of a, 1 CPU instead of 2): 1 file",
                "compile |   `out`: line 1 [time]"
            ]
        );
        result.set_outcome(Reproduced::Same);
        result.differences.clear();
        let same = v1::StepAgain { result: Some(result), ..again };
        assert_eq!(
            step_lines(&board, &same),
            ["compile | made the same again (on b instead of a, 1 CPU instead of 2)"]
        );
    }
}
