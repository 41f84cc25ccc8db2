//! The packages of the tree that belong to a Cargo build, and their manifests.
//!
//! Invariant: workspace members are found like Cargo finds them: the root package, directories that `members` matches,
//! and path dependencies reached from these.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use toml::{Table, Value};

use super::super::{Error, Identity, tree};
use kiln_plan::{Source, matches};

/// A package of the tree.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    /// Its directory; empty for the root.
    pub(crate) directory: String,
    /// Its complete manifest.
    pub(crate) manifest: Table,
    /// Its name.
    pub(crate) name: String,
    /// Whether it is a workspace member, rather than an additional path dependency.
    pub(crate) member: bool,
}

impl Package {
    /// The path of its manifest.
    pub(crate) fn manifest_path(&self) -> String {
        self.path("Cargo.toml")
    }

    /// The path in the tree of a file in its directory.
    pub(crate) fn path(&self, path: &str) -> String {
        tree::join(&self.directory, path).unwrap_or_else(|| path.to_owned())
    }

    /// A value of its `[package]`.
    pub(crate) fn package(&self, key: &str) -> Option<&Value> {
        self.manifest.get("package")?.get(key)
    }

    /// All dependency tables, of every kind and target.
    pub(crate) fn dependencies(&self) -> Vec<&Table> {
        let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
        let targets = self.manifest.get("target").and_then(Value::as_table);
        let tables =
            std::iter::once(&self.manifest).chain(targets.into_iter().flatten().filter_map(|(_, t)| t.as_table()));
        tables.flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table())).collect()
    }
}

/// The name and version of the root package, or the version that a workspace shares.
pub(crate) fn identity(source: &dyn Source) -> Identity {
    let Ok(Some(root)) = tree::toml(source, "Cargo.toml") else {
        return Identity::default();
    };
    let package = root.get("package");
    let shared = root.get("workspace").and_then(|w| w.get("package")).and_then(|p| p.get("version"));
    let own = package.and_then(|p| p.get("version")).filter(|v| v.is_str());
    Identity {
        name: package.and_then(|p| p.get("name")).and_then(Value::as_str).map(str::to_owned),
        version: own.or(shared).and_then(Value::as_str).map(str::to_owned),
    }
}

/// The packages of the tree that the root manifest reaches, by directory.
pub(crate) fn local_packages(source: &dyn Source, root: &Table) -> Result<Vec<Package>, Error> {
    let workspace = root.get("workspace");
    let globs = |key: &str| -> Vec<String> {
        let list = workspace.and_then(|w| w.get(key)).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).filter_map(|g| tree::join("", g)).collect()
    };
    let (members, exclude) = (globs("members"), globs("exclude"));
    let mut queue: VecDeque<String> = VecDeque::new();
    if root.contains_key("package") {
        queue.push_back(String::new());
    }
    for path in source.paths().iter().filter(|p| p.ends_with("/Cargo.toml")) {
        let directory = tree::parent(path);
        // A glob in `members` matches directories, never what is below them.
        let named = members.iter().any(|glob| glob_is(glob, directory));
        if named && !matches(&exclude, directory) {
            queue.push_back(directory.to_owned());
        }
    }
    let mut seen: BTreeSet<String> = queue.iter().cloned().collect();
    let mut packages: BTreeMap<String, Package> = BTreeMap::new();
    while let Some(directory) = queue.pop_front() {
        let path = tree::join(&directory, "Cargo.toml").unwrap_or_default();
        let Some(manifest) = tree::toml(source, &path)? else {
            continue;
        };
        let name = manifest.get("package").and_then(|p| p.get("name")).and_then(Value::as_str);
        let name = name.unwrap_or_default().to_owned();
        let member = directory.is_empty() || workspace.is_some() && !matches(&exclude, &directory);
        let package = Package { directory: directory.clone(), manifest, name, member };
        for path in path_dependencies(&package, root) {
            if seen.insert(path.clone()) {
                queue.push_back(path);
            }
        }
        packages.insert(directory, package);
    }
    Ok(packages.into_values().filter(|p| !p.name.is_empty()).collect())
}

fn glob_is(glob: &str, directory: &str) -> bool {
    matches(&[format!("{glob}/Cargo.toml")], &format!("{directory}/Cargo.toml"))
        && glob.split('/').count() == directory.split('/').count()
        || glob.contains("**") && matches(&[glob.to_owned()], directory)
}

/// The directories named by a package's dependencies, the workspace's and the patches.
fn path_dependencies(package: &Package, root: &Table) -> Vec<String> {
    let own = package.dependencies().into_iter().flatten().map(|(_, d)| (package.directory.as_str(), d));
    let shared = root.get("workspace").and_then(|w| w.get("dependencies")).and_then(Value::as_table);
    let shared = shared.into_iter().flatten().map(|(_, d)| ("", d));
    let patches = root.get("patch").and_then(Value::as_table).into_iter().flatten();
    let patches = patches.filter_map(|(_, registry)| registry.as_table()).flatten().map(|(_, d)| ("", d));
    own.chain(shared)
        .chain(patches)
        .filter_map(|(directory, d)| tree::join(directory, d.get("path")?.as_str()?))
        .collect()
}
