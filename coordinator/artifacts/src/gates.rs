//! What a gate's command is shown of an artifact where it runs beside it, and what is stated of the gate.
//!
//! Invariant: nothing of it differs between two builds of the same, unless the command asks for the provenance.

use kiln_planner::plan::gates::{Command, Predicate};
use kiln_planner::plan::{Artifact, Gate, Platform, Step};
use kiln_proto::digest::DigestFunction;
use kiln_trees::tree::{Entry, Tree};
use serde_json::Value;

use crate::{Made, Shown};

/// Where a command finds what it is shown, in the tree of its inputs.
const PLACE: &str = ".kiln-gate";
/// What asks for the provenance: that changes with each commit, and the result of whoever sees it does too.
const PROVENANCE: &str = "KILN_PROVENANCE";

/// Whether a command asks for the provenance.
pub fn asks_for_provenance(command: &Command) -> bool {
    let step = &command.step;
    let texts = [&step.run].into_iter().chain(step.env.values()).chain(step.files.values()).chain(&command.words);
    texts.into_iter().any(|text| text.contains(PROVENANCE))
}

/// The provenance without what differs between two builds of the same commit.
pub fn stable_provenance(mut statement: Value) -> Vec<u8> {
    if let Some(run) = statement.pointer_mut("/predicate/runDetails").and_then(Value::as_object_mut) {
        run.retain(|key, _| key == "builder");
    }
    serde_json::to_vec_pretty(&statement).unwrap_or_default()
}

/// The SHA-256 of how a gate is defined, in hex.
pub fn definition(gate: &Gate) -> String {
    DigestFunction::Sha256.digest(format!("{:?}", gate.check).as_bytes()).hex()
}

/// A command beside an artifact as a step, and what the step finds among its inputs.
pub fn beside(command: &Command, artifact: &Artifact, platform: Platform, made: &Made, shown: Shown) -> (Step, Tree) {
    let mut all = Tree::default();
    all.entries.insert("artifact".to_owned(), Entry::Sealed { digest: made.root });
    all.entries.insert("sbom.cdx.json".to_owned(), Entry::file(shown.sbom, false));
    if let Some(provenance) = shown.provenance {
        all.entries.insert("provenance.json".to_owned(), Entry::file(provenance, false));
    }
    let mut tree = Tree::default();
    tree.entries.insert(PLACE.to_owned(), Entry::Directory(all));
    let mut step = command.step.clone();
    let up: String = step.working_directory.iter().flat_map(|below| below.split('/')).map(|_| "../").collect();
    let paths = [("ARTIFACT", "artifact"), ("SBOM", "sbom.cdx.json"), ("PROVENANCE", "provenance.json")];
    let paths: String = paths.iter().map(|(name, at)| format!(" KILN_{name}=\"$PWD/{up}{PLACE}/{at}\"")).collect();
    step.run = format!("export{paths}\n{}", step.run);
    step.env.insert("KILN_ARTIFACT_NAME".to_owned(), artifact.name.clone());
    step.env.insert("KILN_PLATFORM".to_owned(), platform.to_string());
    step.outputs.extend(command.report.clone());
    if command.predicate == Predicate::TestResult {
        step.reports.extend(command.report.clone());
    }
    (step, tree)
}

#[cfg(test)]
mod tests {
    use kiln_planner::plan::gates::{Check, Place};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_between_builds_is_no_part_of_what_a_gate_sees() {
        let statement = |id: &str| {
            let run = json!({ "builder": { "id": "b" }, "metadata": { "invocationId": id }, "byproducts": [id] });
            json!({ "predicateType": "p", "predicate": { "buildDefinition": { "a": 1 }, "runDetails": run } })
        };
        assert_eq!(stable_provenance(statement("one")), stable_provenance(statement("two")));
        let kept = String::from_utf8(stable_provenance(statement("one"))).unwrap_or_default();
        assert!(kept.contains("buildDefinition") && kept.contains("builder"), "{kept}");
    }

    #[test]
    fn the_provenance_is_for_whoever_names_it_and_a_changed_gate_is_another() {
        let command = |run: &str| {
            let (words, place, predicate) = (Vec::new(), Place::Beside, Predicate::TestResult);
            Command { step: Step::new("gate:a", run), words, place, predicate, report: None }
        };
        assert!(asks_for_provenance(&command("cat $KILN_PROVENANCE")) && !asks_for_provenance(&command("true")));
        let gate = |run: &str| {
            definition(&Gate { name: "a".into(), artifacts: Vec::new(), check: Check::Command(Box::new(command(run))) })
        };
        assert_eq!(gate("true"), gate("true"));
        assert_ne!(gate("true"), gate("false"));
    }
}
