//! Checks whether a project's CI runs Kiln on every push.

use std::path::Path;

/// Files in which CI systems keep their definitions.
const FILES: [&str; 12] = [
    ".gitlab-ci.yml",
    ".gitlab-ci.yaml",
    "Jenkinsfile",
    ".circleci/config.yml",
    ".woodpecker.yml",
    ".woodpecker.yaml",
    ".drone.yml",
    "azure-pipelines.yml",
    "bitbucket-pipelines.yml",
    ".travis.yml",
    ".builds.yml",
    ".buildkite/pipeline.yml",
];
/// Directories in which every file is a definition.
const DIRECTORIES: [&str; 6] =
    [".github/workflows", ".forgejo/workflows", ".gitea/workflows", ".woodpecker", ".buildkite", ".ci"];
/// Maximum size of a definition that is read.
const MAX_BYTES: u64 = 1 << 20;

/// The project's CI definitions.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ci {
    /// This definition calls `kiln build`.
    Builds(String),
    /// There are definitions, but none calls it.
    Others(Vec<String>),
    /// There are no definitions.
    None,
}

/// Looks in the project and in the checkout that contains it, because a repository has one CI for all its projects.
pub(super) fn look(root: &Path) -> Ci {
    let top = root.ancestors().find(|dir| dir.join(".git").exists()).unwrap_or(root);
    let mut definitions = Vec::new();
    for base in if top == root { vec![root] } else { vec![root, top] } {
        for name in FILES {
            definitions.push(base.join(name));
        }
        for name in DIRECTORIES {
            let entries = std::fs::read_dir(base.join(name)).into_iter().flatten().flatten();
            let mut below: Vec<_> = entries.map(|entry| entry.path()).collect();
            below.sort();
            definitions.extend(below);
        }
    }
    let mut others = Vec::new();
    for path in definitions {
        let Some(text) = read(&path) else { continue };
        let name = path.strip_prefix(top).unwrap_or(&path).display().to_string();
        if text.lines().any(calls_build) {
            return Ci::Builds(name);
        }
        others.push(name);
    }
    if others.is_empty() { Ci::None } else { Ci::Others(others) }
}

fn read(path: &Path) -> Option<String> {
    use std::io::Read;
    if !path.is_file() {
        return None;
    }
    let mut text = Vec::new();
    std::fs::File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Whether a line calls `kiln build`, as part of a command and not in a comment, or through an action or template for Kiln.
fn calls_build(line: &str) -> bool {
    let code = match line.trim_start() {
        comment if comment.starts_with('#') || comment.starts_with("//") => return false,
        code => code.split(" #").next().unwrap_or_default(),
    };
    let words: Vec<&str> = code.split(|char: char| char.is_whitespace() || "\"';&|()[],".contains(char)).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    if let [.., "uses:", action] = words[..] {
        let action = action.split('@').next().unwrap_or_default();
        return action.split('/').any(|part| part == "kiln" || part.starts_with("kiln-"));
    }
    words.iter().enumerate().any(|(at, word)| {
        if word.ends_with("kiln.gitlab-ci.yml") {
            return true;
        }
        let is_kiln = *word == "kiln" || word.ends_with("/kiln");
        is_kiln
            && words[at + 1..].iter().take_while(|word| !word.ends_with("kiln")).take(6).any(|word| *word == "build")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_a_command_and_no_comment() {
        for line in [
            "    - run: kiln build",
            "sh './target/kiln build --platform linux/amd64'",
            "  - kiln --farm $FARM build .",
            "[\"kiln\", \"build\"]",
            "      - uses: ./.github/actions/kiln",
            "        uses: platform/kiln-action@v2",
            "  - { project: platform/ci, file: kiln.gitlab-ci.yml }",
        ] {
            assert!(calls_build(line), "expected `{line}` to call the build");
        }
        for line in [
            "# kiln build",
            "  - make # not kiln build",
            "kiln check",
            "mykilns build",
            "docker build kiln",
            "uses: team/limekiln@v1",
        ] {
            assert!(!calls_build(line), "expected `{line}` not to call the build");
        }
    }

    #[test]
    fn definitions_are_found_in_the_project_and_at_the_top_of_its_checkout() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("services/shop");
        std::fs::create_dir_all(&project).unwrap();
        assert_eq!(look(&project), Ci::None);
        std::fs::create_dir_all(dir.path().join(".git")).unwrap();
        std::fs::create_dir_all(dir.path().join(".github/workflows")).unwrap();
        std::fs::write(dir.path().join(".github/workflows/ci.yml"), "on: push\njobs: {}\n").unwrap();
        assert_eq!(look(&project), Ci::Others(vec![".github/workflows/ci.yml".into()]));
        std::fs::write(project.join(".gitlab-ci.yml"), "build:\n  script:\n    - kiln build\n").unwrap();
        assert_eq!(look(&project), Ci::Builds("services/shop/.gitlab-ci.yml".into()));
    }
}
