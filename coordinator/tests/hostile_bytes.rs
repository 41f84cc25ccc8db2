//! Malicious bytes for the parsers: the short form of `coordinator/fuzz`.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use kiln_coordinator::fuzzing;

#[test]
fn worker_messages_takes_any_bytes() {
    kiln_harness::mutated::run(
        "worker_messages",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/worker_messages"),
        fuzzing::worker_messages,
    );
}

#[test]
fn chunk_list_takes_any_bytes() {
    kiln_harness::mutated::run(
        "chunk_list",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/chunk_list"),
        fuzzing::chunk_list,
    );
}

#[test]
fn content_calls_takes_any_bytes() {
    kiln_harness::mutated::run(
        "content_calls",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/content_calls"),
        fuzzing::content_calls,
    );
}
