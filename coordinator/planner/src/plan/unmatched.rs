//! Notes about patterns in `inputs` that match no file.
//!
//! Otherwise a typo in a pattern would only show as a step that misses a file, or as a result that never changes.

use std::collections::BTreeSet;

use super::{Step, words};
use kiln_plan::compile_globs as compile;

/// A note for each pattern in these steps' `inputs` that matches none of the sorted `paths`, or only ones that
/// `exclude` removes.
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

/// The paths that a pattern matches. Patterns without wildcards, which are most, are looked up instead of being
/// compared with every path.
fn matching<'a>(glob: &str, paths: &'a [String]) -> Box<dyn Iterator<Item = &'a String> + 'a> {
    let name = plain(glob).to_owned();
    if name.is_empty() || name == "." || wildcard(&name).is_some() {
        let set = compile([glob]);
        return Box::new(paths.iter().filter(move |path| set.is_match(path)));
    }
    let under = format!("{name}/");
    let start = paths.partition_point(|path| *path < under);
    let below = paths.iter().skip(start).take_while(move |path| path.starts_with(&under));
    Box::new(paths.binary_search(&name).ok().and_then(|at| paths.get(at)).into_iter().chain(below))
}

fn plain(glob: &str) -> &str {
    glob.trim_start_matches("./").trim_end_matches('/')
}

/// The position of a pattern's first wildcard.
fn wildcard(glob: &str) -> Option<usize> {
    glob.find(['*', '?', '[', '{', '\\'])
}

/// The existing file or directory that is most similar to the pattern up to its first wildcard.
fn near(glob: &str, paths: &[String]) -> Option<String> {
    let name = plain(glob);
    let name = match wildcard(name) {
        Some(at) => name.split_at(at).0.rsplit_once('/')?.0,
        None => name,
    };
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for path in paths {
        known.insert(path);
        known.extend(path.match_indices('/').map(|(at, _)| path.split_at(at).0));
    }
    if known.contains(name) {
        return None;
    }
    // Paths of very different length are skipped, because there may be very many.
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
