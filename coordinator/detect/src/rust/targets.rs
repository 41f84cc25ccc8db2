//! Paths of a package's libraries, binaries and build script, inferred like Cargo does.
//!
//! Invariant: only existing files are returned, so that Cargo itself reports a missing one.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{super::tree, manifest::Package};
use kiln_plan::Source;

/// Stubs cause no warnings, whatever lints the project enables.
const LIBRARY: &str = "//! In place of the source.\n#![allow(warnings)]\n";
const MAIN: &str = "//! In place of the source.\n#![allow(warnings)]\nfn main() {}\n";

/// The binaries that a plain `cargo build` omits because of missing features, with those features.
pub(super) fn left_out(package: &Package) -> Vec<(String, String)> {
    let enabled = default_features(&package.manifest);
    let wants = |bin: &Table| {
        let wanted = bin.get("required-features").and_then(Value::as_array).into_iter().flatten();
        let absent: Vec<&str> =
            wanted.filter_map(Value::as_str).filter(|feature| !enabled.contains(*feature)).collect();
        absent.join(",")
    };
    let bins = explicit(package, "bin").map(|bin| (bin, wants(bin))).filter(|(_, wants)| !wants.is_empty());
    bins.filter_map(|(bin, wants)| Some((bin.get("name")?.as_str()?.to_owned(), wants))).collect()
}

/// The names of the binaries that a plain `cargo build` of the package produces.
pub(super) fn binaries(source: &dyn Source, package: &Package) -> Vec<String> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut claimed: BTreeSet<String> = BTreeSet::new();
    let enabled = default_features(&package.manifest);
    for bin in explicit(package, "bin") {
        let Some(name) = bin.get("name").and_then(Value::as_str) else {
            continue;
        };
        claimed.extend(bin.get("path").and_then(Value::as_str).map(|p| package.path(p)));
        claimed.extend(inferred(package, "bin", name));
        let wanted = bin.get("required-features").and_then(Value::as_array);
        if wanted.into_iter().flatten().filter_map(Value::as_str).all(|f| enabled.contains(f)) {
            names.insert(name.to_owned());
        }
    }
    if package.package("autobins").and_then(Value::as_bool) != Some(false) {
        let main = package.path("src/main.rs");
        if tree::has(source, &main) && !claimed.contains(&main) {
            names.insert(package.name.clone());
        }
        for (name, path) in scattered(source, package) {
            if !claimed.contains(&path) {
                names.insert(name);
            }
        }
    }
    names.into_iter().collect()
}

/// The path of the library's root module, if there is one.
pub(super) fn library(source: &dyn Source, package: &Package) -> Option<String> {
    let path = package.manifest.get("lib").and_then(|l| l.get("path")).and_then(Value::as_str);
    Some(package.path(path.unwrap_or("src/lib.rs"))).filter(|p| tree::has(source, p))
}

/// The library's name as known to the compiler.
pub(super) fn library_name(package: &Package) -> String {
    let name = package.manifest.get("lib").and_then(|l| l.get("name")).and_then(Value::as_str);
    name.unwrap_or(&package.name).replace('-', "_")
}

/// The stubs, by path, with which Cargo accepts the package without its sources.
pub(super) fn stubs(source: &dyn Source, package: &Package) -> Vec<(String, String)> {
    let mut stubs: Vec<(String, String)> = Vec::new();
    let main = |path: String| (path, MAIN.to_owned());
    stubs.extend(library(source, package).map(|path| (path, LIBRARY.to_owned())));
    stubs.extend(Some(package.path("src/main.rs")).filter(|p| tree::has(source, p)).map(main));
    match package.package("build") {
        Some(Value::Boolean(false)) => {}
        Some(Value::String(path)) => stubs.push(main(package.path(path))),
        Some(Value::Array(paths)) => {
            stubs.extend(paths.iter().filter_map(Value::as_str).map(|p| main(package.path(p))))
        }
        _ => stubs.extend(Some(package.path("build.rs")).filter(|p| tree::has(source, p)).map(main)),
    }
    for kind in ["bin", "test", "bench", "example"] {
        for target in explicit(package, kind) {
            if let Some(path) = target.get("path").and_then(Value::as_str) {
                stubs.push(main(package.path(path)));
            } else if let Some(name) = target.get("name").and_then(Value::as_str) {
                stubs.extend(inferred(package, kind, name).into_iter().find(|p| tree::has(source, p)).map(main));
            }
        }
    }
    if stubs.is_empty() || package.package("default-run").is_some() {
        stubs.extend(scattered(source, package).into_iter().map(|(_, path)| main(path)));
    }
    stubs.retain(|(path, _)| tree::has(source, path));
    stubs
}

fn explicit<'a>(package: &'a Package, kind: &str) -> impl Iterator<Item = &'a Table> {
    package.manifest.get(kind).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table)
}

/// Default paths of a target that names none.
fn inferred(package: &Package, kind: &str, name: &str) -> Vec<String> {
    let directory = match kind {
        "bin" => "src/bin",
        "test" => "tests",
        "bench" => "benches",
        _ => "examples",
    };
    let mut paths =
        vec![package.path(&format!("{directory}/{name}.rs")), package.path(&format!("{directory}/{name}/main.rs"))];
    if kind == "bin" && name == package.name {
        paths.push(package.path("src/main.rs"));
    }
    paths
}

/// The binaries below `src/bin`, as name and path.
fn scattered(source: &dyn Source, package: &Package) -> Vec<(String, String)> {
    let prefix = format!("{}/", package.path("src/bin"));
    let rest = source.paths().iter().filter_map(|path| Some((path, path.strip_prefix(&prefix)?)));
    rest.filter_map(|(path, rest)| {
        let name = match rest.split_once('/') {
            None => rest.strip_suffix(".rs")?,
            Some((name, "main.rs")) => name,
            Some(_) => return None,
        };
        Some((name.to_owned(), path.clone()))
    })
    .collect()
}

fn default_features(manifest: &Table) -> BTreeSet<String> {
    let features = manifest.get("features").and_then(Value::as_table);
    let mut enabled: BTreeSet<String> = BTreeSet::new();
    let mut queue = vec!["default".to_owned()];
    while let Some(feature) = queue.pop() {
        let implied = features.and_then(|f| f.get(&feature)).and_then(Value::as_array);
        if enabled.insert(feature) {
            queue.extend(implied.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
        }
    }
    enabled
}
