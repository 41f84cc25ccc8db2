//! Packages whose version comes from the commit: their build backends call git, which a step does not have.
//!
//! Invariant: only steps that run such a backend get the version, because it gives every commit a new key.

use super::{
    super::tree,
    local::{Local, within},
    requirements,
};
use kiln_plan::{Source, Step};

const VERSION: (&str, &str) = (".kiln/version.py", include_str!("scripts/version.py"));

/// Backends that read a variable instead of git, with the variable.
const VARIABLES: [(&str, &str); 8] = [
    ("setuptools-scm", "SETUPTOOLS_SCM_PRETEND_VERSION"),
    ("vcs-versioning", "SETUPTOOLS_SCM_PRETEND_VERSION"),
    ("hatch-vcs", "SETUPTOOLS_SCM_PRETEND_VERSION"),
    ("flit-scm", "SETUPTOOLS_SCM_PRETEND_VERSION"),
    ("pbr", "PBR_VERSION"),
    ("poetry-dynamic-versioning", "POETRY_DYNAMIC_VERSIONING_BYPASS"),
    ("uv-dynamic-versioning", "UV_DYNAMIC_VERSIONING_BYPASS"),
    ("pdm-backend", "PDM_BUILD_SCM_VERSION"),
];

/// Backends that read a source distribution's metadata instead of git.
const METADATA: [&str; 2] = ["versioningit", "setuptools-git-versioning"];

/// Passes the version to a step if one of the packages that it builds needs it.
pub(super) fn tell<'a>(step: &mut Step, source: &dyn Source, locals: impl Iterator<Item = &'a Local>) {
    let mut variables: Vec<&str> = Vec::new();
    let mut metadata: Vec<String> = Vec::new();
    for local in locals {
        let requires =
            |tool: &str| local.backend.iter().any(|r| requirements::normalised(requirements::name(r)) == tool);
        variables.extend(VARIABLES.iter().filter(|(tool, _)| requires(tool)).map(|(_, variable)| *variable));
        let info = within(&local.directory, "PKG-INFO");
        if METADATA.iter().any(|tool| requires(tool)) && !tree::has(source, &info) {
            metadata.push(info);
        }
    }
    variables.sort_unstable();
    variables.dedup();
    if variables.is_empty() && metadata.is_empty() {
        return;
    }
    let exports: Vec<String> = variables.iter().map(|name| format!("{name}=\"$version\"")).collect();
    let mut commands = String::new();
    if !exports.is_empty() {
        commands.push_str(&format!("    export {}\n", exports.join(" ")));
    }
    for path in metadata {
        let path = tree::shell_word(&path);
        commands.push_str(&format!(
            "    printf 'Metadata-Version: 2.1\\nName: unknown\\nVersion: %s\\n' \"$version\" > {path}\n"
        ));
    }
    // Without a commit, a source distribution's own metadata contains the version.
    step.run = format!(
        "if [ -n \"$KILN_COMMIT\" ]; then\n    version=\"$(python3 {})\"\n{commands}fi\n{}",
        VERSION.0, step.run
    );
    step.files.insert(VERSION.0.into(), VERSION.1.into());
    step.stamp = true;
}
