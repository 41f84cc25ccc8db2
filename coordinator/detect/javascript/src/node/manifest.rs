//! Which packages of the tree belong to a Node project.
//!
//! Invariant: the root comes first, then each local package once, dependencies before their dependents.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    super::{Error, tree},
    local::{self, Local},
    locks::Tool,
};
use kiln_plan::{Source, matches};

/// The tables of a manifest that list dependencies.
pub(super) const KINDS: [&str; 4] = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];

/// A package of the tree.
pub(super) struct Package {
    pub(super) directory: String,
    pub(super) manifest: String,
    pub(super) content: Value,
    /// Whether the package manager creates a separate `node_modules` for it, which it does not for `link:` targets.
    pub(super) installed: bool,
}

impl Package {
    /// The name in its manifest.
    pub(super) fn name(&self) -> Option<&str> {
        self.content.get("name").and_then(Value::as_str)
    }

    /// One of its scripts.
    pub(super) fn script(&self, name: &str) -> Option<&str> {
        self.content.get("scripts")?.get(name)?.as_str()
    }

    /// Whether one of these tables of its manifest is not empty.
    pub(super) fn names_any(&self, kinds: &[&str]) -> bool {
        kinds
            .iter()
            .any(|kind| self.content.get(kind).and_then(Value::as_object).is_some_and(|table| !table.is_empty()))
    }

    /// Each dependency: the table that lists it, its name and its range.
    pub(super) fn dependencies(&self) -> impl Iterator<Item = (&'static str, &str, &str)> {
        let tables = KINDS.into_iter().filter_map(|kind| Some((kind, self.content.get(kind)?.as_object()?)));
        tables.flat_map(|(kind, table)| {
            table.iter().filter_map(move |(name, range)| Some((kind, name.as_str(), range.as_str()?)))
        })
    }

    /// The files that it provides as commands, relative to the root of the tree.
    pub(super) fn commands(&self) -> Vec<String> {
        let paths: Vec<&str> = match self.content.get("bin") {
            Some(Value::String(path)) => vec![path],
            Some(Value::Object(all)) => all.values().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        paths.into_iter().filter_map(|path| tree::join(&self.directory, path)).filter(|path| !path.is_empty()).collect()
    }
}

/// The root package, the members of its workspace, and directories of the tree that they depend on.
pub(super) fn packages(source: &dyn Source, root: &Value, tool: Tool) -> Result<Vec<Package>, Error> {
    let mut packages: Vec<Package> = Vec::new();
    for manifest in member_paths(source, root)? {
        packages.extend(read(source, &manifest, true)?);
    }
    let mut places = 0..;
    while let Some(package) = places.next().and_then(|at| packages.get(at)) {
        let linked: Vec<(String, bool)> = local::of(source, package, tool)
            .into_iter()
            .filter_map(|found| match found.kind {
                Local::Link { installed } => Some((tree::join(&found.path, "package.json")?, installed)),
                Local::File | Local::Copy => None,
            })
            .collect();
        for (manifest, installed) in linked {
            if !packages.iter().any(|known| known.manifest == manifest) {
                packages.extend(read(source, &manifest, installed)?);
            }
        }
    }
    Ok(in_order(packages))
}

fn read(source: &dyn Source, manifest: &str, installed: bool) -> Result<Option<Package>, Error> {
    let content = tree::json(source, manifest)?;
    Ok(content.map(|content| Package {
        directory: tree::parent(manifest).to_owned(),
        manifest: manifest.to_owned(),
        content,
        installed,
    }))
}

/// The paths of the manifests of all packages in the tree; empty if a file cannot be read.
pub fn package_paths(source: &dyn Source) -> Vec<String> {
    let Some(root) = tree::json(source, "package.json").ok().flatten() else { return Vec::new() };
    let found = packages(source, &root, Tool::of(source, &root));
    found.unwrap_or_default().into_iter().map(|package| package.manifest).collect()
}

/// Sorts packages after those that they depend on, otherwise by directory. In a cycle, the first by directory comes
/// first.
fn in_order(mut packages: Vec<Package>) -> Vec<Package> {
    let root = packages.remove(0);
    packages.sort_by(|a, b| a.directory.cmp(&b.directory));
    let names: BTreeMap<String, usize> =
        packages.iter().enumerate().filter_map(|(at, p)| Some((p.name()?.to_owned(), at))).collect();
    let needs: Vec<BTreeSet<usize>> = packages
        .iter()
        .enumerate()
        .map(|(at, p)| {
            p.dependencies().filter_map(|(_, name, _)| names.get(name).copied()).filter(|n| *n != at).collect()
        })
        .collect();
    let mut left: Vec<usize> = (0..packages.len()).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let is_free = |at: &usize| needs.get(*at).is_none_or(|needs| needs.iter().all(|need| order.contains(need)));
        let free = left.iter().position(is_free);
        order.push(left.remove(free.unwrap_or(0)));
    }
    let mut packages: Vec<Option<Package>> = packages.into_iter().map(Some).collect();
    let members = order.into_iter().filter_map(|at| packages.get_mut(at)?.take());
    std::iter::once(root).chain(members).collect()
}

/// Whether the manifests in the root make a directory a workspace member.
pub fn is_member(source: &dyn Source, directory: &str) -> bool {
    let Some(root) = tree::json(source, "package.json").ok().flatten() else {
        return false;
    };
    workspace_globs(source, &root).is_ok_and(|globs| names(globs)(&format!("{directory}/package.json")))
}

fn member_paths(source: &dyn Source, root: &Value) -> Result<Vec<String>, Error> {
    let is_member = names(workspace_globs(source, root)?);
    let members = tree::named(source, |name| name == "package.json").into_iter();
    let members = members.filter(|path| path != "package.json" && is_member(path));
    Ok(std::iter::once("package.json".to_owned()).chain(members).collect())
}

/// Whether a workspace's globs, including exclusions, match a manifest.
fn names(globs: Vec<String>) -> impl Fn(&str) -> bool {
    let (out, into): (Vec<String>, Vec<String>) = globs.into_iter().partition(|g| g.starts_with('!'));
    let manifest = |globs: Vec<String>| -> Vec<String> {
        let globs = globs.iter().map(|g| g.trim_start_matches(['!', '.']).trim_matches('/'));
        globs.map(|g| format!("{g}/package.json")).collect()
    };
    let (out, into) = (manifest(out), manifest(into));
    move |path| matches(&into, path) && !matches(&out, path)
}

fn workspace_globs(source: &dyn Source, root: &Value) -> Result<Vec<String>, Error> {
    let yaml = yaml(source, "pnpm-workspace.yaml")?;
    let list = match &yaml {
        Some(yaml) => yaml.get("packages").and_then(Value::as_array),
        None => {
            let workspaces = root.get("workspaces");
            workspaces.and_then(|w| w.as_array().or_else(|| w.get("packages")?.as_array()))
        }
    };
    Ok(list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Reads a YAML file; an empty one is `null`.
pub(super) fn yaml(source: &dyn Source, path: &str) -> Result<Option<Value>, Error> {
    let Some(text) = tree::text(source, path) else { return Ok(None) };
    if text.trim().is_empty() {
        return Ok(Some(Value::Null));
    }
    let parsed = serde_saphyr::from_str(&text).map_err(|error| Error::Manifest {
        path: path.to_owned(),
        message: error.to_string().lines().next().unwrap_or_default().to_owned(),
    })?;
    Ok(Some(parsed))
}
