//! npm, pnpm and yarn: which one a project uses, and how each installs from its lock file alone.
//!
//! Invariant: every command refuses a lock file that does not fit, and the one that prunes needs no network.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    super::{Error, tree},
    manifest::Package,
};
use crate::plan::Source;

/// How a manager works.
pub(super) struct Manager {
    pub(super) tool: &'static str,
    pub(super) lock: &'static str,
    pub(super) configuration: &'static [&'static str],
    pub(super) install: &'static str,
    /// Ends with a line's end where there is any.
    pub(super) prune: String,
    /// What the layer holds beside `node_modules`.
    pub(super) outputs: Vec<String>,
    /// Whether it fills `node_modules`.
    pub(super) modules: bool,
    pub(super) env: BTreeMap<String, String>,
    pub(super) note: Option<String>,
}

/// The manager whose lock file is there; `None` where nothing is needed.
pub(super) fn choose(source: &dyn Source, root: &Value, packages: &[Package]) -> Result<Option<Manager>, Error> {
    let wanted: Vec<(&str, &str, &str)> = packages.iter().flat_map(dependencies).collect();
    let manager = if tree::has(source, "pnpm-lock.yaml") {
        pnpm()
    } else if let Some(lock) = tree::text(source, "yarn.lock") {
        if lock.contains("__metadata:") { yarn_modern(source) } else { yarn_classic() }
    } else if let Some(lock) = tree::first_of(source, &["npm-shrinkwrap.json", "package-lock.json"]) {
        npm(lock)
    } else if wanted.is_empty() {
        return Ok(None);
    } else {
        let named = root.get("packageManager").and_then(Value::as_str).unwrap_or_default();
        let (lock, command) = match named.split('@').next() {
            Some("pnpm") => ("pnpm-lock.yaml", "pnpm install --lockfile-only"),
            Some("yarn") => ("yarn.lock", "yarn install"),
            _ => ("package-lock.json", "npm install --package-lock-only"),
        };
        let manifest = "package.json".to_owned();
        return Err(Error::MissingLock { manifest, lock: lock.into(), command: command.into() });
    };
    check_lock(source, &manager, packages, &wanted)?;
    Ok(Some(manager))
}

/// Refuses a lock file in which a dependency's name does not occur.
fn check_lock(
    source: &dyn Source,
    manager: &Manager,
    packages: &[Package],
    wanted: &[(&str, &str, &str)],
) -> Result<(), Error> {
    let lock = tree::text(source, manager.lock).unwrap_or_default();
    let local = |name: &str| packages.iter().any(|p| p.content.get("name").and_then(Value::as_str) == Some(name));
    for (manifest, name, range) in wanted {
        let there = match manager.tool {
            "npm" => lock.contains(&format!("\"node_modules/{name}\"")) || lock.contains(&format!("\"{name}\"")),
            "yarn" => lock.contains(&format!("{name}@{range}")) || lock.contains(&format!("{name}@npm:{range}")),
            _ => lock.contains(name),
        };
        if !there && !local(name) && !range.contains(':') {
            return Err(Error::StaleLock {
                lock: manager.lock.to_owned(),
                fact: format!("`{manifest}` depends on `{name}` {range}, which it lacks"),
                command: match manager.tool {
                    "npm" => "npm install --package-lock-only".into(),
                    tool => format!("{tool} install"),
                },
            });
        }
    }
    Ok(())
}

/// Each dependency as the manifest that names it, its name and its range.
fn dependencies(package: &Package) -> impl Iterator<Item = (&str, &str, &str)> {
    let kinds = ["dependencies", "devDependencies", "optionalDependencies"];
    let tables = kinds.into_iter().filter_map(|kind| package.content.get(kind)?.as_object());
    tables.flatten().filter_map(|(name, range)| Some((package.manifest.as_str(), name.as_str(), range.as_str()?)))
}

fn variables<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

fn npm(lock: &'static str) -> Manager {
    Manager {
        tool: "npm",
        lock,
        configuration: &[".npmrc", ".nvmrc", ".node-version"],
        install: "npm ci --no-audit --no-fund",
        prune: "npm prune --omit=dev --ignore-scripts --offline --no-audit --no-fund\n".into(),
        outputs: Vec::new(),
        modules: true,
        env: variables([("npm_config_cache", "/tmp/npm-cache"), ("npm_config_update_notifier", "false")]),
        note: None,
    }
}

fn pnpm() -> Manager {
    Manager {
        tool: "pnpm",
        lock: "pnpm-lock.yaml",
        configuration: &["pnpm-workspace.yaml", ".npmrc", ".pnpmfile.cjs", ".nvmrc", ".node-version"],
        install: "pnpm fetch\npnpm install --offline --frozen-lockfile",
        prune: "pnpm install --prod --offline --frozen-lockfile --ignore-scripts\n".into(),
        outputs: vec![".kiln/pnpm-store".into()],
        modules: true,
        env: variables([
            ("CI", "true"),
            ("npm_config_manage_package_manager_versions", "false"),
            ("npm_config_package_import_method", "copy"),
            ("npm_config_store_dir", "/build/.kiln/pnpm-store"),
        ]),
        note: None,
    }
}

fn yarn_classic() -> Manager {
    Manager {
        tool: "yarn",
        lock: "yarn.lock",
        configuration: &[".npmrc", ".yarnrc", ".nvmrc", ".node-version"],
        install: "yarn install --frozen-lockfile --non-interactive",
        prune: "yarn install --production --offline --frozen-lockfile --ignore-scripts --non-interactive\n".into(),
        outputs: vec![".kiln/yarn-cache".into()],
        modules: true,
        env: variables([("YARN_CACHE_FOLDER", "/build/.kiln/yarn-cache")]),
        note: None,
    }
}

fn yarn_modern(source: &dyn Source) -> Manager {
    let settings = tree::text(source, ".yarnrc.yml").unwrap_or_default();
    let modules = settings.lines().any(|l| l.starts_with("nodeLinker:") && l.contains("node-modules"));
    let mut outputs = vec![".yarn/cache".to_owned()];
    outputs.extend((!modules).then(|| ".pnp.cjs".to_owned()));
    Manager {
        tool: "yarn",
        lock: "yarn.lock",
        configuration: &[".yarnrc.yml", ".npmrc", ".nvmrc", ".node-version"],
        install: "yarn install --immutable\nmkdir -p .yarn/cache",
        prune: String::new(),
        outputs,
        modules,
        env: variables([("YARN_ENABLE_GLOBAL_CACHE", "false"), ("YARN_ENABLE_TELEMETRY", "false")]),
        note: Some("the archive keeps development dependencies: this yarn cannot take them out offline".into()),
    }
}
