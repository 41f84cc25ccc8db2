//! Whether `Cargo.lock` still fits the manifests.
//!
//! Invariant: a lock that `cargo --locked` accepts passes; of those it refuses, the usual ones are named here, before
//! anything runs.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{super::Error, manifest::Package};

/// What a `Cargo.lock` says.
pub(super) struct Lock {
    names: BTreeSet<String>,
    local: Vec<(String, String)>,
    /// Whether any package comes from outside the tree.
    pub(super) foreign: bool,
}

/// Reads a parsed `Cargo.lock`.
pub(super) fn read(lock: &Table) -> Lock {
    let packages = lock.get("package").and_then(Value::as_array);
    let mut read = Lock { names: BTreeSet::new(), local: Vec::new(), foreign: false };
    for package in packages.into_iter().flatten() {
        let field = |key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        read.names.insert(field("name"));
        if package.get("source").is_some() {
            read.foreign = true;
        } else {
            read.local.push((field("name"), field("version")));
        }
    }
    read
}

/// Refuses a lock that lacks a member or a dependency of one, or has a member in another version.
pub(super) fn check(lock: &Lock, packages: &[Package], root: &Table) -> Result<(), Error> {
    let stale =
        |fact: String| Error::StaleLock { lock: "Cargo.lock".into(), fact, command: "cargo update --workspace".into() };
    let shared = root.get("workspace").and_then(|w| w.get("package")).and_then(|p| p.get("version"));
    for package in packages.iter().filter(|p| p.member) {
        let path = package.manifest_path();
        let locked: Vec<&str> =
            lock.local.iter().filter(|(name, _)| *name == package.name).map(|(_, v)| v.as_str()).collect();
        let own =
            package.package("version").filter(|v| v.is_str()).or(shared).and_then(Value::as_str).unwrap_or("0.0.0");
        match locked.as_slice() {
            [] => {
                return Err(stale(format!("it lacks the package `{}` of `{path}`", package.name)));
            }
            versions if !versions.contains(&own) => {
                let fact = format!("`{path}` is at version {own}, the lock has `{}` at {}", package.name, versions[0]);
                return Err(stale(fact));
            }
            _ => {}
        }
        for (key, dependency) in package.dependencies().into_iter().flatten() {
            let name = dependency_name(key, dependency, root);
            if !lock.names.contains(&name) {
                return Err(stale(format!("`{path}` depends on `{name}`, which the lock lacks")));
            }
        }
    }
    Ok(())
}

/// The package that a dependency means, which may be another than its key.
fn dependency_name(key: &str, dependency: &Value, root: &Table) -> String {
    let inherited = dependency.get("workspace").and_then(Value::as_bool) == Some(true);
    let shared = root.get("workspace").and_then(|w| w.get("dependencies")).and_then(|d| d.get(key));
    let meaning = if inherited { shared.unwrap_or(dependency) } else { dependency };
    meaning.get("package").and_then(Value::as_str).unwrap_or(key).to_owned()
}
