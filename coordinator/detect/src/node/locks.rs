//! Lock files: which package manager a project uses, and whether the lock file matches the manifests.
//!
//! Invariant: a suggested fix only changes the lock file that the project has; for an unsupported manager's lock file,
//! no other manager is suggested.

use serde_json::Value;

use super::{
    super::{Error, tree},
    manifest::Package,
};
use kiln_plan::Source;

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Npm,
    Pnpm,
    YarnClassic,
    YarnModern,
}

/// Lock files with the manager's command, in order of preference.
const LOCKS: [(&str, &str); 4] =
    [("pnpm-lock.yaml", "pnpm"), ("yarn.lock", "yarn"), ("npm-shrinkwrap.json", "npm"), ("package-lock.json", "npm")];

/// Lock files of unsupported managers.
const UNSUPPORTED: [(&str, &str); 3] = [("bun.lock", "bun"), ("bun.lockb", "bun"), ("deno.lock", "deno")];

impl Tool {
    /// Its command.
    pub(super) fn command(self) -> &'static str {
        match self {
            Tool::Npm => "npm",
            Tool::Pnpm => "pnpm",
            Tool::YarnClassic | Tool::YarnModern => "yarn",
        }
    }

    /// The project's package manager according to its files; npm by default.
    pub(super) fn of(source: &dyn Source, root: &Value) -> Tool {
        let command = lock_of(source, root).map_or_else(|| named(root).unwrap_or("npm"), |(_, command)| command);
        match command {
            "pnpm" => Tool::Pnpm,
            "yarn" => match tree::text(source, "yarn.lock") {
                Some(lock) if !lock.contains("__metadata:") => Tool::YarnClassic,
                Some(_) => Tool::YarnModern,
                None if tree::has(source, ".yarnrc.yml") => Tool::YarnModern,
                None => Tool::YarnClassic,
            },
            _ => Tool::Npm,
        }
    }
}

/// The manager named in `packageManager`.
pub(super) fn named(root: &Value) -> Option<&str> {
    root.get("packageManager")?.as_str()?.split('@').next().filter(|name| !name.is_empty())
}

fn lock_of(source: &dyn Source, root: &Value) -> Option<(&'static str, &'static str)> {
    let there = || LOCKS.into_iter().filter(|(lock, _)| tree::has(source, lock));
    there().find(|(_, command)| Some(*command) == named(root)).or_else(|| there().next())
}

/// The project's lock file. `None` if there are no dependencies to lock.
pub(super) fn choose(
    source: &dyn Source,
    root: &Value,
    tool: Tool,
    packages: &[Package],
) -> Result<Option<&'static str>, Error> {
    if let Some((lock, _)) = lock_of(source, root) {
        check(source, tool, lock, packages)?;
        return Ok(Some(lock));
    }
    let wants = packages.iter().any(|package| package.names_any(&super::manifest::KINDS[..3]));
    if !wants {
        return Ok(None);
    }
    let unknown = UNSUPPORTED.into_iter().find(|(lock, _)| tree::has(source, lock));
    if let Some((lock, manager)) = unknown {
        return Err(Error::UnsupportedLock { lock: lock.to_owned(), tool: manager.to_owned() });
    }
    if let Some(other) = named(root).filter(|name| !matches!(*name, "npm" | "pnpm" | "yarn")) {
        return Err(Error::UnsupportedLock { lock: "package.json".to_owned(), tool: other.to_owned() });
    }
    let (lock, command) = match tool {
        Tool::Npm => ("package-lock.json", "npm install --package-lock-only"),
        Tool::Pnpm => ("pnpm-lock.yaml", "pnpm install --lockfile-only"),
        Tool::YarnClassic | Tool::YarnModern => ("yarn.lock", "yarn install"),
    };
    Err(Error::MissingLock { manifest: "package.json".to_owned(), lock: lock.into(), command: command.into() })
}

/// Other lock files next to the one that is used.
pub(super) fn ignored(source: &dyn Source, used: &str) -> Vec<&'static str> {
    let known = LOCKS.into_iter().chain(UNSUPPORTED).map(|(lock, _)| lock);
    known.filter(|lock| *lock != used && tree::has(source, lock)).collect()
}

/// Rejects a lock file that does not mention a dependency.
fn check(source: &dyn Source, tool: Tool, lock_path: &str, packages: &[Package]) -> Result<(), Error> {
    let lock = tree::text(source, lock_path).unwrap_or_default();
    let local = |name: &str| packages.iter().any(|package| package.name() == Some(name));
    let replaced = |name: &str| {
        let tables = ["resolutions", "overrides"].into_iter().filter_map(|key| packages[0].content.get(key));
        tables.filter_map(Value::as_object).flat_map(|table| table.keys()).any(|key| key.contains(name))
    };
    for package in packages.iter().filter(|package| package.installed) {
        for (kind, name, range) in package.dependencies() {
            let there = match tool {
                Tool::Npm => {
                    lock.contains(&format!("\"node_modules/{name}\"")) || lock.contains(&format!("\"{name}\""))
                }
                Tool::Pnpm => lock.contains(name),
                _ => lock.contains(&format!("{name}@{range}")) || lock.contains(&format!("{name}@npm:{range}")),
            };
            // URLs, aliases and paths of the tree are written differently in lock files.
            let elsewhere = range.contains([':', '/']) || kind == "peerDependencies";
            if !there && !elsewhere && !local(name) && !replaced(name) {
                return Err(Error::StaleLock {
                    lock: lock_path.to_owned(),
                    fact: format!("`{}` depends on `{name}` {range}, which it lacks", package.manifest),
                    command: match tool {
                        Tool::Npm => "npm install --package-lock-only".into(),
                        tool => format!("{} install", tool.command()),
                    },
                });
            }
        }
    }
    Ok(())
}
