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
    Bun,
}

/// Lock files with the manager's command, in order of preference.
const LOCKS: [(&str, &str); 6] = [
    ("pnpm-lock.yaml", "pnpm"),
    ("yarn.lock", "yarn"),
    ("npm-shrinkwrap.json", "npm"),
    ("package-lock.json", "npm"),
    ("bun.lock", "bun"),
    ("bun.lockb", "bun"),
];

/// Lock files of other tools.
const OTHERS: [&str; 1] = ["deno.lock"];

impl Tool {
    /// Its command.
    pub(super) fn command(self) -> &'static str {
        match self {
            Tool::Npm => "npm",
            Tool::Pnpm => "pnpm",
            Tool::YarnClassic | Tool::YarnModern => "yarn",
            Tool::Bun => "bun",
        }
    }

    /// The command that runs JavaScript where this package manager is.
    pub(super) fn runtime(self) -> &'static str {
        if self == Tool::Bun { "bun" } else { "node" }
    }

    /// The project's package manager according to its files; npm by default.
    pub(super) fn of(source: &dyn Source, root: &Value) -> Tool {
        let wanted = || named(root).or_else(|| runs_bun(source, root).map(|_| "bun")).unwrap_or("npm");
        let command = lock_of(source, root).map_or_else(wanted, |(_, command)| command);
        match command {
            "pnpm" => Tool::Pnpm,
            "yarn" => match tree::text(source, "yarn.lock") {
                Some(lock) if !lock.contains("__metadata:") => Tool::YarnClassic,
                Some(_) => Tool::YarnModern,
                None if tree::has(source, ".yarnrc.yml") => Tool::YarnModern,
                None => Tool::YarnClassic,
            },
            "bun" => Tool::Bun,
            _ => Tool::Npm,
        }
    }
}

/// The manager named in `packageManager`.
pub(super) fn named(root: &Value) -> Option<&str> {
    root.get("packageManager")?.as_str()?.split('@').next().filter(|name| !name.is_empty())
}

/// What shows that a project is run by Bun, whoever installed its packages.
pub(super) fn runs_bun(source: &dyn Source, root: &Value) -> Option<&'static str> {
    if tree::has(source, "bunfig.toml") {
        return Some("`bunfig.toml` is there");
    }
    if root.get("engines").and_then(|engines| engines.get("bun")).is_some() {
        return Some("`engines` names bun");
    }
    let scripts = root.get("scripts").and_then(Value::as_object).into_iter().flatten();
    let mut words = scripts.filter_map(|(_, text)| text.as_str()?.split_whitespace().next());
    words.any(|word| matches!(word, "bun" | "bunx")).then_some("its scripts run `bun`")
}

/// The lock file that is used. `packageManager` decides between several, then what shows that Bun is used, then their order.
fn lock_of(source: &dyn Source, root: &Value) -> Option<(&'static str, &'static str)> {
    let there = || LOCKS.into_iter().filter(|(lock, _)| tree::has(source, lock));
    let by_name = there().find(|(_, command)| Some(*command) == named(root));
    let by_use = || there().find(|(_, command)| *command == "bun" && runs_bun(source, root).is_some());
    by_name.or_else(by_use).or_else(|| there().next())
}

/// Why this lock file is used in place of others beside it.
pub(super) fn reason(source: &dyn Source, root: &Value, tool: Tool) -> String {
    match runs_bun(source, root).filter(|_| tool == Tool::Bun) {
        _ if named(root) == Some(tool.command()) => "`packageManager` names its tool".to_owned(),
        Some(reason) => reason.to_owned(),
        None => format!("no `packageManager` names another tool than {}", tool.command()),
    }
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
    if let Some(other) = named(root).filter(|name| !matches!(*name, "npm" | "pnpm" | "yarn" | "bun")) {
        return Err(Error::UnsupportedLock { lock: "package.json".to_owned(), tool: other.to_owned() });
    }
    let (lock, command) = match tool {
        Tool::Npm => ("package-lock.json", "npm install --package-lock-only"),
        Tool::Pnpm => ("pnpm-lock.yaml", "pnpm install --lockfile-only"),
        Tool::YarnClassic | Tool::YarnModern => ("yarn.lock", "yarn install"),
        Tool::Bun => ("bun.lock", "bun install --lockfile-only"),
    };
    Err(Error::MissingLock { manifest: "package.json".to_owned(), lock: lock.into(), command: command.into() })
}

/// Other lock files next to the one that is used.
pub(super) fn ignored(source: &dyn Source, used: &str) -> Vec<&'static str> {
    let known = LOCKS.into_iter().map(|(lock, _)| lock).chain(OTHERS);
    known.filter(|lock| *lock != used && tree::has(source, lock)).collect()
}

/// Rejects a lock file that does not mention a dependency.
fn check(source: &dyn Source, tool: Tool, lock_path: &str, packages: &[Package]) -> Result<(), Error> {
    let lock = tree::text(source, lock_path).unwrap_or_default();
    if lock_path == "bun.lockb" {
        // It is binary; bun itself compares it.
        return Ok(());
    }
    let local = |name: &str| packages.iter().any(|package| package.name() == Some(name));
    let replaced = |name: &str| {
        let tables = ["resolutions", "overrides"].into_iter().filter_map(|key| packages.first()?.content.get(key));
        tables.filter_map(Value::as_object).flat_map(|table| table.keys()).any(|key| key.contains(name))
    };
    for package in packages.iter().filter(|package| package.installed) {
        for (kind, name, range) in package.dependencies() {
            let there = match tool {
                Tool::Npm => {
                    lock.contains(&format!("\"node_modules/{name}\"")) || lock.contains(&format!("\"{name}\""))
                }
                Tool::Pnpm => lock.contains(name),
                Tool::Bun => lock.contains(&format!("\"{name}\": \"{range}\"")),
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
                        Tool::Bun => "bun install --lockfile-only".into(),
                        tool => format!("{} install", tool.command()),
                    },
                });
            }
        }
    }
    Ok(())
}
