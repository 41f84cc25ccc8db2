//! The outputs of a Cargo build that go into its artifact.
//!
//! Invariant: no two files have the same path. Binaries with equal names, which would overwrite each other, are built
//! one after another and kept in separate directories named after their packages.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{
    super::{Error, found::artifact, staging, tree},
    manifest::{Package, local_packages},
    steps::Project,
    targets,
};
use kiln_plan::{Artifact, ArtifactKind, Source, matches};

/// The outputs of a build.
pub(super) struct Handed {
    /// Their paths in the step.
    pub(super) outputs: Vec<String>,
    pub(super) artifacts: Vec<Artifact>,
    /// Notes on what is omitted.
    pub(super) notes: Vec<String>,
    /// Binaries with equal names: package, name, source and destination.
    shared: Vec<Shared>,
}

struct Shared {
    spec: String,
    name: String,
    from: String,
    to: String,
}

impl Handed {
    /// The commands that build each binary whose name is not unique.
    pub(super) fn apart(&self, build: &str) -> String {
        let commands = self.shared.iter().map(|Shared { spec, name, from, to }| {
            let directory = tree::shell_word(tree::parent(to));
            format!("\n{build} -p {spec} --bin {name}\nmkdir -p {directory}\ncp {from} {directory}/")
        });
        commands.collect()
    }
}

/// The outputs of a plain `cargo build` that go into the artifact.
pub(super) fn handed(project: &Project<'_>, name: &str) -> Result<Handed, Error> {
    let chosen = project.member.map_or_else(|| default_packages(project.root, project.packages), |member| vec![member]);
    let directory = output_directory(project);
    let mut handed = Handed { outputs: Vec::new(), artifacts: Vec::new(), notes: Vec::new(), shared: Vec::new() };
    let mut owners: BTreeMap<String, Vec<&Package>> = BTreeMap::new();
    for package in &chosen {
        for binary in targets::binaries(project.source, package) {
            owners.entry(binary).or_default().push(package);
        }
        for (binary, features) in targets::left_out(package) {
            handed.notes.push(format!(
                "the binary `{binary}` is left out: it needs `--features {features}`, which a step of a `kiln.toml` can give"
            ));
        }
    }
    for (binary, packages) in &owners {
        for package in packages {
            handed.add(project, binary, package, &directory, packages.len() > 1);
        }
    }
    let linked = |package: &&&Package| targets::library(project.source, package).is_some();
    if handed.artifacts.is_empty() {
        let libraries = chosen.iter().filter(linked).flat_map(|p| library_files(p));
        handed.outputs = libraries.map(|file| format!("{directory}/{file}")).collect();
        handed.outputs.sort();
        handed.outputs.dedup();
        let files: Vec<(&str, &str)> = handed.outputs.iter().map(|p| (p.as_str(), tree::base(p))).collect();
        handed.artifacts.push(artifact(name, ArtifactKind::Archive, "compile", &files));
    } else {
        for package in chosen.iter().filter(linked) {
            handed.add_library(package, &directory);
        }
    }
    if handed.outputs.is_empty() {
        let hint = "expected a binary (`src/main.rs`) or a library (`src/lib.rs`) in one of its packages";
        return Err(Error::NothingToBuild { manifest: "Cargo.toml".into(), hint: hint.into() });
    }
    Ok(handed)
}

impl Handed {
    fn add(&mut self, project: &Project<'_>, binary: &str, package: &Package, directory: &str, shared: bool) {
        let from = format!("{directory}/{binary}");
        let spec = project.spec(package).unwrap_or_else(|| package.name.clone());
        if !shared {
            self.artifacts.push(artifact(binary, ArtifactKind::Binary, "compile", &[(&from, binary)]));
            self.outputs.push(from);
            return;
        }
        let own = if package.directory.is_empty() { &package.name } else { &package.directory };
        let to = format!("{}/{own}/{binary}", staging::OUT);
        let name = format!("{}-{binary}", package.name);
        self.artifacts.push(artifact(&name, ArtifactKind::Binary, "compile", &[(&to, &name)]));
        self.outputs.push(to.clone());
        self.shared.push(Shared { spec, name: binary.to_owned(), from, to });
    }

