//! Malicious bytes for the front end: the short form of `coordinator/dockerfile/fuzz`.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use kiln_dockerfile::fuzzing;

fn seeds(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name)
}

#[test]
fn dockerfile_takes_any_bytes() {
    kiln_harness::mutated::run("dockerfile", &seeds("dockerfile"), fuzzing::dockerfile);
}

#[test]
fn the_corpus_is_printed_and_read_again() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official/corpus");
    for entry in std::fs::read_dir(corpus).unwrap() {
        fuzzing::dockerfile(&std::fs::read(entry.unwrap().path()).unwrap());
    }
}

#[test]
fn words_takes_any_bytes() {
    kiln_harness::mutated::run("words", &seeds("words"), fuzzing::words);
}

#[test]
fn ignore_takes_any_bytes() {
    kiln_harness::mutated::run("ignore", &seeds("ignore"), fuzzing::ignore);
}
