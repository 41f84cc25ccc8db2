//! What the workspace's crates and modules may depend on.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Maximum number of lines of a crate, including its unit tests.
const MAX_LINES: usize = 8_000;
/// Half of all files have fewer lines.
const MEDIAN_LINES: usize = 130;
/// Crates that are pure functions of their arguments: no I/O, clock, randomness, runtime or wire.
const PURE: [&str; 17] = [
    "proto/units",
    "coordinator/scheduler",
    "coordinator/plan",
    "coordinator/detect/found",
    "coordinator/detect/javascript",
    "coordinator/detect",
    "coordinator/dockerfile/text",
    "coordinator/dockerfile",
    "coordinator/planner",
    "coordinator/failures",
    "coordinator/gates",
    "coordinator/compare",
    "coordinator/reports",
    "coordinator/profile",
    "coordinator/runners",
    "coordinator/web/lines",
    "cli/buildx",
];
const IMPURE: [&str; 6] = ["tokio", "tonic", "kiln-proto", "reqwest", "rand", "rustix"];
/// Crates that do no I/O either, but share types with crates that do.
const WITHOUT_IO: [&str; 4] = ["proto/attest", "worker/calls", "coordinator/web/model", "coordinator/web/contents"];
const IO: [&str; 4] = ["std::fs", "std::process", "std::net::Tcp", "std::env::"];
/// Crates without the lints that rule out panics by indexing and arithmetic. What reads bytes or text of others belongs into one that has
/// them: this list only gets shorter.
const MAY_INDEX: [&str; 32] = [
    "benches",
    "cli",
    "cli/export",
    "cli/harness",
    "cli/progress",
    "cli/terminal",
    "cli/toolcache",
    "coordinator",
    "coordinator/auth",
    "coordinator/builds",
    "coordinator/context",
    "coordinator/execution",
    "coordinator/notify",
    "coordinator/records",
    "coordinator/replicas",
    "coordinator/scheduler",
    "coordinator/web",
    "coordinator/web/markup",
    "coordinator/web/model",
    "proto/system",
    "proto/system/timezone",
    "proto/system/verifier",
    "proto/telemetry",
    "proto/version",
    "worker",
    "worker/broker",
    "worker/docker",
    "worker/executor",
    "worker/kernel",
    "worker/probe",
    "worker/sandbox",
    "worker/seccomp",
];
const PANICS: [&str; 4] =
    ["clippy::indexing_slicing", "clippy::string_slice", "clippy::unwrap_used", "clippy::arithmetic_side_effects"];
