//! Java: Maven, Gradle, and sources without a build tool.
//!
//! The dependency layer holds the local repository or Gradle's caches, and is filled by running the build's own
//! resolution on the build files alone, without a source.

mod gradle;
mod maven;
mod plain;

use super::{Detected, Error, Identity, staging};
use crate::plan::Source;

/// A Java project in the root of the tree.
pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    Ok(maven::detect(source, directory_name).or_else(|| gradle::detect(source, directory_name)))
}

/// A tree with Java sources and no build tool: asked after every other language.
pub(super) fn detect_plain(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    Ok(plain::detect(source, directory_name))
}

/// What the build file calls the project.
pub(super) fn identity(source: &dyn Source) -> Identity {
    let maven = maven::identity(source);
    if maven.name.is_some() { maven } else { gradle::identity(source) }
}

/// A command that gathers the packages of all modules from the directories that `globs` name, each a `find -path`.
fn gather(globs: &[&str]) -> String {
    let any: Vec<String> = globs.iter().map(|glob| format!("-path '{glob}'")).collect();
    format!(
        "mkdir -p {out}\nfind . -path ./.kiln -prune -o -type f \\( {any} \\) \\\n    \
         ! -name 'original-*' ! -name '*-sources.jar' ! -name '*-javadoc.jar' ! -name '*-plain.jar' \\\n    \
         -exec cp {{}} {out}/ \\;\n{empty}",
        out = staging::OUT,
        any = any.join(" -o "),
        empty = staging::refuse_empty("the build left no package, so there is nothing to hand over"),
    )
}
