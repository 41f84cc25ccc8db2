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
        "bun.lock" => node::bun_lock(text, all),
        "composer.json" => composer(text),
        "build.zig.zon" => zig(text),
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

/// Composer's lock file has no version of the project, and a comparison of both leaves the manifest's out.
fn composer(text: &str) -> Option<String> {
    let mut value: serde_json::Value = serde_json::from_str(text).ok()?;
    let package = value.as_object_mut()?;
    package.remove("scripts");
    package.remove("version")?;
    serde_json::to_string_pretty(&value).ok()
}

/// The first line `.version = "..."` is that of the package itself: its fields begin before those of what is in them.
fn zig(text: &str) -> Option<String> {
    let is_version =
        |line: &str| line.trim_start().strip_prefix(".version").is_some_and(|rest| rest.trim_start().starts_with('='));
    let line = text.lines().find(|line| is_version(line)).filter(|line| line.matches('"').count() == 2)?;
    let (before, _) = line.split_once('"')?;
    let (_, after) = line.rsplit_once('"')?;
    Some(text.replacen(line, &format!("{before}\"{NONE}\"{after}"), 1))
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
