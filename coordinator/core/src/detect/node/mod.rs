//! Node: npm, pnpm and yarn.
//!
//! The layer installs what the lock file names, with the dependencies' own install scripts. It sees each
//! `package.json` without its version and its scripts: so a `postinstall` of the project does not drag the sources
//! in, and runs in the build step, where the sources are.

mod managers;
mod manifest;

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Detected, Error, Identity,
    found::{artifact, compile_step, fetch_step, strings},
    staging::{OUT, move_tree},
    tree,
};
use crate::plan::{ArtifactKind, Source};
pub(crate) use manifest::package_paths;

/// The name and version of the root package.
pub(super) fn identity(source: &dyn Source) -> Identity {
    let Ok(Some(root)) = tree::json(source, "package.json") else { return Identity::default() };
    let field = |key: &str| root.get(key).and_then(Value::as_str).map(str::to_owned);
    Identity { name: field("name"), version: field("version") }
}

/// A Node project in the root of the tree.
pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let Some(root) = tree::json(source, "package.json")? else { return Ok(None) };
    let packages = manifest::packages(source, &root)?;
    let Some(manager) = managers::choose(source, &root, &packages)? else {
        let steps = vec![build_step(&root, &packages, "npm", "", BTreeMap::new(), false)];
        return Ok(Some(finish(source, directory_name, "npm", vec!["`package.json` needs nothing".into()], steps)));
    };
    let mut key: Vec<String> = packages.iter().map(|p| p.manifest.clone()).collect();
    let mut unversioned = key.clone();
    unversioned.extend(manager.lock.ends_with(".json").then(|| manager.lock.to_owned()));
    key.push(manager.lock.to_owned());
    key.extend(tree::all_of(source, manager.configuration));
    for directory in ["patches", ".yarn"] {
        key.extend(tree::has_directory(source, directory).then(|| directory.to_owned()));
    }
    let why = format!("installs what `{}` names; keyed by it and each `package.json`", manager.lock);
    let modules: Vec<String> =
        packages.iter().map(|p| tree::join(&p.directory, "node_modules").unwrap_or_default()).collect();
    let (mut outputs, mut install) = (manager.outputs.clone(), manager.install.to_owned());
    if manager.modules {
        let words: Vec<String> = modules.iter().map(|m| tree::shell_word(m)).collect();
        install.push_str(&format!("\nmkdir -p {}", words.join(" ")));
        outputs.extend(modules);
    }
    let mut deps = fetch_step("deps", &why, install);
    (deps.inputs, deps.unversioned, deps.outputs) = (key, unversioned, outputs);
    (deps.env, deps.tools) = (manager.env.clone(), strings(["node", manager.tool]));
    deps.memory_bytes = super::found::COMPILER_MEMORY_BYTES;
    let build = build_step(&root, &packages, manager.tool, &manager.prune, manager.env, true);
    let because = vec!["`package.json` is a package".to_owned(), format!("`{}` locks what it needs", manager.lock)];
    let mut found = finish(source, directory_name, manager.tool, because, vec![deps, build]);
    found.notes.extend(manager.note);
    Ok(Some(found))
}

fn build_step(
    root: &Value,
    packages: &[manifest::Package],
    tool: &str,
    prune: &str,
    env: BTreeMap<String, String>,
    layered: bool,
) -> crate::plan::Step {
    let has_script = |package: &Value, name: &str| package.get("scripts").and_then(|s| s.get(name)).is_some();
    let mut run = String::new();
    for script in ["preinstall", "install", "postinstall", "prepare", "build"] {
        if has_script(root, script) {
            run.push_str(&format!("{tool} run {script}\n"));
        } else if script == "build" {
            // Members in the order in which the workspace names them.
            for package in packages.iter().filter(|p| !p.directory.is_empty() && has_script(&p.content, script)) {
                run.push_str(&format!("(cd {} && {tool} run build)\n", tree::shell_word(&package.directory)));
            }
        }
    }
    let built = !run.is_empty();
    run.push_str(prune);
    run.push_str("rm -rf node_modules/.cache node_modules/.modules.yaml node_modules/.pnpm-workspace-state*.json\n");
    run.push_str(&move_tree(&[]));
    let why = match built {
        true => "runs the package's own scripts, takes development dependencies out, and bundles what is left",
        false => "takes development dependencies out and bundles the package with the others",
    };
    let mut step = compile_step("bundle", why, run);
    (step.env, step.outputs) = (env, strings([OUT]));
    step.needs = if layered { strings(["deps"]) } else { Vec::new() };
    step.tools = strings(["node", tool]);
    step
}

fn finish(
    source: &dyn Source,
    directory_name: &str,
    tool: &str,
    because: Vec<String>,
    steps: Vec<crate::plan::Step>,
) -> Detected {
    let identity = identity(source);
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    Detected {
        language: format!("node ({tool})"),
        because,
        identity,
        steps,
        artifacts: vec![artifact(&name, ArtifactKind::Archive, "bundle", &[(OUT, ".")])],
        notes: Vec::new(),
    }
}
