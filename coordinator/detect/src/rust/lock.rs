//! Checks that `Cargo.lock` matches the manifests.
//!
//! Invariant: a lock file that `cargo --locked` accepts passes; the usual reasons for rejecting one are reported here,
//! before anything runs.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{super::Error, manifest::Package};

/// The contents of a `Cargo.lock`.
pub(super) struct Lock {
    names: BTreeSet<String>,
    local: Vec<(String, String)>,
    /// Whether any package comes from outside the tree.
    pub(super) foreign: bool,
    /// Packages of the tree that an outside package needs: it is compiled against them, so they cannot be stubs.
    pub(super) needed_from_outside: BTreeSet<String>,
}

/// Reads a parsed `Cargo.lock`.
pub(super) fn read(lock: &Table) -> Lock {
    let packages: Vec<&Value> = lock.get("package").and_then(Value::as_array).into_iter().flatten().collect();
    let field = |package: &Value, key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_local = |package: &&Value| package.get("source").is_none();
    Lock {
        names: packages.iter().map(|package| field(package, "name")).collect(),
        local: packages
            .iter()
            .copied()
            .filter(is_local)
            .map(|package| (field(package, "name"), field(package, "version")))
            .collect(),
        foreign: !packages.iter().all(is_local),
        needed_from_outside: needed_from_outside(&packages),
    }
}

/// The packages of the tree that outside packages need, and those that these need.
fn needed_from_outside(packages: &[&Value]) -> BTreeSet<String> {
    let text = |package: &Value, key: &str| package.get(key).and_then(Value::as_str).map(str::to_owned);
    // `name`, `name version`, or `name version (source)`; the latter is not in the tree.
    let local = |need: &str| {
        let words: Vec<&str> = need.split_whitespace().collect();
        packages.iter().copied().find(|package| {
            package.get("source").is_none()
                && words.len() < 3
                && text(package, "name").as_deref() == words.first().copied()
                && words.get(1).is_none_or(|version| text(package, "version").as_deref() == Some(*version))
        })
    };
    let needs = |package: &Value| -> Vec<String> {
        let list = package.get("dependencies").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut queue: Vec<String> = packages.iter().filter(|p| p.get("source").is_some()).flat_map(|p| needs(p)).collect();
    let mut found = BTreeSet::new();
    while let Some(need) = queue.pop() {
        if let Some(package) = local(&need)
            && found.insert(text(package, "name").unwrap_or_default())
        {
            queue.extend(needs(package));
        }
    }
    found
}

/// Rejects a lock file that lacks a member or its dependency, or has a member in another version.
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
            [first, ..] if !locked.contains(&own) => {
                let fact = format!("`{path}` is at version {own}, the lock has `{}` at {first}", package.name);
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

/// The name of the package that a dependency refers to, which may differ from its key.
fn dependency_name(key: &str, dependency: &Value, root: &Table) -> String {
    let inherited = dependency.get("workspace").and_then(Value::as_bool) == Some(true);
    let shared = root.get("workspace").and_then(|w| w.get("dependencies")).and_then(|d| d.get(key));
    let meaning = if inherited { shared.unwrap_or(dependency) } else { dependency };
    meaning.get("package").and_then(Value::as_str).unwrap_or(key).to_owned()
}
