//! Determines which part of a repository a project in one of its directories needs.
//!
//! The context of a project is its own directory and everything outside it that its manifests refer to: the workspace
//! that it belongs to, or the directories of local dependencies. Invariant: nothing outside `boundary` becomes part of
//! a context.

use std::collections::BTreeSet;

use super::workspace;
use kiln_plan::paths::{below, join, parent};

/// Access to the files in which a context is searched. Paths are relative to the boundary and separated by `/`.
pub struct Files<'a> {
    /// The content of a file.
    pub read: &'a dyn Fn(&str) -> Option<Vec<u8>>,
    /// Whether a file or directory exists.
    pub exists: &'a dyn Fn(&str) -> bool,
    /// The files in and below a directory whose names [`is_manifest`] accepts.
    pub manifests: &'a dyn Fn(&str) -> Vec<String>,
}

/// The part of a tree that a build sees. Paths are relative to the boundary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The directory that becomes the root of the tree.
    pub root: String,
    /// The project's directory, relative to `root`; empty for the root.
    pub project: String,
    /// The paths below `root` that belong to the tree, relative to it; empty for all.
    pub parts: Vec<String>,
}

/// Whether references in a file with this name are followed.
pub fn is_manifest(name: &str) -> bool {
    matches!(
        name,
        "Cargo.toml"
            | "go.mod"
            | "go.work"
            | "package.json"
            | "deno.json"
            | "deno.jsonc"
            | "composer.json"
            | "Pipfile"
            | "build.zig.zon"
            | "pyproject.toml"
            | "setup.py"
            | "Gemfile"
            | "pom.xml"
            | "build.gradle"
            | "build.gradle.kts"
            | "settings.gradle"
            | "settings.gradle.kts"
            | "CMakeLists.txt"
            | "meson.build"
            | "Makefile"
            | "GNUmakefile"
            | "kiln.toml"
    ) || (name.starts_with("requirements") && name.ends_with(".txt"))
        || name.ends_with(".gemspec")
}

/// The context of the project in a directory.
pub fn context(files: &Files<'_>, project: &str) -> Context {
    if let Some(root) = workspace(files, project) {
        let project = below(project, &root).unwrap_or_default().to_owned();
        return Context { root, project, parts: Vec::new() };
    }
    let mut parts: BTreeSet<String> = BTreeSet::from([project.to_owned()]);
    let mut open = vec![project.to_owned()];
    while let Some(directory) = open.pop() {
        for manifest in (files.manifests)(&directory) {
            let Some(text) = (files.read)(&manifest) else { continue };
            for reference in references(&String::from_utf8_lossy(&text)) {
                let Some(path) = join(parent(&manifest), &reference) else { continue };
                // A reference to the directory that contains everything would include everything.
                let known = parts.iter().any(|part| below(&path, part).is_some());
                let around = parts.iter().any(|part| below(part, &path).is_some());
                if !known && !around && (files.exists)(&path) {
                    parts.insert(path.clone());
                    open.push(path);
                }
            }
        }
    }
    let root = parts.iter().fold(project.to_owned(), |root, part| common(&root, part));
    if parts.len() == 1 {
        return Context { root, project: String::new(), parts: Vec::new() };
    }
    let relative = |path: &str| below(path, &root).unwrap_or_default().to_owned();
    Context { project: relative(project), parts: parts.iter().map(|part| relative(part)).collect(), root }
}

/// The directory of the workspace that a project belongs to; `None` if it stands alone.
fn workspace(files: &Files<'_>, project: &str) -> Option<String> {
    let mut found: Option<String> = None;
    let mut directory = project;
    while !directory.is_empty() {
        directory = parent(directory);
        let member = below(project, directory)?;
        let (read, exists) = (files.read, files.exists);
        let languages =
            workspace::languages(&|name| read(&at(directory, name)), member, &|name| exists(&at(project, name)));
        if !languages.is_empty() {
            found = Some(directory.to_owned());
            // Maven builds a module from the topmost `pom.xml`, which may list it indirectly.
            if read(&at(directory, "pom.xml")).is_none() {
                break;
            }
        }
    }
    found
}

