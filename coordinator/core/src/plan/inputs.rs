//! Which source paths enter a step.
//!
//! Invariant: the answer depends on the step's `inputs` and the paths alone, and comes in the order of the paths.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::Step;

/// The indices into `paths` of the source files that enter `step`. A glob that names a directory means all under it;
/// no globs at all mean the whole tree.
pub fn input_files(step: &Step, paths: &[String]) -> Vec<usize> {
    if step.inputs.is_empty() {
        return (0..paths.len()).collect();
    }
    let globs = compile(&step.inputs);
    (0..paths.len()).filter(|i| globs.is_match(&paths[*i])).collect()
}

/// Whether one of `globs` names `path`, or a directory that it is under.
pub fn matches(globs: &[String], path: &str) -> bool {
    compile(globs).is_match(path)
}

/// What is wrong with a glob, if something is.
pub(crate) fn glob_error(glob: &str) -> Option<String> {
    GlobBuilder::new(glob).literal_separator(true).build().err().map(|e| e.kind().to_string())
}

/// Invalid globs match nothing: validation has refused them before.
pub(crate) fn compile(globs: &[String]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let glob = glob.trim_start_matches("./").trim_end_matches('/');
        if glob == "." || glob.is_empty() {
            add(&mut set, "**");
            continue;
        }
        add(&mut set, glob);
        add(&mut set, &format!("{glob}/**"));
    }
    set.build().unwrap_or_else(|_| GlobSet::empty())
}

fn add(set: &mut GlobSetBuilder, glob: &str) {
    if let Ok(glob) = GlobBuilder::new(glob).literal_separator(true).build() {
        set.add(glob);
    }
}
