//! Removes the project's own version from manifests and lock files, so that a release does not rebuild every
//! dependency.
//!
//! Invariant: the files of one tree stay consistent with each other, so that tools that compare manifest and lock file
//! accept them; if that is impossible, the version stays.

mod cargo;
mod java;
mod node;
mod python;
mod ruby;

use super::{Source, Step, matches};

/// Replaces the project's own version.
const NONE: &str = "0.0.0";

/// The content of a manifest or lock file without the project's own version. `None` if the file can be used unchanged.
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

/// Reads the files that [`unversioned`] needs for these steps, so that a source that supplies files on request has them
/// in time.
pub fn read_unversioned(steps: &[Step], source: &dyn Source) {
    for step in steps.iter().filter(|step| !step.unversioned.is_empty()) {
        for path in source.paths().iter().filter(|path| matches(&step.unversioned, path)) {
            if let Some(content) = source.read(path) {
                let _ = unversioned(path, &content, source);
            }
        }
    }
}
