//! `Cargo.toml` and `Cargo.lock`.
//!
//! Lints are removed with the versions: they concern only the project itself, and dependencies are not compiled with
//! them.
//!
//! Invariant: either all packages of the tree lose their version, in manifests, lock file and the requirements of other
//! packages, or none does. None does if Cargo needs the version to distinguish two packages with the same name, or to
//! check that a patch applies.

use std::collections::BTreeSet;

use toml_edit::{DocumentMut, Item, TableLike, value};

use super::{super::Source, NONE};

pub(super) fn manifest(text: &str, all: &dyn Source) -> Option<String> {
    if needs_versions(all) {
        return None;
    }
    let mut document: DocumentMut = text.parse().ok()?;
    if let Some(version) = document.get_mut("package").and_then(|p| p.get_mut("version")).filter(|v| v.is_str()) {
        *version = value(NONE);
    }
    if let Some(workspace) = document.get_mut("workspace").and_then(Item::as_table_like_mut) {
        let package = workspace.get_mut("package");
        if let Some(version) = package.and_then(|p| p.get_mut("version")).filter(|v| v.is_str()) {
            *version = value(NONE);
        }
        drop_requirements(workspace);
        workspace.remove("lints");
    }
    // A stub must compile, whatever the project forbids.
    document.remove("lints");
    drop_requirements(document.as_table_mut());
    if let Some(targets) = document.get_mut("target").and_then(Item::as_table_like_mut) {
        for (_, target) in targets.iter_mut() {
            target.as_table_like_mut().into_iter().for_each(drop_requirements);
        }
    }
    Some(document.to_string())
}

/// Requirements on packages of the tree match any version at their path.
fn drop_requirements(table: &mut dyn TableLike) {
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(dependencies) = table.get_mut(kind).and_then(Item::as_table_like_mut) else {
            continue;
        };
        for (_, dependency) in dependencies.iter_mut() {
            if let Some(dependency) = dependency.as_table_like_mut().filter(|d| d.contains_key("path")) {
                dependency.remove("version");
            }
        }
    }
}

pub(super) fn lock(text: &str, all: &dyn Source) -> Option<String> {
    if needs_versions(all) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    for (index, block) in text.split("[[package]]").enumerate() {
        if index > 0 {
            out.push_str("[[package]]");
        }
        let local = index > 0 && !block.lines().any(|line| line.starts_with("source = "));
        for line in block.split_inclusive('\n') {
            match line.strip_prefix("version = ") {
                Some(_) if local => {
                    let end = if line.ends_with("\r\n") { "\r\n" } else { "\n" };
                    out.push_str(&format!("version = \"{NONE}\"{end}"));
                }
                _ => out.push_str(line),
            }
        }
    }
    Some(out)
}

fn needs_versions(all: &dyn Source) -> bool {
    let text = |path: &str| all.read(path).and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut twice: BTreeSet<String> = BTreeSet::new();
    let mut local: BTreeSet<String> = BTreeSet::new();
    for block in text("Cargo.lock").split("[[package]]").skip(1) {
        let Some(name) = block.lines().find_map(|line| line.strip_prefix("name = ")) else {
            continue;
        };
        if !names.insert(name.to_owned()) {
            twice.insert(name.to_owned());
        }
        if !block.lines().any(|line| line.starts_with("source = ")) {
            local.insert(name.to_owned());
        }
    }
    let root: toml::Table = text("Cargo.toml").parse().unwrap_or_default();
    let patches = root.get("patch").and_then(toml::Value::as_table).into_iter().flatten();
    let patched = patches
        .filter_map(|(_, registry)| registry.as_table())
        .any(|registry| registry.values().any(|p| p.get("path").is_some()));
    patched || local.intersection(&twice).next().is_some()
}