/// A crate, and what it must not depend on, directly or indirectly.
const APART: [(&str, &[&str]); 21] = [
    ("proto", &["kiln-scheduler", "kiln-planner", "kiln-store"]),
    ("proto/trees", &["kiln-planner", "kiln-store"]),
    ("proto/dialects", &["kiln-store", "kiln-auth", "kiln-gocache"]),
    ("proto/scan", &["kiln-planner", "kiln-store"]),
    ("proto/attest", &["kiln-proto", "kiln-images", "tokio"]),
    ("coordinator/signing", &["kiln-proto", "kiln-builds", "kiln-store"]),
    ("coordinator/journal", &["tonic", "prost", "kiln-proto", "kiln-store", "kiln-builds", "kiln-execution"]),
    ("coordinator/redis", &["kiln-store", "kiln-journal", "kiln-proto"]),
    ("coordinator/replicas", &["tonic", "prost", "kiln-proto", "kiln-store", "kiln-builds", "kiln-execution"]),
    ("coordinator/store", &["kiln-builds", "kiln-execution", "kiln-planner"]),
    ("coordinator/auth", &["kiln-builds", "kiln-execution", "kiln-store"]),
    ("coordinator/images", &["kiln-proto", "kiln-store"]),
    ("coordinator/execution", &["kiln-builds", "kiln-planner"]),
    ("coordinator/toolcaches", &["kiln-builds", "kiln-execution"]),
    ("coordinator/web", &["kiln-builds", "kiln-execution", "kiln-store", "kiln-journal", "kiln-coordinator"]),
    ("coordinator/webhooks", &["kiln-coordinator"]),
    ("worker/calls", &["kiln-planner", "kiln-worker", "kiln-executor", "kiln-sandbox", "kiln-docker"]),
    ("worker/sandbox", &["kiln-planner", "kiln-docker", "kiln-worker"]),
    ("worker/docker", &["kiln-planner", "kiln-sandbox", "kiln-worker"]),
    ("worker/broker", &["kiln-planner", "kiln-sandbox", "kiln-docker", "kiln-worker"]),
    ("worker", &["kiln-planner", "kiln-detect", "kiln-coordinator"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn manifest(at: &Path) -> toml::Table {
    std::fs::read_to_string(at.join("Cargo.toml")).unwrap().parse().unwrap()
}

/// The workspace's crates, by their directories.
fn crates() -> Vec<String> {
    let workspace = manifest(&root());
    workspace["workspace"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member.as_str().unwrap().to_owned())
        .collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The module of a crate's root that a file belongs to; `None` for the root itself and for tests.
fn module(source: &Path, file: &Path) -> Option<String> {
    let parts: Vec<&str> = file.strip_prefix(source).unwrap().iter().map(|part| part.to_str().unwrap()).collect();
    if parts.iter().any(|part| matches!(*part, "tests" | "tests.rs")) || matches!(parts[..], ["lib.rs" | "main.rs"]) {
        return None;
    }
    Some(parts[0].trim_end_matches(".rs").to_owned())
}

/// The modules of its crate that a text names, such as `a` in `crate::a::b` and `use crate::{a, b::c}`.
fn named(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod").next().unwrap();
    let code: String = code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    let name = |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && !c.is_whitespace() => {
                    found.insert(name(&group[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// A path from a node back to it.
fn cycle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    for start in edges.keys() {
        let mut ways = vec![vec![start.clone()]];
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop() {
            for next in edges.get(way.last().unwrap()).into_iter().flatten() {
                let longer: Vec<String> = way.iter().chain([next]).cloned().collect();
                if next == start {
                    return Some(longer);
                }
                if seen.insert(next.clone()) {
                    ways.push(longer);
                }
            }
        }
    }
    None
}

#[test]
fn no_modules_of_a_crate_import_each_other() {
    for name in crates() {
        let source = root().join(&name).join("src");
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in files(&source) {
            let Some(from) = module(&source, &file) else { continue };
            let is_module = |to: &String| source.join(format!("{to}.rs")).exists() || source.join(to).is_dir();
            let to =
                named(&std::fs::read_to_string(&file).unwrap()).into_iter().filter(|to| *to != from && is_module(to));
            edges.entry(from.clone()).or_default().extend(to);
        }
        assert_eq!(cycle(&edges), None, "in `{name}`; move down what both want");
    }
}

#[test]
fn a_way_back_is_found_whatever_way_the_import_is_written() {
    let text =
        "use crate::{a, b::{c, d}, e};\nlet x = crate::f::g(); // crate::h\n#[cfg(test)]\nmod tests { use crate::i; }";
    let found: Vec<String> = named(text).into_iter().collect();
    assert_eq!(found, ["a", "b", "e", "f"]);
    let edges = |list: &[(&str, &str)]| {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in list {
            edges.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        edges
    };
    assert_eq!(cycle(&edges(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    assert_eq!(cycle(&edges(&[("a", "b"), ("b", "c"), ("c", "a")])).unwrap(), ["a", "b", "c", "a"]);
}

#[test]
fn pure_crates_do_no_io() {
    for name in PURE.iter().chain(&WITHOUT_IO) {
        for file in files(&root().join(name).join("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let found: Vec<_> = IO.iter().filter(|io| code.contains(**io)).collect();
            let is_test = file.iter().any(|part| part == "tests" || part == "tests.rs");
            assert!(is_test || found.is_empty(), "`{}` must not use {found:?}", file.display());
        }
    }
}

#[test]
fn crates_and_files_stay_small() {
    let mut lengths = Vec::new();
    for name in crates() {
        let own: Vec<usize> = files(&root().join(&name).join("src"))
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap().lines().count())
            .collect();
        let lines: usize = own.iter().sum();
        assert!(lines < MAX_LINES, "expected `{name}` to have less than {MAX_LINES} lines, found {lines}: split it");
        lengths.extend(own);
    }
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median < MEDIAN_LINES, "expected half of all files to have less than {MEDIAN_LINES} lines, found {median}");
}

/// `.ci/test` starts `rustdoc` for no crate's examples, and `cargo` links no tests of programs that have none.
#[test]
fn no_test_is_where_none_is_looked_for() {
    for directory in crates() {
        for file in files(&root().join(&directory)) {
            let text = std::fs::read_to_string(&file).unwrap();
            let is_example = |line: &str| {
                ["///", "//!"].iter().any(|mark| line.trim_start().starts_with(mark)) && line.contains("```")
            };
            let at = text.lines().position(is_example).map(|line| line + 1);
            assert_eq!(at, None, "`{}`: expected examples to be tests, which are compiled", file.display());
        }
        let manifest = manifest(&root().join(&directory));
        let programs = manifest.get("bin").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        for program in
            programs.iter().filter(|program| program.get("test").and_then(toml::Value::as_bool) == Some(false))
        {
            let file = root().join(&directory).join(program["path"].as_str().unwrap());
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(
                !text.contains("#[test]"),
                "`{}`: expected no test in a program whose tests do not run",
                file.display()
            );
        }
    }
}

#[test]
fn panics_are_ruled_out_in_every_crate_but_those_that_are_listed() {
    for directory in crates() {
        let library = root().join(&directory).join("src/lib.rs");
        let Ok(text) = std::fs::read_to_string(library) else { continue };
        let mut denied = text.split("deny(").skip(1).filter_map(|rest| rest.split(')').next());
        let rules_out = denied.any(|denied| PANICS.iter().all(|lint| denied.contains(lint)));
        let listed = MAY_INDEX.contains(&directory.as_str());
        assert!(
            rules_out != listed,
            "expected `{directory}` either to deny {PANICS:?} in its `lib.rs` or to be listed"
        );
    }
}

#[test]
fn crates_know_only_what_is_below_them() {
    let mut by_name = BTreeMap::new();
    for directory in crates() {
        let manifest = manifest(&root().join(&directory));
        let own: BTreeSet<String> = manifest
            .get("dependencies")
            .and_then(|own| own.as_table())
            .map(|own| own.keys().cloned().collect())
            .unwrap_or_default();
        by_name.insert(manifest["package"]["name"].as_str().unwrap().to_owned(), (directory, own));
    }
    // Including what they depend on through others of the workspace.
    let all = |name: &str| {
        let (mut open, mut seen) = (vec![name.to_owned()], BTreeSet::new());
        while let Some(next) = open.pop() {
            for below in by_name.get(&next).into_iter().flat_map(|(_, own)| own) {
                if seen.insert(below.clone()) {
                    open.push(below.clone());
                }
            }
        }
        seen
    };
    for (name, (directory, _)) in &by_name {
        let apart = APART.iter().filter(|(of, _)| of == directory).flat_map(|(_, apart)| apart.iter());
        let impure = IMPURE.iter().filter(|_| PURE.contains(&directory.as_str()));
        let forbidden: Vec<&&str> = apart.chain(impure).filter(|apart| all(name).contains(**apart)).collect();
        assert!(forbidden.is_empty(), "`{directory}` must not know {forbidden:?}");
    }
    for directory in PURE.iter().chain(APART.iter().map(|(directory, _)| directory)) {
        assert!(by_name.values().any(|(known, _)| known == directory), "`{directory}` is no crate any more");
    }
}
