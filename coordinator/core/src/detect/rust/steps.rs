//! The steps and artifacts of a Cargo build.
//!
//! Invariant: `deps` compiles with the same command as `compile`, so that Cargo finds what it needs under the same
//! names; and it leaves nothing of the project itself, for all files have one age, by which Cargo would take a stub
//! for the source.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{
    super::{
        Detected, Error,
        found::{artifact, compile_step, fetch_step, strings},
        tree,
    },
    lock,
    manifest::{self, Package, local_packages},
    targets,
};
use crate::plan::{Artifact, ArtifactKind, Source, Step, matches};

const HOME: &str = ".cargo-home";
const CONFIGURATION: [&str; 4] = ["rust-toolchain", "rust-toolchain.toml", ".cargo/config", ".cargo/config.toml"];

/// A Cargo project in the root of the tree.
pub(crate) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let Some(root) = tree::toml(source, "Cargo.toml")? else {
        return Ok(None);
    };
    let packages = local_packages(source, &root)?;
    let mut notes = Vec::new();
    let mut because = vec![match root.contains_key("workspace") && packages.len() > 1 {
        true => format!("`Cargo.toml` is a workspace of {} packages", packages.len()),
        false => "`Cargo.toml` is a package".to_owned(),
    }];
    let lock = tree::toml(source, "Cargo.lock")?.map(|table| lock::read(&table));
    match &lock {
        Some(lock) => {
            lock::check(lock, &packages, &root)?;
            because.push("`Cargo.lock` locks what it needs".to_owned());
        }
        None if packages.iter().any(needs_lock) => {
            return Err(Error::MissingLock {
                manifest: "Cargo.toml".into(),
                lock: "Cargo.lock".into(),
                command: "cargo generate-lockfile".into(),
            });
        }
        None => notes.push("there is no `Cargo.lock`; nothing is needed, so nothing is locked".to_owned()),
    }
    let foreign = lock.as_ref().is_some_and(|l| l.foreign);
    let project = Project { source, root: &root, packages: &packages, locked: lock.is_some() };
    let identity = manifest::identity(source);
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    let (outputs, artifacts) = project.artifacts(&name)?;
    Ok(Some(Detected {
        language: "rust".into(),
        because,
        identity,
        steps: project.steps(foreign, outputs),
        artifacts,
        notes,
    }))
}

/// Whether a package depends on anything outside the tree.
fn needs_lock(package: &Package) -> bool {
    package.dependencies().into_iter().flatten().any(|(_, d)| d.get("path").is_none())
}

struct Project<'a> {
    source: &'a dyn Source,
    root: &'a Table,
    packages: &'a [Package],
    locked: bool,
}

