//! The plans of detected projects: Bun, Deno, Zig, PHP, Pipenv, Hugo, several languages in one root, and what a `kiln.toml` changes of them.
//! Those of the other languages are in `src/plan/tests`.

#![allow(clippy::unwrap_used, clippy::panic)]

mod overrides;
mod php;
mod pipenv;
mod runtimes;
mod several;
mod sites;
mod zig;

use kiln_planner::plan::{MemorySource, Options, Plan, Platform, Source, input_files, plan, to_kiln_toml};

fn tree(files: &[(&str, &str)]) -> MemorySource {
    files.iter().copied().collect()
}

fn options() -> Options {
    Options::new(Platform::Amd64)
}

fn planned(files: &[(&str, &str)]) -> Plan {
    plan(&tree(files), &options()).unwrap()
}

fn refused(files: &[(&str, &str)]) -> String {
    plan(&tree(files), &options()).unwrap_err().to_string()
}

/// Asserts what must hold for every detected plan: written as `kiln.toml` into the same tree, it parses to the same plan, and a step with
/// network access sees none of these sources.
fn assert_sound(files: &[(&str, &str)], sources: &[&str]) {
    let first = planned(files);
    let text = to_kiln_toml(&first);
    let with: Vec<(&str, &str)> = files.iter().copied().chain([("kiln.toml", text.as_str())]).collect();
    let mut again = planned(&with);
    (again.origin, again.notes) = (first.origin.clone(), first.notes.clone());
    assert_eq!(first, again);
    let source = tree(files);
    for step in first.steps.iter().filter(|step| step.network) {
        for path in input_files(step, source.paths()).into_iter().map(|index| &source.paths()[index]) {
            assert!(!sources.contains(&path.as_str()), "`{}` sees `{path}`", step.name);
        }
    }
}
