//! Manifests and lock files with the project's own version left out, so that a release does not rebuild every
//! dependency.
//!
//! Invariant: the files of one tree stay consistent with each other, so that tools which compare manifest and lock
//! file accept them; where that cannot be had, the version stays in.

mod cargo;
mod java;
mod node;
mod python;
mod ruby;

use super::{Source, Step, matches};

/// The version that stands in for the project's own.
const NONE: &str = "0.0.0";

/// The content of a manifest or lock file with the project's own version left out. `None` where the file is as well
/// taken as it is.
pub fn unversioned(path: &str, content: &[u8], all: &dyn Source) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?;
    let changed = match path.rsplit('/').next().unwrap_or(path) {
        "Cargo.toml" => cargo::manifest(text, all),
        "Cargo.lock" => cargo::lock(text, all),
        "package.json" => node::manifest(text, all),
        "package-lock.json" | "npm-shrinkwrap.json" => node::lock(text, all),
        "pyproject.toml" => python::manifest(text, all),
        "uv.lock" => python::uv_lock(text, all),
        "poetry.lock" => python::poetry_lock(text, all),
        "pom.xml" => java::pom(text, all),
        "gradle.properties" | "build.gradle" | "build.gradle.kts" => java::gradle(text),
        "Gemfile.lock" => ruby::lock(text),
        "version.rb" => ruby::source(text),
        name if name.ends_with(".gemspec") => ruby::source(text),
        _ => None,
    }?;
    Some(changed.into_bytes())
}

/// Reads what [`unversioned`] will need for these steps, so that a source which is supplied as it is read has it in time.
pub fn read_unversioned(steps: &[Step], source: &dyn Source) {
    for step in steps.iter().filter(|step| !step.unversioned.is_empty()) {
        for path in source.paths().iter().filter(|path| matches(&step.unversioned, path)) {
            if let Some(content) = source.read(path) {
                let _ = unversioned(path, &content, source);
            }
        }
    }
}
