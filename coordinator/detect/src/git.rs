//! Builds that get their version from git.
//!
//! A step's sources have no `.git`. If a build file calls git, the step gets the stamp, and a `git` in its `PATH` that
//! answers from it. A question that this cannot answer fails and becomes a note, so that no build mistakes an empty
//! answer for a version.

use super::tree;
use kiln_plan::{Source, Step};

const GIT: &str = include_str!("shell/git.sh");
/// Its path in a step.
const PATH: &str = ".kiln/bin/git";
/// Maximum number of files that are read.
const READ: usize = 400;
/// Directories with other projects' files, or with files that no build reads.
const ASIDE: [&str; 14] = [
    ".github",
    ".kiln",
    "deps",
    "doc",
    "docs",
    "examples",
    "external",
    "node_modules",
    "subprojects",
    "test",
    "tests",
    "testdata",
    "third_party",
    "vendor",
];
/// Git commands that builds use.
const QUESTIONS: [&str; 12] = [
    "describe",
    "rev-parse",
    "rev-list",
    "show-ref",
    "diff-index",
    "symbolic-ref",
    "vcs_tag",
    "log -",
    "log\", \"-",
    "log', '-",
    "show -s",
    "status --porcelain",
];

/// The file that calls git, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GitUse {
    pub(super) path: String,
    /// Whether it checks for a `.git` first.
    looks: bool,
}

impl GitUse {
    /// The first file of a C or C++ build that calls git.
    pub(super) fn of_build_files(source: &dyn Source) -> Option<Self> {
        Self::first(source, |path| {
            let name = tree::base(path);
            let by_name = matches!(
                name,
                "CMakeLists.txt"
                    | "GNUmakefile"
                    | "Makefile"
                    | "Makefile.am"
                    | "Makefile.in"
                    | "makefile"
                    | "meson.build"
                    | "configure.ac"
                    | "configure.in"
                    | "GIT-VERSION-GEN"
            );
            let script = name.ends_with(".sh") || name.ends_with(".py") || !name.contains('.');
            let extension = [".cmake", ".m4", ".mak", ".mk"].iter().any(|end| name.ends_with(end));
            by_name
                || extension
                || script
                    && (name.to_lowercase().contains("ver") || path.matches('/').count() < 3 && name.ends_with(".sh"))
        })
    }

    /// The first of these files that calls git.
    pub(super) fn first(source: &dyn Source, wanted: impl Fn(&str) -> bool) -> Option<Self> {
        let aside = |path: &str| tree::parent(path).split('/').any(|part| ASIDE.contains(&part));
        let paths = source.paths().iter().filter(|path| !aside(path) && wanted(path)).take(READ);
        paths.filter_map(|path| Self::of(path, &tree::text(source, path)?)).next()
    }

    /// A tool that calls git itself after checking for a repository.
    pub(super) fn by_looking(path: &str) -> Self {
        GitUse { path: path.to_owned(), looks: true }
    }

    /// How a file calls git, if it does.
    fn of(path: &str, text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().filter(|line| !is_comment(line)).collect();
        let asks = lines.iter().enumerate().any(|(at, line)| {
            let mut near = lines.iter().take(at.saturating_add(1)).skip(at.saturating_sub(4));
            QUESTIONS.iter().any(|question| line.contains(question)) && near.any(|line| names_git(line))
        });
        let looks = text.contains("vcs_tag")
            || text.contains("/.git\"")
            || text.contains("/.git)")
            || text.contains("/.git/")
            || text.contains(".git ]")
            || text.contains("wildcard .git")
            || text.contains("-d .git")
            || text.contains("-e .git");
        (asks || text.contains("vcs_tag(")).then(|| GitUse { path: path.to_owned(), looks })
    }
}

fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("dnl ") || line.starts_with("//") || line.starts_with('#') && !line.starts_with("#[")
}

/// Whether a line contains `git` as a word, a variable or a string.
fn names_git(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.contains("vcs_tag")
        || line.match_indices("git").any(|(at, word)| {
            let (before, after) = line.split_at(at);
            let before = before.chars().next_back();
            let after = after.strip_prefix(word).and_then(|after| after.chars().next());
            before.is_none_or(|c| !c.is_alphanumeric() && c != '.')
                && after.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '.' | '-' | '@'))
        })
}

/// Stamps a step, and gives it the `git` that answers from the stamp.
pub(super) fn answer(step: &mut Step, used: &GitUse) {
    step.stamp = true;
    step.files.insert(PATH.to_owned(), GIT.to_owned());
    let mark = "if [ -n \"$KILN_COMMIT\" ]; then mkdir -p .git && echo \"$KILN_COMMIT\" > .git/HEAD; fi\n";
    let mark = if used.looks { mark } else { "" };
    step.run.insert_str(0, &format!("chmod +x {PATH}\nexport PATH=\"$PWD/.kiln/bin:$PATH\"\n{mark}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(text: &str) -> Option<bool> {
        GitUse::of("Makefile", text).map(|used| used.looks)
    }

    #[test]
    fn questions_to_git_are_seen_in_every_build_language() {
        assert_eq!(asks("VERSION := $(shell git describe --tags --always)\n"), Some(false));
        assert_eq!(asks("v = run_command('git', 'describe', check: false)\n"), Some(false));
        assert_eq!(asks("x = vcs_tag(input: 'v.h.in', output: 'v.h')\n"), Some(true));
        let cmake = "find_package(Git)\nif(EXISTS \"${CMAKE_SOURCE_DIR}/.git\")\nexecute_process(\n  COMMAND ${GIT_EXECUTABLE}\n  rev-parse --short HEAD)\n";
        assert_eq!(asks(cmake), Some(true));
        assert_eq!(asks("let out = Command::new(\"git\").args([\"rev-parse\", \"HEAD\"]).output();\n"), Some(false));
    }

    #[test]
    fn other_words_are_not_taken_for_one() {
        for text in
            ["# git describe\nall:\n\tcc a.c\n", "see https://example.com/x.git\n\tdescribe a\n", "digits describe\n"]
        {
            assert_eq!(asks(text), None, "{text}");
        }
    }
}
