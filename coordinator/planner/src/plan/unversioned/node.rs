//! `package.json` and npm's lock file.
//!
//! A `package.json` also loses its scripts: they run in the step that has the sources. Invariant: a package that
//! another one requires by version range keeps its version, because otherwise the registry's package of that name would
//! be used.

use serde_json::{Map, Value};

use super::{super::Source, NONE};
use kiln_detect as detect;

pub(super) fn manifest(text: &str, all: &dyn Source) -> Option<String> {
    let mut value: Value = serde_json::from_str(text).ok()?;
    let package = value.as_object_mut()?;
    package.remove("scripts");
    if let Some(version) = package.get("version").cloned().filter(|_| !wanted_by_range(package, all)) {
        package.insert("version".into(), NONE.into());
        drop(version);
    }
    serde_json::to_string_pretty(&value).ok()
}

pub(super) fn lock(text: &str, all: &dyn Source) -> Option<String> {
    let mut value: Value = serde_json::from_str(text).ok()?;
    let root = value.as_object_mut()?;
    if root.contains_key("version") && !wanted_by_range(root, all) {
        root.insert("version".into(), NONE.into());
    }
    for (path, package) in root.get_mut("packages").and_then(Value::as_object_mut).into_iter().flatten() {
        let Some(package) = package.as_object_mut().filter(|_| !path.contains("node_modules/")) else { continue };
        // npm writes a package's name only if its directory has a different name.
        let mut named = package.clone();
        named.entry("name").or_insert_with(|| path.rsplit('/').next().unwrap_or_default().into());
        if package.contains_key("version") && !wanted_by_range(&named, all) {
            package.insert("version".into(), NONE.into());
        }
        // npm records that there are install scripts, which the manifest has lost.
        package.remove("hasInstallScript");
    }
    serde_json::to_string_pretty(&value).ok()
}

/// Bun's lock file has the versions of a workspace's members, each after the name, and is written in one way only.
pub(super) fn bun_lock(text: &str, all: &dyn Source) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let (mut members, mut name) = (false, String::new());
    for line in text.split_inclusive('\n') {
        let field = |key: &str| Some(line.trim().strip_prefix(key)?.trim_end_matches(',').trim_matches('"').to_owned());
        if line.starts_with("  \"") {
            members = line.starts_with("  \"workspaces\"");
        }
        if let Some(own) = field("\"name\": ").filter(|_| members) {
            name = own;
        }
        let mut package = Map::new();
        package.insert("name".into(), name.clone().into());
        let is_version = members && line.starts_with("      \"version\": ") && !wanted_by_range(&package, all);
        match is_version {
            true => out.push_str(&format!("      \"version\": \"{NONE}\",\n")),
            false => out.push_str(line),
        }
    }
    Some(out)
}

fn wanted_by_range(package: &Map<String, Value>, all: &dyn Source) -> bool {
    let Some(name) = package.get("name").and_then(Value::as_str) else { return false };
    let kinds = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];
    detect::node_manifests(all).iter().filter_map(|path| all.read(path)).any(|text| {
        let neighbour: Value = serde_json::from_slice(&text).unwrap_or_default();
        let ranges = kinds.iter().filter_map(|kind| neighbour.get(kind)?.get(name)?.as_str());
        ranges.into_iter().any(|range| !range.starts_with("file:") && range.contains(|c: char| c.is_ascii_digit()))
    })
}