/// The paths in a manifest that contain `..`, as written.
fn references(text: &str) -> Vec<String> {
    let ends = |c: char| c.is_whitespace() || "\"'`<>,;()[]{}#|&$*?".contains(c);
    let words =
        text.lines().filter(|line| !line.trim_start().starts_with(['#', '/'])).flat_map(|line| line.split(ends));
    words
        .filter_map(|word| {
            let (before, path) = word.split_at(word.find("..")?);
            let starts = before.is_empty() || before.ends_with([':', '=', '@']) || before.ends_with("./");
            let path = path.trim_end_matches('/');
            (starts && (path == ".." || path.starts_with("../"))).then(|| path.to_owned())
        })
        .collect()
}

fn at(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// The nearest directory that contains both.
fn common(one: &str, other: &str) -> String {
    let same = one.split('/').zip(other.split('/')).take_while(|(a, b)| a == b).map(|(a, _)| a);
    same.collect::<Vec<&str>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)], project: &str) -> (String, String, String) {
        let named = |path: &&str| is_manifest(kiln_plan::paths::base(path));
        let found = Files {
            read: &|path| files.iter().find(|(one, _)| *one == path).map(|(_, text)| text.as_bytes().to_vec()),
            exists: &|path| files.iter().any(|(one, _)| below(one, path).is_some()),
            manifests: &|directory| {
                let paths = files.iter().map(|(path, _)| *path).filter(|path| below(path, directory).is_some());
                paths.filter(named).map(str::to_owned).collect()
            },
        };
        let context = context(&found, project);
        (context.root, context.project, context.parts.join(" "))
    }

    fn expected(root: &str, project: &str, parts: &str) -> (String, String, String) {
        (root.into(), project.into(), parts.into())
    }

    #[test]
    fn a_project_that_refers_to_nothing_outside_is_its_own_context() {
        let files =
            [("a/go.mod", "module a\n"), ("a/x/Makefile", "include ../common.mk\n"), ("a/common.mk", ""), ("b/c", "")];
        assert_eq!(of(&files, "a"), expected("a", "", ""));
        assert_eq!(of(&files, ""), expected("", "", ""));
    }

    #[test]
    fn local_dependencies_are_followed_from_one_to_the_next() {
        let files = [
            ("go/services/api/go.mod", "module api\nreplace example.com/fmtx => ../../libs/fmtx\n"),
            ("go/libs/fmtx/go.mod", "module fmtx\nreplace example.com/base => ../base\nreplace x => ../gone\n"),
            ("go/libs/base/go.mod", "module base\n"),
            ("go/libs/other/go.mod", "module other\n"),
            ("web/package.json", "{\"dependencies\":{\"ui\":\"file:../ui\"}}"),
            ("ui/package.json", "{}"),
        ];
        assert_eq!(of(&files, "go/services/api"), expected("go", "services/api", "libs/base libs/fmtx services/api"));
        assert_eq!(of(&files, "web"), expected("", "web", "ui web"));
    }

    #[test]
    fn a_member_needs_the_whole_workspace_and_a_stranger_does_not() {
        let files = [
            ("r/Cargo.toml", "[workspace]\nmembers = [\"services/*\"]\nexclude = [\"services/old\"]\n"),
            ("r/services/api/Cargo.toml", ""),
            ("r/services/old/Cargo.toml", ""),
            ("g/go.work", "go 1.22\nuse (\n\t./svc\n)\n"),
            ("g/svc/go.mod", ""),
            ("g/other/go.mod", ""),
            ("p/package.json", "{}"),
            ("p/pnpm-workspace.yaml", "packages: ['packages/*']\n"),
            ("p/packages/ui/package.json", "{}"),
        ];
        assert_eq!(of(&files, "r/services/api"), expected("r", "services/api", ""));
        assert_eq!(of(&files, "r/services/old"), expected("r/services/old", "", ""));
        assert_eq!(of(&files, "g/svc"), expected("g", "svc", ""));
        assert_eq!(of(&files, "g/other"), expected("g/other", "", ""));
        assert_eq!(of(&files, "p/packages/ui"), expected("p", "packages/ui", ""));
    }
}
