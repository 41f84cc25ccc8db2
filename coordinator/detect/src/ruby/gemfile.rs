//! The gems in a `Gemfile`, and the files that it reads.

use super::super::tree;
use kiln_plan::Source;

/// The gems that a `Gemfile` names literally, including conditional ones.
pub(super) fn gems(gemfile: &str) -> Vec<String> {
    let lines = gemfile.lines().filter_map(|line| line.trim().strip_prefix("gem"));
    lines
        .filter(|rest| rest.starts_with([' ', '(']))
        .filter_map(|rest| rest.trim_start_matches([' ', '(']).split(['"', '\'']).nth(1).map(str::to_owned))
        .collect()
}

/// Files of the tree that the `Gemfile` and the files it evaluates read, as paths or globs. Gem specifications are
/// omitted.
pub(super) fn reads(source: &dyn Source) -> Vec<String> {
    let mut found = vec!["Gemfile".to_owned()];
    let mut places = 0..;
    while let Some(file) = places.next().and_then(|at| found.get(at).cloned()) {
        if file.contains('*') {
            continue;
        }
        for line in tree::text(source, &file).unwrap_or_default().lines() {
            let line = line.trim_start();
            if line.starts_with('#') {
                continue;
            }
            let literals: Vec<&str> = line.split(['"', '\'']).skip(1).step_by(2).map(bare).collect();
            let joined = literals.join("/");
            for text in literals.iter().copied().chain([joined.as_str()]) {
                let path = place(source, &file, text).filter(|path| !path.ends_with(".gemspec"));
                found.extend(path.filter(|path| !found.contains(path)));
            }
        }
    }
    found.remove(0);
    found
}

/// `#{__dir__}/x` is `x`, relative to the file.
fn bare(literal: &str) -> &str {
    let rest = literal.strip_prefix("#{").and_then(|rest| rest.split_once('}')).map(|(_, rest)| rest);
    rest.unwrap_or(literal).trim_start_matches('/')
}

/// The file that a string refers to, relative to the root, to the file's directory, or as `File.expand_path("../x",
/// __FILE__)`.
fn place(source: &dyn Source, file: &str, text: &str) -> Option<String> {
    if text.is_empty() || text.contains("://") {
        return None;
    }
    let mut seen = ["", tree::parent(file), file].into_iter().filter_map(|base| tree::join(base, text));
    if text.contains('*') {
        // A glob for files, not for directories whose sources would be included.
        let files = tree::base(text).contains('.') && !text.contains('{');
        return seen.find(|_| files);
    }
    seen.find(|path| tree::has(source, path) && path != "Gemfile.lock")
}
