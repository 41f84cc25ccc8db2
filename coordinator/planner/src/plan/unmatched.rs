//! Patterns of `inputs` that take no file in, in words.
//!
//! A pattern with a slip of the pen would otherwise only show as a step that does not see a file, or a layer that never changes.

use std::collections::BTreeSet;

use super::{Step, words};
use kiln_plan::compile_globs as compile;

/// A note for each pattern of these steps' `inputs` that matches none of `paths`, which are sorted, or only what `exclude` takes
/// out.
pub(super) fn notes(steps: &[Step], exclude: &[String], paths: &[String]) -> Vec<String> {
    let mut notes = Vec::new();
    for step in steps {
        let out = step.inputs.iter().filter_map(|glob| glob.strip_prefix('!'));
        let out = compile(out.chain(exclude.iter().map(String::as_str)));
        for glob in step.inputs.iter().filter(|glob| !glob.starts_with('!')) {
            let mut found = matching(glob, paths).peekable();
            let why = if found.peek().is_none() {
                "matches no file (ignored files do not count)"
            } else if found.all(|path| out.is_match(path)) {
                "matches only files that are excluded"
            } else {
                continue;
            };
            let hint = near(glob, paths).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            notes.push(format!("step `{}` has `{glob}` among its `inputs`, which {why}{hint}", step.name));
        }
    }
    notes
}

/// The paths that a pattern names. A pattern without wildcards, as most are, is looked up and not compared with every path.
fn matching<'a>(glob: &str, paths: &'a [String]) -> Box<dyn Iterator<Item = &'a String> + 'a> {
    let name = plain(glob).to_owned();
    if name.is_empty() || name == "." || wildcard(&name).is_some() {
        let set = compile([glob]);
        return Box::new(paths.iter().filter(move |path| set.is_match(path)));
    }
    let under = format!("{name}/");
    let start = paths.partition_point(|path| *path < under);
    let below = paths[start..].iter().take_while(move |path| path.starts_with(&under));
    Box::new(paths.binary_search(&name).ok().map(|at| &paths[at]).into_iter().chain(below))
}

fn plain(glob: &str) -> &str {
    glob.trim_start_matches("./").trim_end_matches('/')
}

/// Where a pattern's first wildcard stands.
fn wildcard(glob: &str) -> Option<usize> {
    glob.find(['*', '?', '[', '{', '\\'])
}

/// The file or directory that is there and reads most like the pattern, up to its first wildcard.
fn near(glob: &str, paths: &[String]) -> Option<String> {
    let name = plain(glob);
    let name = match wildcard(name) {
        Some(at) => name[..at].rsplit_once('/')?.0,
        None => name,
    };
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for path in paths {
        known.insert(path);
        known.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
    }
    if known.contains(name) {
        return None;
    }
    // What differs much in its length alone is not worth a comparison; there may be very many paths.
    let alike = known.into_iter().filter(|path| path.len().abs_diff(name.len()) <= name.len().div_ceil(3));
    words::nearest(name, alike).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(inputs: &[&str], exclude: &[&str]) -> String {
        let paths = ["Cargo.lock", "Cargo.toml", "docs/a.md", "kiln.toml", "src/main.rs"].map(str::to_owned);
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let step = Step { inputs: owned(inputs), ..Step::new("deps", "x") };
        notes(&[step], &owned(exclude), &paths).join("\n")
    }

    #[test]
    fn a_pattern_that_matches_no_file_is_named_with_the_nearest_path() {
        insta::assert_snapshot!(noted(&["Cargo.toml", "./Cargo.lck", "vendor/"], &[]), @"
        step `deps` has `./Cargo.lck` among its `inputs`, which matches no file (ignored files do not count); did you mean `Cargo.lock`?
        step `deps` has `vendor/` among its `inputs`, which matches no file (ignored files do not count)
        ");
        insta::assert_snapshot!(noted(&["scr/**/*.rs"], &[]), @"step `deps` has `scr/**/*.rs` among its `inputs`, which matches no file (ignored files do not count); did you mean `src`?");
        insta::assert_snapshot!(noted(&["src/*.py", "*.py"], &[]), @"
        step `deps` has `src/*.py` among its `inputs`, which matches no file (ignored files do not count)
        step `deps` has `*.py` among its `inputs`, which matches no file (ignored files do not count)
        ");
    }

    #[test]
    fn a_pattern_whose_files_are_all_excluded_is_named() {
        insta::assert_snapshot!(noted(&["docs"], &["docs"]), @"step `deps` has `docs` among its `inputs`, which matches only files that are excluded");
        insta::assert_snapshot!(noted(&["docs", "!**/*.md"], &[]), @"step `deps` has `docs` among its `inputs`, which matches only files that are excluded");
    }

    #[test]
    fn patterns_that_match_and_those_that_only_take_out_are_not_named() {
        assert_eq!(noted(&["Cargo.*", "src", "./docs/", "**/*.rs", "!none"], &["nothing"]), "");
        assert_eq!(noted(&[], &[]), "");
        assert_eq!(noted(&["."], &[]), "");
    }
}
