//! Gates on a farm of real processes: what they see, what they let through and keep out, and what is recorded of them.

#![allow(clippy::unwrap_used)]

mod checks;
mod commands;
mod images;
mod started;

use kiln_harness::{Built, Farm, project, write};
use serde_json::Value;

/// A project with one artifact, `out`, of the file `in`; named, so that its artifacts are not those of other tests.
fn plain(name: &str, gates: &str) -> tempfile::TempDir {
    let config = format!(
        "name = \"{name}\"\nversion = \"1\"\n[steps.build]\ninputs = [\"in\"]\nrun = \"cat in > out\"\noutputs = [\"out\"]\n\
         [artifacts.{name}]\nfrom = \"build\"\nfiles = [\"out\"]\n{gates}"
    );
    project(&[("kiln.toml", &config), ("in", &format!("of {name}\n"))])
}

/// A project with an image of busybox that has a user and a directory of its own. `None`, with a message, if there is no busybox.
fn image(name: &str, dockerfile: &str, gates: &str) -> Option<tempfile::TempDir> {
    let config = format!(
        "name = \"{name}\"\nversion = \"1\"\n[artifacts.{name}]\ndockerfile = \"Dockerfile\"\ncontexts = {{ base = \"oci-layout://base\" }}\n{gates}"
    );
    let dir = project(&[("kiln.toml", &config), ("Dockerfile", &format!("FROM base\n{dockerfile}"))]);
    std::fs::create_dir(dir.path().join("base")).unwrap();
    kiln_harness::bases::busybox_layout(&dir.path().join("base"))?;
    Some(dir)
}

/// The artifacts of this name that the farm has, with what it says of them.
fn stored(farm: &Farm, name: &str) -> Vec<Value> {
    let listed = farm.kiln(&["artifacts", name, "--json"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    serde_json::from_str::<Value>(&listed.out).unwrap().as_array().unwrap().clone()
}

/// Checks that a build failed through the project's own fault with these words, and that nothing of it is stored.
#[track_caller]
fn kept_out(farm: &Farm, built: &Built, name: &str, words: &[&str]) {
    assert_eq!(built.0.code, 1, "expected the project's own failure, found {:?}", built.0);
    for word in words {
        assert!(built.message().contains(word), "expected `{word}` in: {}", built.message());
    }
    assert_eq!(stored(farm, name), Vec::<Value>::new(), "what fails a gate is not stored");
    assert!(built.of_type("artifact").is_empty(), "what fails a gate is not announced");
}

/// How each gate of a build ended, and whether that came from the cache.
fn ended(built: &Built) -> Vec<(String, String, bool)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = built.of_type("gate_finished").into_iter();
    let mut all: Vec<_> =
        all.map(|one| (text(&one["gate"]), text(&one["result"]), one["cached"].as_bool().unwrap())).collect();
    all.sort();
    all
}

fn passed(name: &str, cached: bool) -> (String, String, bool) {
    (name.to_owned(), "passed".to_owned(), cached)
}

/// Changes the project's sources without changing what is built of them.
fn edit(dir: &std::path::Path) {
    write(dir, "notes", "something else\n");
}
