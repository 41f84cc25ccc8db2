//! What steps make for each other and is therefore no source: `node_modules`, `target`, `vendor/bundle`.
//!
//! Outside git, and in careless repositories, such directories lie in the tree as an earlier build by hand left them.
//! Their files would mix with those of the dependency layer. Invariant: a directory that its layer takes in by name
//! (Yarn's committed `.yarn/cache`) is a source and stays.

use std::collections::BTreeSet;

use super::tree;
use kiln_plan::{Source, Step, matches};

/// Directories and files of the tree that a plan's layers bring along, in a form that `exclude` takes.
///
/// In a plan that the user wrote only a step that has the network is taken for a layer: what other steps write may
/// stand in a directory of sources.
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

/// Whether an input that is named outright lies below a directory.
fn holds_inputs(directory: &str, inputs: &[String]) -> bool {
    inputs.iter().any(|input| input.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/')))
}

/// Python's virtual environments, whatever they are called.
fn environments(source: &dyn Source) -> Vec<String> {
    let marks = source.paths().iter().filter_map(|path| path.strip_suffix("/pyvenv.cfg"));
    marks.filter(|directory| !directory.is_empty()).map(str::to_owned).collect()
}

/// A path as a glob that matches it alone.
pub(super) fn literal(path: &str) -> String {
    let mut glob = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\') {
            glob.push('\\');
        }
        glob.push(c);
    }
    glob
}
