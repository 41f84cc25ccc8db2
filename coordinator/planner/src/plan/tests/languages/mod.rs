//! The plan of each known layout, as `kiln init` would write it.

mod compiled;
mod interpreted;
mod java;
mod locks;
mod node;
mod python;
mod ruby;

use super::{options, planned, refused, tree};
use crate::plan::{Source, input_files, plan, to_kiln_toml};

/// Programs that are part of plans.
const SCRIPTS: [&str; 4] = [
    include_str!("../../../../../detect/src/python/scripts/arrange.py"),
    include_str!("../../../../../detect/src/python/scripts/requires.py"),
    include_str!("../../../../../detect/src/python/scripts/version.py"),
    include_str!("../../../../../detect/src/ruby/specs.rb"),
];

/// The plan as text. Asserts what must hold for every detected plan: written as `kiln.toml` into the same tree, it
/// parses to the same plan, and a step with network access sees no source.
fn written(files: &[(&str, &str)], sources: &[&str]) -> String {
    let first = planned(files);
    let text = to_kiln_toml(&first);
    let mut with: Vec<(&str, &str)> = files.to_vec();
    with.push(("kiln.toml", &text));
    let mut again = planned(&with);
    again.origin = first.origin.clone();
    assert!(again.notes.is_empty(), "expected every input that `kiln init` writes to match a file: {:?}", again.notes);
    again.notes = first.notes.clone();
    assert_eq!(first, again);

    let source = tree(files);
    for step in plan(&source, &options()).unwrap().steps.iter().filter(|s| s.network) {
        for index in input_files(step, source.paths()) {
            let path = source.paths()[index].as_str();
            assert!(!sources.contains(&path) || step.files.contains_key(path), "`{}` sees `{path}`", step.name);
        }
    }
    // The programs that a detector adds to its steps have their own tests.
    let text = SCRIPTS.iter().fold(text, |text, script| text.replace(script, "...\n"));
    let notes: String = first.notes.iter().map(|note| format!("note: {note}\n")).collect();
    text + &notes
}
