//! Java: Maven, Gradle, and sources without a build tool.
//!
//! The dependency layer contains the local repository or Gradle's caches, and is filled by the build's own resolution,
//! run on the build files without any source. The artifact runs wherever it is unpacked: `Gather.java`, which runs
//! after each build, puts a program's jars next to it.

mod gradle;
mod maven;
mod modules;
mod plain;

use super::{Detected, Error, Identity, staging, tree};
use kiln_plan::{Source, Step};
pub use modules::{gradle_project, maven_modules};

/// The program that collects the artifact's files, and its path in a step.
pub(super) const GATHER: (&str, &str) = (".kiln/Gather.java", include_str!("Gather.java"));

/// Detects a Java project in the root of the tree.
pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    Ok(maven::detect(source, directory_name).or_else(|| gradle::detect(source, directory_name)))
}

/// Detects a tree with Java sources and no build tool. Tried after every other language.
pub(super) fn detect_plain(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    Ok(plain::detect(source, directory_name))
}

/// The build files of Maven and Gradle.
pub(super) const BUILD_FILES: [&str; 5] =
    ["pom.xml", "build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts"];

/// The project's name and version in the build file.
pub(super) fn identity(source: &dyn Source) -> Identity {
    let maven = maven::identity(source);
    if maven.name.is_some() { maven } else { gradle::identity(source) }
}

/// Makes a step collect the files that the modules below `root` produced, or only those in the directories `only`. Each
/// has a file `kiln-classpath` in its output directory that lists the jars it needs at run time.
fn gather(step: &mut Step, root: &str, only: &[String]) {
    let (path, text) = GATHER;
    step.files.insert(path.to_owned(), text.to_owned());
    let only: String = only.iter().map(|directory| format!(" {}", tree::shell_word(directory))).collect();
    step.run.push_str(&format!(
        "mkdir -p .kiln/gather\njavac -d .kiln/gather {path}\njava -cp .kiln/gather Gather {root}{only}\n{}",
        staging::refuse_empty("the build left no jar or war, so there is no artifact")
    ));
}

/// Patterns that exclude earlier builds' output from a step: the directory `name` of each module, unless it contains a
/// build file.
fn stale(source: &dyn Source, modules: &[&str], name: &str, is_build_file: impl Fn(&str) -> bool) -> Vec<String> {
    let outputs = modules.iter().filter_map(|module| tree::join(module, name));
    let outputs = outputs.filter(|output| {
        let under = format!("{output}/");
        let mut inside = source.paths().iter().filter(|path| path.starts_with(&under)).peekable();
        inside.peek().is_some() && !inside.any(|path| is_build_file(tree::base(path)))
    });
    outputs.map(|output| format!("!{output}")).collect()
}
