//! `pyproject.toml`, `uv.lock` and `poetry.lock`.
//!
//! Invariant: the lock files' entries for packages of the tree, recognised by their source, lose the version if their
//! `pyproject.toml` does; a package that another one of the tree requires by version keeps it in both.

use std::collections::BTreeSet;

use toml_edit::{DocumentMut, Item, value};

use super::{super::Source, NONE};
use kiln_detect::tree;

pub(super) fn manifest(text: &str, all: &dyn Source) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    let of = |document: &DocumentMut| {
        let poetry = document.get("tool").and_then(|t| t.get("poetry"));
        let name = document.get("project").and_then(|p| p.get("name")).or_else(|| poetry?.get("name"));
        name.and_then(Item::as_str).map(normalised)
    };
    if of(&document).is_some_and(|name| wanted_by_version(all).contains(&name)) {
        return None;
    }
    for table in [&["project"][..], &["tool", "poetry"]] {
        if let Some(version) = version_in(&mut document, table) {
            *version = value(NONE);
        }
    }
    Some(document.to_string())
}

/// The version in a table. Checks for the key first, because indexing an `Item` would create it.
fn version_in<'a>(document: &'a mut DocumentMut, table: &[&str]) -> Option<&'a mut Item> {
    let mut item = document.as_item_mut();
    for key in table.iter().chain(&["version"]) {
        item = item.as_table_like_mut()?.get_mut(key)?;
    }
    Some(item)
}

pub(super) fn uv_lock(text: &str, all: &dyn Source) -> Option<String> {
    let kinds = ["editable", "virtual", "directory"];
    Some(without_versions(text, all, |block| {
        let source = block.lines().find_map(|line| line.strip_prefix("source = { ")).unwrap_or_default();
        kinds.iter().any(|kind| source.starts_with(kind))
    }))
}

pub(super) fn poetry_lock(text: &str, all: &dyn Source) -> Option<String> {
    Some(without_versions(text, all, |block| {
        let mut source = block.split("[package.source]").skip(1).flat_map(str::lines);
        source.any(|line| line == "type = \"directory\"")
    }))
}

/// A lock file in which the packages that are `local` have no version.
fn without_versions(text: &str, all: &dyn Source, local: impl Fn(&str) -> bool) -> String {
    let wanted = wanted_by_version(all);
    let mut out = String::with_capacity(text.len());
    for (index, block) in text.split("[[package]]").enumerate() {
        if index > 0 {
            out.push_str("[[package]]");
        }
        let name = block.lines().find_map(|line| line.strip_prefix("name = ")).unwrap_or_default();
        let bare = index > 0 && local(block) && !wanted.contains(&normalised(name.trim_matches('"')));
        for line in block.split_inclusive('\n') {
            if bare && line.starts_with("version = ") {
                out.push_str(&format!("version = \"{NONE}\"\n"));
            } else {
                out.push_str(line);
            }
        }
    }
    out
}

/// The packages that a `pyproject.toml` of the tree requires by version.
fn wanted_by_version(all: &dyn Source) -> BTreeSet<String> {
    let mut wanted = BTreeSet::new();
    for path in tree::named(all, |name| name == "pyproject.toml") {
        let Ok(Some(document)) = tree::toml(all, &path) else { continue };
        let tool = |name: &str, key: &str| document.get("tool").and_then(|t| t.get(name)).and_then(|t| t.get(key));
        let project = |key: &str| document.get("project").and_then(|p| p.get(key));
        let lists = [
            project("dependencies"),
            project("optional-dependencies"),
            document.get("dependency-groups"),
            tool("uv", "dev-dependencies"),
            tool("uv", "constraint-dependencies"),
            tool("uv", "override-dependencies"),
        ];
        lists.into_iter().flatten().for_each(|list| collect(list, &mut wanted));
    }
    wanted
}

fn collect(value: &toml::Value, wanted: &mut BTreeSet<String>) {
    match value {
        toml::Value::String(need) => {
            let need = need.split(';').next().unwrap_or(need);
            let end = need.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
            let (name, rest) = need.split_at(end.unwrap_or(need.len()));
            if rest.contains(['=', '<', '>', '~']) {
                wanted.insert(normalised(name));
            }
        }
        toml::Value::Array(list) => list.iter().for_each(|value| collect(value, wanted)),
        toml::Value::Table(table) => table.iter().for_each(|(_, value)| collect(value, wanted)),
        _ => {}
    }
}

/// A normalised name, equal for all spellings of a package.
fn normalised(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.map(str::to_lowercase).collect::<Vec<_>>().join("-")
}
