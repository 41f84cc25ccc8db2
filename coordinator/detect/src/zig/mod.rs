//! Zig: `build.zig`, with the dependencies in `build.zig.zon`.
//!
//! A dependency's hash is part of the manifest, so the manifest is the lock file. Invariant: the layer is keyed by the
//! manifests of the tree, and the build has no network.

mod zon;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Detected, Error, Identity,
    found::{artifact, compile_step, fetch_step, strings},
    staging::{OUT, refuse_empty},
    tree,
};
use kiln_plan::{ArtifactKind, Source, Step};
use zon::Value;

const MANIFEST: &str = "build.zig.zon";
/// Debug information has the path of the options that each program was compiled with, below a directory that Zig 0.15 calls differently each time,
/// whatever the options are.
const UNNAMED: &str = "grep -rlaZE '/zig/b/[0-9a-f]{32}' .kiln/out 2>/dev/null |\n    LC_ALL=C xargs -0 -r sed -i -E 's,(/zig/b/)[0-9a-f]{32},\\100000000000000000000000000000000,g'\n";
/// Where Zig keeps what it fetches: its global cache, of which the layer is `p`.
const CACHE: &str = ".kiln/zig";

/// The name and version in the manifest.
pub(super) fn identity(source: &dyn Source) -> Identity {
    read(source, MANIFEST).ok().flatten().map(|root| stated(&root)).unwrap_or_default()
}

fn stated(root: &Value) -> Identity {
    let field = |key: &str| root.get(key).and_then(Value::text).map(str::to_owned);
    Identity { name: field("name"), version: field("version") }
}

/// The oldest version of Zig that the manifest allows.
pub(super) fn minimum(source: &dyn Source) -> Option<String> {
    read(source, MANIFEST).ok().flatten()?.get("minimum_zig_version")?.text().map(str::to_owned)
}

fn read(source: &dyn Source, path: &str) -> Result<Option<Value>, Error> {
    let Some(text) = tree::text(source, path) else { return Ok(None) };
    let parsed = zon::read(&text).map_err(|message| Error::Manifest { path: path.to_owned(), message });
    parsed.map(Some)
}

/// Detects a Zig project in the root of the tree.
pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let Some(build) = tree::text(source, "build.zig") else { return Ok(None) };
    let root = read(source, MANIFEST)?;
    let needs = needed(source)?;
    let mut because = strings(["`build.zig` says how to build it"]);
    because.extend(root.as_ref().map(|_| match needs.fetches {
        true => format!("`{MANIFEST}` names its dependencies with their hashes"),
        false => format!("`{MANIFEST}` describes the package"),
    }));
    let layer = needs.fetches.then(|| fetch(source, &needs));
    let mut steps: Vec<Step> = layer.into_iter().collect();
    let mut compile = compile_step("compile", "compiles and installs by `zig build`", command(&build));
    compile.needs = steps.iter().map(|step| step.name.clone()).collect();
    (compile.env, compile.tools, compile.outputs) = (environment(), strings(["zig"]), strings([OUT]));
    steps.push(compile);
    let identity = root.as_ref().map(stated).unwrap_or_default();
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    Ok(Some(Detected {
        language: "zig".into(),
        because,
        identity,
        steps,
        artifacts: vec![artifact(&name, ArtifactKind::Archive, "compile", &[(OUT, ".")])],
        notes: Vec::new(),
    }))
}

/// What the packages of the tree need.
#[derive(Default)]
struct Needs {
    /// The directories of the tree's packages, the root's first.
    directories: Vec<String>,
    /// Whether any of them has dependencies from elsewhere.
    fetches: bool,
    /// Whether some of these are fetched only when they are asked for.
    lazy: bool,
}

/// Follows the paths of dependencies in the tree.
fn needed(source: &dyn Source) -> Result<Needs, Error> {
    let mut needs = Needs { directories: vec![String::new()], ..Needs::default() };
    let mut places = 0..;
    while let Some(directory) = places.next().and_then(|at| needs.directories.get(at).cloned()) {
        let manifest = tree::join(&directory, MANIFEST).unwrap_or_default();
        let Some(root) = read(source, &manifest)? else { continue };
        let Some(Value::Table(dependencies)) = root.get("dependencies") else { continue };
        for (name, dependency) in dependencies {
            let field = |key: &str| dependency.get(key).and_then(Value::text);
            if let Some(path) = field("path") {
                let found = tree::join(&directory, path).filter(|path| tree::has_directory(source, path));
                let Some(found) = found else {
                    let (name, path) = (name.clone(), path.to_owned());
                    return Err(Error::LocalDependency { manifest, name, path });
                };
                if !needs.directories.contains(&found) {
                    needs.directories.push(found);
                }
            } else if let Some(url) = field("url") {
                if field("hash").is_none() {
                    return Err(Error::StaleLock {
                        lock: manifest,
                        fact: format!("its dependency `{name}` has no `hash`"),
                        command: format!("zig fetch --save={} {}", tree::shell_word(name), tree::shell_word(url)),
                    });
                }
                needs.fetches = true;
                needs.lazy |= field("lazy") == Some("true");
            }
        }
    }
    Ok(needs)
}

fn fetch(source: &dyn Source, needs: &Needs) -> Step {
    // Before 0.15, Zig could not fetch what is needed only sometimes.
    let run = match needs.lazy {
        true => "zig build --fetch=all || zig build --fetch\n",
        false => "zig build --fetch\n",
    };
    let run = format!("{run}mkdir -p {CACHE}/p\n");
    let mut step = fetch_step("deps", "fetches what `build.zig.zon` names; keyed by it", run);
    let files = |directory: &String| {
        let names = ["build.zig", MANIFEST].into_iter();
        names.filter_map(|name| tree::join(directory, name)).collect::<Vec<_>>()
    };
    let found: BTreeSet<String> = needs.directories.iter().flat_map(files).collect();
    step.inputs = found.into_iter().filter(|path| tree::has(source, path)).collect();
    step.unversioned = step.inputs.iter().filter(|path| path.ends_with(MANIFEST)).cloned().collect();
    (step.env, step.tools, step.outputs) = (environment(), strings(["zig"]), strings([&format!("{CACHE}/p")]));
    step
}

/// Zig would otherwise compile for the very processor that it runs on, so that the artifact would need one like it. Where
/// the system's libraries are linked, their paths are known only for the system itself.
fn target(build: &str) -> &'static str {
    if !build.contains("standardTargetOptions") {
        ""
    } else if build.contains("linkSystemLibrary") {
        " -Dtarget=native -Dcpu=baseline"
    } else {
        " -Dtarget=\"$(uname -m)-linux-gnu\" -Dcpu=baseline"
    }
}

/// A project's preferred mode takes precedence over `safe`.
fn command(build: &str) -> String {
    let mode = if build.contains("standardOptimizeOption") { " --release=safe" } else { "" };
    let hint = "`zig build` installed nothing: call `b.installArtifact` for what is to be delivered";
    format!("zig build --prefix {OUT}{mode}{}\n{UNNAMED}{}", target(build), refuse_empty(hint))
}

/// The command that runs the project's tests, if it has a step for them.
pub(super) fn test_command(source: &dyn Source) -> Option<String> {
    let build = tree::text(source, "build.zig")?;
    build.contains("step(\"test\"").then(|| format!("zig build test --summary all{}", target(&build)))
}

fn environment() -> BTreeMap<String, String> {
    [("ZIG_GLOBAL_CACHE_DIR", format!("/build/{CACHE}")), ("ZIG_LOCAL_CACHE_DIR", "/tmp/zig".to_owned())]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}
