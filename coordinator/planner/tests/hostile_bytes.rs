//! Malicious bytes for the parsers: the short form of `coordinator/planner/fuzz`.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use kiln_planner::fuzzing;
use kiln_planner::plan::{MemorySource, unversioned};

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

#[test]
fn a_pom_whose_entities_move_its_elements_about_loses_its_version_all_the_same() {
    let pom = include_str!("../fuzz/seeds/manifests/pom-entities");
    let source = MemorySource::new([("pom.xml".to_owned(), pom.as_bytes().to_vec())].into());
    let changed = String::from_utf8(unversioned("pom.xml", pom.as_bytes(), &source).unwrap()).unwrap();
    assert!(changed.contains("<!ENTITY own \"<revision>0.0.0</revision>\">"), "{changed}");
    assert!(
        changed.contains("  <version>0.0.0</version>\n") && changed.contains("<version>1&note;</version>"),
        "{changed}"
    );
}
