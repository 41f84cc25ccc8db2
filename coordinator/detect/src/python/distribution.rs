//! A source distribution's metadata: `PKG-INFO` (core metadata, packaging.python.org) and `*.egg-info/requires.txt`,
//! written when it was published.

use super::{super::tree, local::within};
use kiln_plan::Source;

fn metadata(source: &dyn Source, directory: &str) -> Option<String> {
    tree::text(source, &within(directory, "PKG-INFO"))
}

/// A header field of the metadata.
pub(super) fn field(source: &dyn Source, name: &str) -> Option<String> {
    fields(&metadata(source, "")?, name).next().map(str::to_owned)
}

fn fields<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let head = text.lines().take_while(|line| !line.is_empty());
    head.filter_map(move |line| line.strip_prefix(name)?.strip_prefix(": ").map(str::trim))
}

/// Its run-time requirements if it is a source distribution, without those of extras.
pub(super) fn requirements(source: &dyn Source, directory: &str) -> Option<Vec<String>> {
    let text = metadata(source, directory)?;
    let named: Vec<String> =
        fields(&text, "Requires-Dist").filter(|line| !line.contains("extra ==")).map(str::to_owned).collect();
    if !named.is_empty() {
        return Some(named);
    }
    let list = source.paths().iter().find(|path| {
        path.strip_suffix("/requires.txt").is_some_and(|info| info.ends_with(".egg-info"))
            && (directory.is_empty() || path.starts_with(&format!("{directory}/")))
    });
    let list = list.and_then(|path| tree::text(source, path)).unwrap_or_default();
    let mut section = Some(String::new());
    let mut needs = Vec::new();
    for line in list.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match (line.strip_prefix('[').and_then(|l| l.strip_suffix(']')), &section) {
            // `[:marker]` contains conditional requirements, `[extra]` those of an extra.
            (Some(head), _) => section = head.strip_prefix(':').map(|marker| format!(" ; {marker}")),
            (None, Some(marker)) => needs.push(format!("{line}{marker}")),
            (None, None) => {}
        }
    }
    Some(needs)
}
