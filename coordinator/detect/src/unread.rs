//! Files that a language's compiler provably does not read: documentation, licences, and what only services read.
//!
//! Invariant: a file is left out of a step only where every source of the project was read and none names it. Where a
//! source was not read, or embeds a directory, nothing is left out.

use super::tree;
use kiln_plan::Source;

/// Where a name begins so, the file is about the project.
const ABOUT: [&str; 22] = [
    "ARCHITECTURE",
    "AUTHORS",
    "CHANGELOG",
    "CHANGES",
    "CODEOWNERS",
    "CODE_OF_CONDUCT",
    "CONTRIBUTING",
    "CONTRIBUTORS",
    "COPYING",
    "COPYRIGHT",
    "GOVERNANCE",
    "HISTORY",
    "LICENCE",
    "LICENSE",
    "MAINTAINERS",
    "NEWS",
    "NOTICE",
    "README",
    "RELEASES",
    "ROADMAP",
    "SECURITY",
    "SUPPORT",
];
/// Files and directories of the root that services and editors read.
const SERVICES: [&str; 17] = [
    ".buildkite",
    ".circleci",
    ".cirrus.yml",
    ".drone.yml",
    ".editorconfig",
    ".github",
    ".gitlab",
    ".gitlab-ci.yml",
    ".mailmap",
    ".pre-commit-config.yaml",
    ".travis.yml",
    ".vscode",
    "Jenkinsfile",
    "appveyor.yml",
    "azure-pipelines.yml",
    "codecov.yml",
    "renovate.json",
];
/// Directories of the root that hold documentation.
const DOCUMENTATION: [&str; 3] = ["doc", "docs", "documentation"];
/// Files that say how a project is built, and so what its build reads.
const BUILD_FILES: [&str; 15] = [
    "CMakeLists.txt",
    "GNUmakefile",
    "Gemfile",
    "MANIFEST.in",
    "Makefile",
    "Makefile.am",
    "Makefile.in",
    "configure.ac",
    "makefile",
    "meson.build",
    "package.json",
    "pom.xml",
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
];
/// A project of more sources is not read whole.
const SOURCES: usize = 4000;

/// Files and directories of the root that are about the project and that no build file of the root names. Whether a step
/// reads them is not known.
pub fn about(source: &dyn Source) -> Vec<String> {
    let names = DOCUMENTATION.iter().chain(&SERVICES).map(|name| (*name).to_owned());
    let there = names.filter(|name| tree::has(source, name) || tree::has_directory(source, name));
    let files = source.paths().iter().filter(|path| !path.contains('/') && is_about(path)).cloned();
    let found: Vec<String> = there.chain(files).collect();
    if found.is_empty() {
        return found;
    }
    let gemspecs = source.paths().iter().filter(|path| !path.contains('/') && path.ends_with(".gemspec")).cloned();
    let build_files = BUILD_FILES.iter().map(|name| (*name).to_owned()).chain(gemspecs);
    let texts: Vec<String> = build_files.filter_map(|path| tree::text(source, &path)).collect();
    found.into_iter().filter(|path| !texts.iter().any(|text| text.contains(path.as_str()))).collect()
}

fn is_about(path: &str) -> bool {
    let name = tree::base(path);
    let plain = name.rsplit_once('.').is_none_or(|(_, end)| matches!(end, "md" | "txt" | "rst" | "adoc"));
    plain && ABOUT.iter().any(|word| name.to_ascii_uppercase().starts_with(word))
}

/// What sources say of the files that they read.
pub(super) struct Readers {
    texts: Vec<(String, String)>,
}

impl Readers {
    /// The texts of these sources; `None` where one is not at hand, or there are too many.
    pub(super) fn of<'a>(source: &dyn Source, paths: impl Iterator<Item = &'a String>) -> Option<Self> {
        let paths: Vec<&String> = paths.take(SOURCES + 1).collect();
        if paths.len() > SOURCES {
            return None;
        }
        // Each is asked for, even after one that is not at hand: they are then fetched together.
        let texts: Vec<_> = paths.iter().map(|path| Some(((*path).clone(), tree::text(source, path)?))).collect();
        Some(Readers { texts: texts.into_iter().collect::<Option<Vec<_>>>()? })
    }

    /// Whether any of them has one of these words.
    pub(super) fn say(&self, words: &[&str]) -> bool {
        self.texts.iter().any(|(_, text)| words.iter().any(|word| text.contains(word)))
    }

    /// Each text.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|(_, text)| text.as_str())
    }

    /// Beginnings of the paths that the words after this marker take in, up to their first wildcard.
    pub(super) fn taken(&self, marker: &str) -> Vec<String> {
        let mut taken = Vec::new();
        for (path, text) in &self.texts {
            for rest in text.lines().filter_map(|line| line.trim().strip_prefix(marker)) {
                let words =
                    rest.split_whitespace().map(|word| word.trim_matches(['"', '`']).trim_start_matches("all:"));
                let literal = words.map(|word| word.split(['*', '?', '[']).next().unwrap_or_default());
                taken.extend(literal.filter_map(|word| tree::join(tree::parent(path), word)));
            }
        }
        taken
    }

    /// Globs that take out what none of them names, for a step whose project has packages in these directories.
    pub(super) fn unread(&self, source: &dyn Source, packages: &[&str]) -> Vec<String> {
        let mut globs: Vec<String> = SERVICES.iter().map(|name| (*name).to_owned()).collect();
        globs.retain(|name| tree::has(source, name) || tree::has_directory(source, name));
        let about = |path: &&String| {
            let directory = tree::parent(path);
            is_about(path) && (directory.is_empty() || packages.contains(&directory))
        };
        globs.extend(source.paths().iter().filter(about).cloned());
        globs.retain(|path| !self.say(&[tree::base(path)]));
        globs.into_iter().map(|path| format!("!{path}")).collect()
    }
}
