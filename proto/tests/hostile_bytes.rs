//! Malicious bytes for the parsers: the short form of `proto/fuzz`.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use kiln_proto::fuzzing;

#[test]
fn resource_name_takes_any_bytes() {
    kiln_harness::mutated::run(
        "resource_name",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/resource_name"),
        fuzzing::resource_name,
    );
}

#[test]
fn link_message_takes_any_bytes() {
    kiln_harness::mutated::run(
        "link_message",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/link_message"),
        fuzzing::link_message,
    );
}
