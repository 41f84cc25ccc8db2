//! Hostile bytes for what reads trees: the short form of `proto/fuzz`.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use kiln_trees::fuzzing;

#[test]
fn directory_takes_any_bytes() {
    kiln_harness::mutated::run(
        "directory",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/directory"),
        fuzzing::directory,
    );
}

#[test]
fn tree_takes_any_bytes() {
    kiln_harness::mutated::run(
        "tree",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/tree"),
        fuzzing::tree,
    );
}