impl Project<'_> {
    fn steps(&self, foreign: bool, outputs: Vec<String>) -> Vec<Step> {
        let env = BTreeMap::from([
            ("CARGO_HOME".to_owned(), format!("/build/{HOME}")),
            ("CARGO_TARGET_DIR".to_owned(), "/build/target".to_owned()),
        ]);
        let build = format!("cargo build --release --offline{}", if self.locked { " --locked" } else { "" });
        let tools = strings(["cargo", "rustc", "cc"]);
        let mut compile = compile_step("compile", "compiles the project's own packages", &build);
        (compile.env, compile.tools, compile.outputs) = (env.clone(), tools.clone(), outputs);
        if !foreign {
            return vec![compile];
        }
        let vendored = self.vendored();
        let key: Vec<String> = self.packages.iter().map(Package::manifest_path).collect();
        let key: Vec<String> = std::iter::once("Cargo.toml".to_owned())
            .chain(key.into_iter().filter(|path| path != "Cargo.toml"))
            .chain(std::iter::once("Cargo.lock".to_owned()))
            .collect();
        let inputs: Vec<String> = key.iter().cloned().chain(tree::all_of(self.source, &CONFIGURATION)).collect();
        let files: BTreeMap<String, String> =
            self.packages.iter().flat_map(|package| targets::stubs(self.source, package)).collect();
        let mut deps = compile_step(
            "deps",
            "compiles the dependencies; keyed by the manifests and the lock file, with the sources stubbed",
            format!("{build}\ncargo clean --release --offline{}", self.own_packages()),
        );
        (deps.inputs, deps.unversioned, deps.files) = (inputs.clone(), key.clone(), files.clone());
        (deps.env, deps.tools, deps.outputs) = (env.clone(), tools, strings(["target"]));
        compile.needs = strings(["deps"]);
        if let Some(directory) = vendored {
            deps.inputs.push(directory);
            return vec![deps, compile];
        }
        let mut fetch = fetch_step("fetch", "fetches the packages that `Cargo.lock` names", "cargo fetch --locked");
        (fetch.inputs, fetch.unversioned, fetch.files) = (inputs, key, files);
        (fetch.env, fetch.tools, fetch.outputs) = (env, strings(["cargo"]), strings([HOME]));
        deps.needs = strings(["fetch"]);
        compile.needs = strings(["fetch", "deps"]);
        vec![fetch, deps, compile]
    }

    /// The directory of vendored packages, where Cargo's configuration names one.
    fn vendored(&self) -> Option<String> {
        let sources = self.configuration()?.get("source")?.as_table()?.clone();
        let directory = sources.values().find_map(|s| s.get("directory")?.as_str().map(str::to_owned))?;
        tree::join("", &directory).filter(|d| tree::has_directory(self.source, d))
    }

    fn configuration(&self) -> Option<Table> {
        let path = tree::first_of(self.source, &CONFIGURATION[2..])?;
        tree::toml(self.source, path).ok().flatten()
    }

    /// Arguments that name every package of the tree; with a version where another package has its name.
    fn own_packages(&self) -> String {
        let lock = tree::toml(self.source, "Cargo.lock").ok().flatten();
        let locked = |name: &str| -> Vec<String> {
            let all = lock.as_ref().and_then(|l| l.get("package")).and_then(Value::as_array);
            let same = all.into_iter().flatten().filter(|p| p.get("name").and_then(Value::as_str) == Some(name));
            // Packages of the tree have no source; they go first.
            let mut same: Vec<_> = same.collect();
            same.sort_by_key(|p| p.get("source").is_some());
            same.iter().filter_map(|p| p.get("version")?.as_str().map(str::to_owned)).collect()
        };
        let spec = |package: &Package| match locked(&package.name).as_slice() {
            [] => None,
            [_] => Some(format!(" -p {}", package.name)),
            [own, ..] => Some(format!(" -p {}@{own}", package.name)),
        };
        self.packages.iter().filter_map(spec).collect()
    }

    /// What a plain `cargo build` leaves that is worth handing over: outputs, and artifacts of them.
    fn artifacts(&self, name: &str) -> Result<(Vec<String>, Vec<Artifact>), Error> {
        let chosen = self.default_packages();
        let directory = self.output_directory();
        let mut outputs = Vec::new();
        let mut artifacts = Vec::new();
        for binary in chosen.iter().flat_map(|p| targets::binaries(self.source, p)) {
            let path = format!("{directory}/{binary}");
            artifacts.push(artifact(&binary, ArtifactKind::Binary, "compile", &[(&path, &binary)]));
            outputs.push(path);
        }
        if artifacts.is_empty() {
            let libraries = chosen.iter().filter(|p| targets::library(self.source, p).is_some());
            outputs = libraries.flat_map(|p| library_files(p)).map(|file| format!("{directory}/{file}")).collect();
            let files: Vec<(&str, &str)> = outputs.iter().map(|p| (p.as_str(), tree::base(p))).collect();
            artifacts.push(artifact(name, ArtifactKind::Archive, "compile", &files));
        }
        if outputs.is_empty() {
            let hint = "expected a binary (`src/main.rs`) or a library (`src/lib.rs`) in one of its packages";
            return Err(Error::NothingToBuild { manifest: "Cargo.toml".into(), hint: hint.into() });
        }
        Ok((outputs, artifacts))
    }

    /// The packages that Cargo builds when none is named.
    fn default_packages(&self) -> Vec<&Package> {
        let default = self.root.get("workspace").and_then(|w| w.get("default-members")).and_then(Value::as_array);
        let members = self.packages.iter().filter(|p| p.member);
        match default {
            Some(globs) => {
                let globs: Vec<String> =
                    globs.iter().filter_map(Value::as_str).filter_map(|g| tree::join("", g)).collect();
                members.filter(|p| globs.contains(&p.directory) || matches(&globs, &p.directory)).collect()
            }
            None if self.root.contains_key("package") => members.filter(|p| p.directory.is_empty()).collect(),
            None => members.collect(),
        }
    }

    /// Where Cargo leaves what it builds: elsewhere where its configuration names a target.
    fn output_directory(&self) -> String {
        let target = self.configuration().and_then(|c| Some(c.get("build")?.get("target")?.as_str()?.to_owned()));
        target.map_or("target/release".to_owned(), |target| format!("target/{target}/release"))
    }
}

/// The files that a library becomes: what other languages link where it says so, else what Rust links.
fn library_files(package: &Package) -> Vec<String> {
    let lib = package.manifest.get("lib");
    let kinds = lib.and_then(|l| l.get("crate-type")).and_then(Value::as_array);
    let kinds: Vec<&str> = kinds.into_iter().flatten().filter_map(Value::as_str).collect();
    let name = targets::library_name(package);
    if lib.and_then(|l| l.get("proc-macro").or(l.get("proc_macro"))).and_then(Value::as_bool) == Some(true) {
        return vec![format!("lib{name}.so")];
    }
    let mut files = Vec::new();
    for (kind, file) in [("cdylib", format!("lib{name}.so")), ("staticlib", format!("lib{name}.a"))] {
        if kinds.contains(&kind) {
            files.push(file);
        }
    }
    if files.is_empty() {
        files.push(if kinds.contains(&"dylib") { format!("lib{name}.so") } else { format!("lib{name}.rlib") });
    }
    files
}
