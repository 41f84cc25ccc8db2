//! Which packages of the tree belong to a Node project.
//!
//! Invariant: the root comes first, then the workspace's members by directory.

use serde_json::Value;

use super::super::{Error, tree};
use crate::plan::{Source, matches};

/// A package of the tree.
pub(super) struct Package {
    pub(super) directory: String,
    pub(super) manifest: String,
    pub(super) content: Value,
}

/// The root package and the members of its workspace.
pub(super) fn packages(source: &dyn Source, root: &Value) -> Result<Vec<Package>, Error> {
    let mut packages = Vec::new();
    for manifest in paths(source, root) {
        if let Some(content) = tree::json(source, &manifest)? {
            packages.push(Package { directory: tree::parent(&manifest).to_owned(), manifest, content });
        }
    }
    Ok(packages)
}

/// The paths of the manifests of the root package and the members of its workspace.
pub(crate) fn package_paths(source: &dyn Source) -> Vec<String> {
    tree::json(source, "package.json").ok().flatten().map(|root| paths(source, &root)).unwrap_or_default()
}

fn paths(source: &dyn Source, root: &Value) -> Vec<String> {
    let globs = workspace_globs(source, root);
    let (out, into): (Vec<String>, Vec<String>) = globs.into_iter().partition(|g| g.starts_with('!'));
    let out: Vec<String> = out.iter().map(|g| g[1..].to_owned()).collect();
    let manifest = |globs: &[String]| -> Vec<String> {
        globs.iter().map(|g| format!("{}/package.json", g.trim_start_matches("./").trim_end_matches('/'))).collect()
    };
    let (out, into) = (manifest(&out), manifest(&into));
    let members = tree::named(source, |name| name == "package.json").into_iter();
    let members = members.filter(|path| path != "package.json" && matches(&into, path) && !matches(&out, path));
    std::iter::once("package.json".to_owned()).chain(members).collect()
}

fn workspace_globs(source: &dyn Source, root: &Value) -> Vec<String> {
    if let Some(yaml) = tree::text(source, "pnpm-workspace.yaml") {
        return yaml_list(&yaml, "packages");
    }
    let workspaces = root.get("workspaces");
    let list = workspaces.and_then(|w| w.as_array().or_else(|| w.get("packages")?.as_array()));
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A top-level list of strings, in the one form in which it is written.
fn yaml_list(text: &str, key: &str) -> Vec<String> {
    let mut lines = text.lines().skip_while(|line| line.trim_end() != format!("{key}:"));
    lines.next();
    lines
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map_while(|line| line.trim_start().strip_prefix("- "))
        .map(|item| item.split(" #").next().unwrap_or(item).trim().trim_matches(['"', '\'']).to_owned())
        .collect()
}
