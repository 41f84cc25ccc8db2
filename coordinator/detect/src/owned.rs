//! Directories that steps create and that are therefore not sources: `node_modules`, `target`, `vendor/bundle`.
//!
//! Outside git, and in careless repositories, such directories remain in the tree from an earlier build by hand. Their
//! files would mix with those of the dependency layer. Invariant: a directory that the layer explicitly takes as input
//! (Yarn's committed `.yarn/cache`) is a source and stays.

use std::collections::BTreeSet;

use super::tree::{self, literal};
use kiln_plan::{Source, Step, matches};

/// Directories and files of the tree that a plan's layers create, in the form that `exclude` expects.
///
/// In a plan written by the user, only a step with network access is treated as a layer: outputs of other steps may be
/// in a source directory.
pub fn owned(source: &dyn Source, steps: &[Step], detected: bool) -> Vec<String> {
    let needed: BTreeSet<&String> = steps.iter().flat_map(|step| &step.needs).collect();
    let layers = steps.iter().filter(|step| needed.contains(&step.name) && (detected || step.network));
    let mut found: BTreeSet<String> = BTreeSet::new();
    for layer in layers {
        let taken: Vec<String> = layer.inputs.iter().filter(|glob| !glob.starts_with('!')).cloned().collect();
        for output in &layer.outputs {
            let path = output.trim_start_matches("./").trim_end_matches('/');
            let there = tree::has(source, path) || tree::has_directory(source, path);
            if there && !matches(&taken, path) && !holds_inputs(path, &taken) {
                found.insert(literal(path));
            }
        }
    }
    if detected {
        found.extend(environments(source).into_iter().map(|path| literal(&path)));
    }
    found.into_iter().collect()
}

/// Whether an explicitly named input is below a directory.
fn holds_inputs(directory: &str, inputs: &[String]) -> bool {
    inputs.iter().any(|input| input.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/')))
}

/// Python's virtual environments, under any name.
fn environments(source: &dyn Source) -> Vec<String> {
    let marks = source.paths().iter().filter_map(|path| path.strip_suffix("/pyvenv.cfg"));
    marks.filter(|directory| !directory.is_empty()).map(str::to_owned).collect()
}