    /// Adds a library that other programs link or load.
    fn add_library(&mut self, package: &Package, directory: &str) {
        let files: Vec<String> = library_files(package).into_iter().filter(|file| !file.ends_with(".rlib")).collect();
        if files.is_empty() || is_macro(package) {
            return;
        }
        let paths: Vec<String> = files.iter().map(|file| format!("{directory}/{file}")).collect();
        let pairs: Vec<(&str, &str)> = paths.iter().zip(&files).map(|(p, f)| (p.as_str(), f.as_str())).collect();
        let name = format!("lib{}", targets::library_name(package));
        if self.outputs.iter().all(|output| !paths.contains(output)) {
            self.artifacts.push(artifact(&name, ArtifactKind::Binary, "compile", &pairs));
            self.outputs.extend(paths);
        }
    }
}

/// What a plain `cargo build` makes for others than Rust: a program, or a library that they load or link. A manifest that cannot be read
/// counts, so that its error is reported.
pub(in super::super) fn product(source: &dyn Source) -> Option<String> {
    let read = || {
        let root = tree::toml(source, "Cargo.toml")?.unwrap_or_default();
        Ok::<_, Error>((local_packages(source, &root)?, root))
    };
    let Ok((packages, root)) = read() else { return Some("`Cargo.toml` is a manifest".to_owned()) };
    default_packages(&root, &packages).into_iter().find_map(|package| {
        if let Some(binary) = targets::binaries(source, package).first() {
            return Some(format!("`{binary}` is a program"));
        }
        let library = targets::library(source, package).filter(|_| !is_macro(package));
        let file = library.and_then(|_| library_files(package).into_iter().find(|file| !file.ends_with(".rlib")));
        file.map(|file| format!("`{file}` is a library for other languages"))
    })
}

/// The packages that Cargo builds by default.
fn default_packages<'a>(root: &Table, packages: &'a [Package]) -> Vec<&'a Package> {
    let default = root.get("workspace").and_then(|w| w.get("default-members")).and_then(Value::as_array);
    let members = packages.iter().filter(|p| p.member);
    match default {
        Some(globs) => {
            let globs: Vec<String> = globs.iter().filter_map(Value::as_str).filter_map(|g| tree::join("", g)).collect();
            members.filter(|p| globs.contains(&p.directory) || matches(&globs, &p.directory)).collect()
        }
        None if root.contains_key("package") => members.filter(|p| p.directory.is_empty()).collect(),
        None => members.collect(),
    }
}

/// Cargo's output directory, which depends on the target set in its configuration.
fn output_directory(project: &Project<'_>) -> String {
    let target = project.configuration().and_then(|c| Some(c.get("build")?.get("target")?.as_str()?.to_owned()));
    target.map_or("target/release".to_owned(), |target| format!("target/{target}/release"))
}

fn is_macro(package: &Package) -> bool {
    let lib = package.manifest.get("lib");
    lib.and_then(|l| l.get("proc-macro").or(l.get("proc_macro"))).and_then(Value::as_bool) == Some(true)
}

/// The files of a library: for other languages if it declares such a type, otherwise for Rust.
fn library_files(package: &Package) -> Vec<String> {
    let kinds = package.manifest.get("lib").and_then(|l| l.get("crate-type").or(l.get("crate_type")));
    let kinds: Vec<&str> = kinds.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let name = targets::library_name(package);
    if is_macro(package) {
        return vec![format!("lib{name}.so")];
    }
    let mut files = Vec::new();
    if kinds.contains(&"cdylib") || kinds.contains(&"dylib") {
        files.push(format!("lib{name}.so"));
    }
    if kinds.contains(&"staticlib") {
        files.push(format!("lib{name}.a"));
    }
    if files.is_empty() {
        files.push(format!("lib{name}.rlib"));
    }
    files
}
