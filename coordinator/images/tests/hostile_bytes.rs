//! Malicious bytes for the parsers: the short form of `coordinator/images/fuzz`.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use kiln_images::fuzzing;

#[test]
fn archive_takes_any_bytes() {
    kiln_harness::mutated::run(
        "archive",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/archive"),
        fuzzing::archive,
    );
}

#[test]
fn layer_takes_any_bytes() {
    kiln_harness::mutated::run(
        "layer",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/layer"),
        fuzzing::layer,
    );
}

#[test]
fn manifest_takes_any_bytes() {
    kiln_harness::mutated::run(
        "manifest",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/manifest"),
        fuzzing::manifest,
    );
}

#[test]
fn reference_takes_any_bytes() {
    kiln_harness::mutated::run(
        "reference",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/reference"),
        fuzzing::reference,
    );
}
