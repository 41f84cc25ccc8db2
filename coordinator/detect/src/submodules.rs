//! Submodules that are not checked out.

use super::tree;
use kiln_plan::Source;

/// The directories of submodules that have no files.
pub(super) fn missing(source: &dyn Source) -> Vec<String> {
    let text = tree::text(source, ".gitmodules").unwrap_or_default();
    let values = text.lines().filter_map(|line| line.split_once('='));
    let paths = values.filter(|(key, _)| key.trim() == "path").filter_map(|(_, path)| tree::join("", path.trim()));
    paths.filter(|path| !path.is_empty() && !tree::has_directory(source, path)).collect()
}

/// A sentence about them, with the fix.
pub(super) fn note(missing: &[String]) -> String {
    let names: Vec<String> = missing.iter().map(|path| format!("`{path}`")).collect();
    let are = if missing.len() == 1 { "the submodule" } else { "the submodules" };
    format!("{are} {} not checked out: run `git submodule update --init --recursive`", words(&names))
}

fn words(names: &[String]) -> String {
    let is = if names.len() == 1 { "is" } else { "are" };
    format!("{} {is}", names.join(", "))
}
