//! `pom.xml`, Gradle's properties and build files.
//!
//! Invariant: a version is replaced if the element or line is the project's own, its parent's in the tree, or a
//! requirement on a module of the tree; packages from a registry keep theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{super::Source, NONE};
use kiln_plan::xml;

pub(super) fn pom(text: &str, all: &dyn Source) -> Option<String> {
    let local = local_artifacts(all);
    let leaves = xml::leaves(text);
    let mut siblings: BTreeMap<usize, &str> = BTreeMap::new();
    for leaf in leaves.iter().filter(|leaf| leaf.path.last() == Some(&"artifactId")) {
        siblings.insert(leaf.parent, leaf.value.trim());
    }
    let mut replaced: Vec<&Range<usize>> = Vec::new();
    for leaf in leaves.iter().filter(|leaf| leaf.path.last() == Some(&"version")) {
        let own = leaf.path == ["project", "version"];
        let neighbour = matches!(leaf.path.get(leaf.path.len().saturating_sub(2)), Some(&"parent" | &"dependency"))
            && siblings.get(&leaf.parent).is_some_and(|name| local.contains(*name));
        if (own || neighbour) && !leaf.value.contains('$') {
            replaced.push(&leaf.text);
        }
    }
    // Versions that Maven takes from a property by convention.
    let conventional = leaves.iter().filter(|leaf| leaf.path == ["project", "properties", "revision"]);
    replaced.extend(conventional.map(|leaf| &leaf.text));
    // What an entity brings in is where that is declared, so places come in any order and more than once.
    replaced.sort_unstable_by_key(|place| (place.start, place.end));
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    for place in replaced {
        if let Some(before) = text.get(done..place.start) {
            out.push_str(before);
            out.push_str(NONE);
            done = place.end;
        }
    }
    out.push_str(text.get(done..)?);
    Some(out)
}

fn local_artifacts(all: &dyn Source) -> BTreeSet<String> {
    let poms = all.paths().iter().filter(|p| p.rsplit('/').next() == Some("pom.xml"));
    let texts = poms.filter_map(|path| String::from_utf8(all.read(path)?).ok());
    texts.filter_map(|text| xml::value(&text, &["project", "artifactId"]).map(str::to_owned)).collect()
}

/// A line of `gradle.properties` or of a build file that sets the project's version.
pub(super) fn gradle(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let rest = line.strip_prefix("version").map(str::trim_start);
        match rest.map(|rest| rest.strip_prefix('=').unwrap_or(rest).trim()) {
            Some(value) if value.starts_with(['"', '\'']) => out.push_str(&format!("version = \"{NONE}\"\n")),
            Some(value) if value.starts_with(|c: char| c.is_ascii_digit()) => {
                out.push_str(&format!("version={NONE}\n"));
            }
            _ => out.push_str(line),
        }
    }
    Some(out)
}
