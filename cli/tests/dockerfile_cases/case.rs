//! Cases and what they expect: `expect.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// A Dockerfile with its context and what is expected of it.
#[derive(Debug)]
pub struct Case {
    /// The name of its directory.
    pub name: String,
    pub expect: Expect,
    directory: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// What it shows, for people.
    pub about: String,
    /// Whether it is one of the few that also run on Docker in every run.
    pub usual: bool,
    /// The image that `base` is: busybox, or `debian`.
    pub base: Option<String>,
    /// What Kiln does not do yet.
    pub lacks: Option<String>,
    /// Why Docker 20.10 does something else.
    pub docker: Option<String>,
    /// Completes a copy of the case before it is built.
    pub prepare: Option<String>,
    pub target: Option<String>,
    pub platform: Option<String>,
    pub args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Directories of the case that are named contexts.
    pub contexts: BTreeMap<String, String>,
    /// Why it is refused; without this, it is built.
    pub error: Option<Refusal>,
    /// The rules that find something, sorted.
    pub warnings: Vec<String>,
    /// What each new layer has: files that are new or changed, directories whose mode or owner changed, and `-PATH` for what is gone.
    pub layers: Option<Vec<Vec<String>>>,
    /// New entries of the history; `+ ` marks those with a layer.
    pub history: Option<Vec<String>>,
    /// Files of the image, by their paths.
    pub files: BTreeMap<String, File>,
    /// Parts of the image's configuration: how it is run.
    pub config: toml::Table,
    /// Other parts of it.
    pub image: toml::Table,
    /// How it is run, and what it does then.
    pub run: Option<Run>,
}

/// A run of an image.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// In place of the image's own.
    pub entrypoint: Option<String>,
    /// In place of the image's own command.
    pub arguments: Vec<String>,
    /// What is run beside it until it succeeds; without this, the image's own command ends by itself.
    pub ask: Vec<String>,
    /// A part of what is printed.
    pub says: String,
}

/// An error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// A part of the message.
    pub text: String,
    /// The line of the Dockerfile that it names.
    pub line: Option<usize>,
    /// What carets underline.
    pub caret: Option<String>,
}

/// A file: its content, or what of it is expected.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum File {
    Content(String),
    Details(Box<Details>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Details {
    /// It is not there.
    pub absent: bool,
    /// `file`, `directory`, `link`, `fifo`, `character` or `block`.
    pub kind: Option<String>,
    pub content: Option<String>,
    /// Lines that are among those of the file.
    pub lines: Vec<String>,
    /// Octal.
    pub mode: Option<String>,
    /// `UID:GID`.
    pub owner: Option<String>,
    /// What a symbolic link says.
    pub link: Option<String>,
    /// The file that it is a hard link of; empty if it is none.
    pub same: Option<String>,
    /// Seconds since 1970.
    pub time: Option<i64>,
    /// Extended attributes, in hexadecimal digits.
    pub xattrs: BTreeMap<String, String>,
}

/// All cases, or those that `KILN_CASES` names.
pub fn all() -> Vec<Case> {
    let wanted = std::env::var("KILN_CASES").ok();
    let wanted: Option<Vec<&str>> = wanted.as_deref().map(|names| names.split(',').collect());
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfile");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(place).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().into_string().unwrap();
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&name.as_str())) {
            continue;
        }
        let text = std::fs::read_to_string(entry.path().join("expect.toml")).unwrap();
        let expect = toml::from_str(&text).unwrap_or_else(|error| panic!("`{name}/expect.toml`: {error}"));
        cases.push(Case { name, expect, directory: entry.path() });
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

impl Case {
    /// A copy of the case, complete, with a context and a directory for what is served.
    pub fn prepared(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copied(&self.directory, copy.path());
        std::fs::create_dir_all(copy.path().join("context")).unwrap();
        std::fs::create_dir_all(copy.path().join("served")).unwrap();
        if let Some(script) = &self.expect.prepare {
            let mut command = Command::new("sh");
            command.args(["-ec", script]).current_dir(copy.path());
            kiln_harness::registry::output(&mut command);
        }
        copy
    }
}

/// Copies a directory with its modes and links.
fn copied(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path()).unwrap(), to).unwrap();
        } else if kind.is_dir() {
            std::fs::create_dir(&to).unwrap();
            copied(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
