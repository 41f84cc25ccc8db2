//! What a source distribution says of itself: `PKG-INFO` (core metadata, packaging.python.org) and `*.egg-info/requires.txt`,
//! which its build wrote when it was published.

use super::tree;
use crate::plan::Source;

fn metadata(source: &dyn Source) -> Option<String> {
    tree::text(source, "PKG-INFO")
}

/// A field of the metadata's head.
pub(super) fn field(source: &dyn Source, name: &str) -> Option<String> {
    fields(&metadata(source)?, name).next().map(str::to_owned)
}

fn fields<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let head = text.lines().take_while(|line| !line.is_empty());
    head.filter_map(move |line| line.strip_prefix(name)?.strip_prefix(": ").map(str::trim))
}

/// What it needs to run; what only its extras need is left out.
pub(super) fn requirements(source: &dyn Source) -> Vec<String> {
    let Some(text) = metadata(source) else { return Vec::new() };
    let named: Vec<String> =
        fields(&text, "Requires-Dist").filter(|line| !line.contains("extra ==")).map(str::to_owned).collect();
    if !named.is_empty() {
        return named;
    }
    let list = source.paths().iter().find(|path| path.ends_with(".egg-info/requires.txt"));
    let list = list.and_then(|path| tree::text(source, path)).unwrap_or_default();
    // Sections are extras.
    let plain = list.lines().map(str::trim).take_while(|line| !line.starts_with('['));
    plain.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}
