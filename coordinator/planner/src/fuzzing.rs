//! Fuzz targets, used by `coordinator/planner/fuzz` and, in a short form, by `tests/hostile_bytes.rs`.
//!
//! Each function accepts any bytes, and panics if an invariant is violated.

use std::collections::BTreeMap;

use crate::plan::{self, MemorySource, Options, Platform, to_kiln_toml};

fn planned(files: BTreeMap<String, Vec<u8>>) {
    let options = Options::new(Platform::Amd64);
    let Ok(plan) = plan::plan(&MemorySource::new(files), &options) else { return };
    // A valid plan is printed, and the printed plan parses.
    let shown = to_kiln_toml(&plan);
    let again = BTreeMap::from([("kiln.toml".to_owned(), shown.clone().into_bytes())]);
    if let Err(error) = plan::plan(&MemorySource::new(again), &options) {
        let words = error.to_string();
        assert!(!words.contains("TOML"), "expected a plan to be shown as TOML, found `{words}` for:\n{shown}");
    }
}

/// A project with this `kiln.toml`.
pub fn project(data: &[u8]) {
    let files = [("kiln.toml", data), ("main.c", b"int main() {}"), ("src/app.txt", b"x")];
    planned(files.map(|(path, data)| (path.to_owned(), data.to_vec())).into());
}

/// A project without `kiln.toml` and with arbitrary manifests, and each of them without the project's version.
pub fn manifests(data: &[u8]) {
    for name in ["Cargo.toml", "package.json", "go.mod", "pyproject.toml", "pom.xml", "Gemfile.lock", "meson.build"] {
        let lock = name.replace("Cargo.toml", "Cargo.lock").replace("package.json", "package-lock.json");
        let files =
            BTreeMap::from([(name.to_owned(), data.to_vec()), (lock, data.to_vec()), ("main.go".into(), Vec::new())]);
        let source = MemorySource::new(files.clone());
        for (path, content) in &files {
            plan::unversioned(path, content, &source);
        }
        planned(files);
    }
}
