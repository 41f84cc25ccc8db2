//! What a farm of real processes signs about artifacts, `kiln verify`, and what others' tools say of the same files.

#![allow(clippy::unwrap_used)]

mod files;
mod images;
mod keys;
mod others;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use kiln_harness::{Farm, Ran, commit, git, project};
use serde_json::Value;

/// How the farm names itself.
pub(crate) const BUILDER: &str = "https://farm.example";
/// A farm that nobody reaches.
const NOWHERE: &str = "http://127.0.0.1:1";

/// A farm for all tests that leave its keys as they are.
pub(crate) fn farm() -> &'static Farm {
    static FARM: OnceLock<Farm> = OnceLock::new();
    FARM.get_or_init(|| Farm::with(&["--farm-url", BUILDER], &["signs"]))
}

/// A farm's public keys, in a file that lasts as long as the directory.
pub(crate) fn keys_of(farm: &Farm, directory: &Path) -> PathBuf {
    let keys = farm.kiln(&["farm", "keys"]);
    assert_eq!(keys.code, 0, "{}", keys.err);
    let path = directory.join("farm.pem");
    std::fs::write(&path, keys.out).unwrap();
    path
}

/// A repository with one file that becomes the artifact `tool`.
pub(crate) fn tool(content: &str, repository: &str) -> tempfile::TempDir {
    let config = "name = \"tool\"\nversion = \"1\"\n[steps.work]\nrun = \"cp in tool\"\noutputs = [\"tool\"]\n[artifacts.tool]\n\
                  from = \"work\"\nfiles = \"tool\"\n";
    let dir = project(&[("kiln.toml", config), ("in", content), (".gitignore", "kiln-out\n")]);
    git(dir.path(), &["init", "-q", "-b", "main"]);
    git(dir.path(), &["remote", "add", "origin", repository]);
    commit(dir.path());
    dir
}

/// `kiln verify` without any farm.
pub(crate) fn verify(what: &Path, key: &Path, more: &[&str]) -> Ran {
    verify_at(NOWHERE, what.to_str().unwrap(), &[&["--key", key.to_str().unwrap()], more].concat())
}

/// `kiln verify` with a farm at this URL.
pub(crate) fn verify_at(url: &str, what: &str, more: &[&str]) -> Ran {
    let mut command = farm().command(&[&["verify", what], more].concat());
    command.env("KILN_FARM", url);
    command.into()
}

#[track_caller]
pub(crate) fn refused(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, 1, "expected it to be refused, found\n{}\n{}", ran.out, ran.err);
    for word in words {
        assert!(ran.out.contains(word) || ran.err.contains(word), "expected `{word}` in\n{}\n{}", ran.out, ran.err);
    }
}

#[track_caller]
pub(crate) fn accepted(ran: &Ran) {
    assert_eq!(ran.code, 0, "expected it to be verified, found\n{}\n{}", ran.out, ran.err);
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
