//! Files that a language's compiler provably does not read: documentation, licences, and files for services.
//!
//! Invariant: a file is excluded from a step only if every source of the project was read and none names it. If a
//! source was not read, or embeds a directory, nothing is excluded.

use super::tree;
use kiln_plan::Source;

/// Prefixes of names of files about the project.
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
/// Files and directories in the root that services and editors read.
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
/// Directories in the root with documentation.
const DOCUMENTATION: [&str; 3] = ["doc", "docs", "documentation"];
/// Files that describe how a project is built, and so what its build reads.
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
/// Projects with more sources are not read completely.
const SOURCES: usize = 4000;

/// Files and directories in the root that are about the project and that no build file there names. Whether a step
/// reads them is unknown.
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

/// The contents of sources, searched for the files that they read.
pub(super) struct Readers {
    texts: Vec<(String, String)>,
}

impl Readers {
    /// Reads these sources; `None` if one is unavailable, or there are too many.
    pub(super) fn of<'a>(source: &dyn Source, paths: impl Iterator<Item = &'a String>) -> Option<Self> {
        let paths: Vec<&String> = paths.take(SOURCES + 1).collect();
        if paths.len() > SOURCES {
            return None;
        }
        // All are requested, even after an unavailable one, so that they are fetched together.
        let texts: Vec<_> = paths.iter().map(|path| Some(((*path).clone(), tree::text(source, path)?))).collect();
        Some(Readers { texts: texts.into_iter().collect::<Option<Vec<_>>>()? })
    }

    /// Whether any of them contains one of these words.
    pub(super) fn say(&self, words: &[&str]) -> bool {
        self.texts.iter().any(|(_, text)| words.iter().any(|word| text.contains(word)))
    }

    /// The text of each source.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|(_, text)| text.as_str())
    }

    /// Prefixes of the paths in the words after this marker, up to the first wildcard.
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

    /// Globs that exclude what none of them names, for a step whose project has packages in these directories.
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
