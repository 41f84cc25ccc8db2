//! The source paths that are inputs of a step.
//!
//! Invariant: the result depends only on the step's `inputs` and the paths, and keeps the order of the paths.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::Step;

/// The indices in `paths` of the source files that are inputs of `step`. A glob that matches a directory includes
/// everything below it; a glob that starts with `!` excludes files again. Without any including glob, the whole tree is
/// included except `kiln.toml`, whose edits affect a step through the plan.
pub fn input_files(step: &Step, paths: &[String]) -> Vec<usize> {
    let (out, into): (Vec<&str>, Vec<&str>) = step.inputs.iter().map(String::as_str).partition(|g| g.starts_with('!'));
    let out = compile(out.iter().filter_map(|g| g.strip_prefix('!')));
    let chosen: Box<dyn Fn(&str) -> bool> = if into.is_empty() {
        Box::new(|path| path != "kiln.toml")
    } else {
        let into = compile(into.iter().copied());
        Box::new(move |path| into.is_match(path))
    };
    let is_input = |path: &String| chosen(path) && !out.is_match(path);
    paths.iter().enumerate().filter(|(_, path)| is_input(path)).map(|(at, _)| at).collect()
}

/// Whether one of `globs` matches `path` or a directory above it.
pub fn matches(globs: &[String], path: &str) -> bool {
    !globs.is_empty() && compile(globs.iter().map(String::as_str)).is_match(path)
}

/// What is wrong with a glob, if it is invalid.
pub fn glob_error(glob: &str) -> Option<String> {
    GlobBuilder::new(glob).literal_separator(true).build().err().map(|e| e.kind().to_string())
}

/// Invalid globs match nothing: `check` has rejected them earlier.
pub fn compile<'a>(globs: impl IntoIterator<Item = &'a str>) -> GlobSet {
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
