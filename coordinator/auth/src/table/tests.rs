use std::collections::BTreeSet;
use std::path::Path;

use kiln_proto::descriptors;

use super::*;

/// The services of the standards, by the name of their trait; Kiln's own are all served.
const STANDARD: [(&str, &str); 8] = [
    ("Capabilities", "build.bazel.remote.execution.v2.Capabilities"),
    ("ContentAddressableStorage", "build.bazel.remote.execution.v2.ContentAddressableStorage"),
    ("ActionCache", "build.bazel.remote.execution.v2.ActionCache"),
    ("Execution", "build.bazel.remote.execution.v2.Execution"),
    ("ByteStream", "google.bytestream.ByteStream"),
    ("Operations", "google.longrunning.Operations"),
    ("Fetch", "build.bazel.remote.asset.v1.Fetch"),
    ("Push", "build.bazel.remote.asset.v1.Push"),
];

/// The calls that descriptors declare: Kiln's own, and gRPC's own.
fn declared() -> BTreeSet<(String, String)> {
    let sets =
        [descriptors::KILN, tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET];
    let paths = sets.iter().flat_map(|set| descriptors::methods_of(set).expect("expected the descriptors to be whole"));
    paths.filter_map(|path| Some(own(path.strip_prefix('/')?.split_once('/')?))).collect()
}

fn own((service, method): (&str, &str)) -> (String, String) {
    (service.to_owned(), method.to_owned())
}

/// The calls of the standards that the coordinator implements: the bindings' traits have no defaults, so every call has a function.
fn standards() -> BTreeSet<(String, String)> {
    let sources = ["../src/services", "../assets/src"].map(|place| Path::new(env!("CARGO_MANIFEST_DIR")).join(place));
    let mut calls = BTreeSet::new();
    for file in
        sources.iter().flat_map(|place| std::fs::read_dir(place).expect("expected the services' source").flatten())
    {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        for (name, service) in STANDARD {
            let Some((_, implemented)) = text.split_once(&format!("_server::{name} for ")) else { continue };
            let (block, _) = implemented.split_once("\n}\n").unwrap_or((implemented, ""));
            let functions = block.split("\n    async fn ").skip(1).filter_map(|rest| rest.split_once('('));
            calls.extend(functions.map(|(function, _)| (service.to_owned(), camel(function))));
        }
    }
    calls
}

fn camel(snake: &str) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    snake.split('_').map(word).collect()
}

#[test]
fn the_table_has_every_call_that_is_served_and_no_other() {
    let served: BTreeSet<_> = declared().into_iter().chain(standards()).collect();
    assert!(served.len() > 30, "expected to find the calls of all services, found {served:?}");
    let named: BTreeSet<_> =
        TABLE.iter().map(|(service, method, _)| (service.to_string(), method.to_string())).collect();
    assert_eq!(named.len(), TABLE.len(), "expected each call to be in the table once");
    let missing: Vec<_> = served.difference(&named).collect();
    let unknown: Vec<_> = named.difference(&served).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not in the table: {missing:?}; not served: {unknown:?}");
}

#[test]
fn a_call_that_is_not_in_the_table_needs_what_nobody_has() {
    for path in
        ["", "/", "/kiln.v1.Builds", "/kiln.v1.Builds/Submit/", "/kiln.v1.Builds/Nothing", "kiln.v1.Builds/Submit"]
    {
        assert_eq!(needs(path), None, "expected `{path}` to be unknown");
    }
    assert_eq!(needs("/kiln.v1.Builds/Submit"), Some(BUILD));
}

#[test]
fn a_worker_may_not_build_and_a_builder_may_not_work_or_write_results() {
    let allowed = |role: Role, method: &str| {
        let (_, _, needs) = TABLE.iter().find(|(_, name, _)| *name == method).expect("a known call");
        matches!(needs, Needs::AnyOf(roles) if roles.contains(&role))
    };
    for method in ["Submit", "Execute", "UpdateActionResult", "DrainWorker", "Prune", "CancelOperation"] {
        assert!(!allowed(Role::Worker, method), "a worker may not call {method}");
    }
    for method in ["Link", "Renew", "UpdateActionResult", "DrainWorker", "Prune"] {
        assert!(!allowed(Role::Builder, method), "a builder may not call {method}");
    }
    for method in ["BatchUpdateBlobs", "Write", "Execute", "UpdateActionResult", "Submit"] {
        assert!(!allowed(Role::CacheReader, method), "a reader may not call {method}");
    }
}
