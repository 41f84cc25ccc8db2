//! Malicious bytes for the parsers: the short form of `coordinator/planner/fuzz`.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use kiln_planner::fuzzing;

#[test]
fn project_takes_any_bytes() {
    kiln_harness::mutated::run(
        "project",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/project"),
        fuzzing::project,
    );
}

#[test]
fn manifests_takes_any_bytes() {
    kiln_harness::mutated::run(
        "manifests",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/manifests"),
        fuzzing::manifests,
    );
}
