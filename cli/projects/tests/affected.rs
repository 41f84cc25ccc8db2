//! Which projects of a repository changed since a commit.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_projects::{Base, affected};

fn write(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let who = ["-c", "user.name=t", "-c", "user.email=t@t"];
    let output = Command::new("git").args(who).args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A repository whose `api` refers to `libs/core`, and whose `web` and `tool` stand alone.
fn repository() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    write(at, "libs/core/go.mod", "module core\n\ngo 1.19\n");
    write(at, "libs/core/core.go", "package core\n");
    write(
        at,
        "services/api/go.mod",
        "module api\n\ngo 1.19\n\nrequire core v0.0.0\n\nreplace core => ../../libs/core\n",
    );
    write(at, "services/api/main.go", "package main\n\nfunc main() {}\n");
    write(at, "services/api/README.md", "about\n");
    write(at, "services/web/Makefile", "all:\n\ttouch out\n");
    write(
        at,
        "services/tool/kiln.toml",
        "[steps.a]\nrun = \"cp in out\"\ninputs = [\"in\"]\noutputs = [\"out\"]\n[artifacts.tool]\nfrom = \"a\"\nfiles = [\"out\"]\n",
    );
    write(at, "services/tool/in", "1");
    write(at, "services/tool/notes.txt", "1");
    write(at, "services/docs/a.txt", "no project");
    git(at, &["init", "-q"]);
    git(at, &["add", "-A"]);
    git(at, &["commit", "-q", "-m", "first"]);
    dir
}

/// Each directory's fate since the last commit, and the files that changed.
fn fates(at: &Path) -> Vec<(String, Vec<String>)> {
    let base = Base::check_out(at, "HEAD").unwrap();
    let mut directories: Vec<PathBuf> =
        std::fs::read_dir(at.join("services")).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.sort();
    let of = |one: affected::Affected| {
        let name = one.directory.file_name().unwrap().to_string_lossy().into_owned();
        let files = match &one.fate {
            affected::Fate::Changed(change) => change.files.clone(),
            _ => Vec::new(),
        };
        (format!("{name} {}", one.fate.word()), files)
    };
    affected::since(&base, &directories).into_iter().map(of).collect()
}

fn words(at: &Path) -> String {
    fates(at).into_iter().map(|(words, _)| words).collect::<Vec<_>>().join(", ")
}

#[test]
fn what_has_not_changed_is_the_same_and_a_directory_without_a_project_is_named() {
    let dir = repository();
    assert_eq!(words(dir.path()), "api unchanged, docs no project, tool unchanged, web unchanged");
    let status = git(dir.path(), &["status", "--porcelain"]);
    assert_eq!(status, "", "the working tree is only read");
}

#[test]
fn a_shared_directory_affects_those_that_refer_to_it_and_no_others() {
    let dir = repository();
    write(dir.path(), "libs/core/core.go", "package core\n\nconst X = 1\n");
    let found = fates(dir.path());
    let changed: Vec<&(String, Vec<String>)> = found.iter().filter(|(words, _)| words.ends_with(" changed")).collect();
    assert_eq!(changed.len(), 1, "{found:?}");
    assert_eq!(changed[0], &("api changed".to_owned(), vec!["libs/core/core.go".to_owned()]));
}

#[test]
fn only_inputs_count_and_a_command_does_too() {
    let dir = repository();
    write(dir.path(), "services/tool/notes.txt", "2");
    write(dir.path(), "services/api/README.md", "edited\n");
    assert_eq!(words(dir.path()), "api unchanged, docs no project, tool unchanged, web unchanged");
    write(dir.path(), "services/tool/in", "2");
    let text = std::fs::read_to_string(dir.path().join("services/web/Makefile")).unwrap();
    write(dir.path(), "services/web/Makefile", &text.replace("touch out", "touch out2"));
    assert_eq!(words(dir.path()), "api unchanged, docs no project, tool changed, web changed");
    git(dir.path(), &["commit", "-q", "-a", "-m", "second"]);
    assert_eq!(words(dir.path()), "api unchanged, docs no project, tool unchanged, web unchanged");
    let toml = std::fs::read_to_string(dir.path().join("services/tool/kiln.toml")).unwrap();
    write(dir.path(), "services/tool/kiln.toml", &toml.replace("cp in out", "cp in ./out"));
    let tool = fates(dir.path()).into_iter().find(|(words, _)| words.starts_with("tool")).unwrap();
    assert_eq!(tool, ("tool changed".to_owned(), Vec::new()), "the plan changed, and no input");
}

#[test]
fn a_new_project_and_one_that_is_broken_are_affected() {
    let dir = repository();
    write(dir.path(), "services/new/Makefile", "all:\n\ttrue\n");
    write(dir.path(), "services/tool/kiln.toml", "[steps.a]\nrun = 1\n");
    assert_eq!(words(dir.path()), "api unchanged, docs no project, new new, tool broken, web unchanged");
}

#[test]
fn a_commit_that_is_not_there_is_named_with_what_to_do() {
    let dir = repository();
    let error = Base::check_out(dir.path(), "nowhere").unwrap_err().to_string();
    assert!(error.contains("no commit `nowhere`") && error.contains("git fetch origin nowhere"), "{error}");
    let error = Base::check_out(dir.path(), "--output=/tmp/x").unwrap_err().to_string();
    assert!(error.contains("no commit"), "an option is no commit: {error}");
    let bare = tempfile::tempdir().unwrap();
    assert!(Base::check_out(bare.path(), "HEAD").unwrap_err().to_string().contains("not in a git repository"));
}
