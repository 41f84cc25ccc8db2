//! Builds during garbage collection: a store that holds only a few builds, and continuous collections.

#![allow(clippy::unwrap_used)]

use kiln_harness::{Farm, project, until};

const MIB: u64 = 1 << 20;
const MAX: u64 = 16 * MIB;

fn config(name: &str) -> String {
    format!(
        r#"
name = "{name}"
[steps.deps]
inputs = ["deps.lock"]
run = "mkdir -p vendor/sub && head -c 1000000 /dev/urandom > vendor/sub/large && echo {name} > vendor/name"
outputs = ["vendor"]
[steps.compile]
needs = ["deps"]
run = "cat vendor/sub/large vendor/name source > made"
outputs = ["made"]
[artifacts.out]
from = "compile"
files = ["made"]
kind = "archive"
"#
    )
}

fn tree(name: &str) -> tempfile::TempDir {
    project(&[("kiln.toml", &config(name)), ("deps.lock", &format!("{name}\n")), ("source", "source\n")])
}

fn stored(farm: &Farm) -> u64 {
    fn bytes(dir: &std::path::Path) -> u64 {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| if entry.path().is_dir() { bytes(&entry.path()) } else { size(&entry) }).sum()
    }
    // A file may disappear while it is inspected.
    fn size(entry: &std::fs::DirEntry) -> u64 {
        entry.metadata().map_or(0, |metadata| metadata.len())
    }
    let blobs = farm.dir.path().join("coordinator/blobs");
    bytes(&blobs.join("sha256")) + bytes(&blobs.join("blake3"))
}

#[test]
fn builds_end_well_while_the_store_is_too_small_for_them_all_and_is_collected_all_the_time() {
    let farm = Farm::with(&["--store-size", "16MiB", "--collect-every", "1s"], &["one", "two"]);
    std::thread::scope(|scope| {
        let farm = &farm;
        let builder = |user: usize| {
            move || {
                for round in 0..4 {
                    let dir = tree(&format!("p{user}r{round}"));
                    farm.build(dir.path(), &[]).well();
                    assert!(stored(farm) <= MAX, "expected at most {MAX} bytes, found {}", stored(farm));
                    let again = farm.build(dir.path(), &[]).well();
                    let caches = again.caches();
                    assert!(
                        caches.values().all(|cache| cache == "hit"),
                        "expected hits of what was just built: {caches:?}"
                    );
                }
            }
        };
        let builders: Vec<_> = (0..3).map(|user| scope.spawn(builder(user))).collect();
        builders.into_iter().for_each(|builder| builder.join().unwrap());
    });
    until("a collection to be logged", || farm.log("coordinator").contains("collected unused").then_some(()));
    // What was removed is listed as evicted, and what is listed as present is a hit.
    let listed = farm.kiln(&["cache", "list", "--json"]);
    let layers: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    let (gone, there): (Vec<_>, Vec<_>) =
        layers.as_array().unwrap().iter().partition(|layer| layer["evicted"].as_bool().unwrap_or_default());
    assert!(!gone.is_empty() && !there.is_empty(), "expected some of 12 builds to be evicted: {layers}");
    let project = gone[0]["project"].as_str().unwrap();
    let rebuilt = farm.build(tree(project).path(), &[]).well();
    assert!(!rebuilt.of_type("artifact").is_empty(), "expected what is gone to be built again");
}

#[test]
fn a_coordinator_killed_while_it_collects_takes_its_builds_up_again() {
    let farm = Farm::with(&["--store-size", "16MiB", "--collect-every", "1s"], &["one"]);
    for round in 0..6 {
        farm.build(tree(&format!("before{round}")).path(), &[]).well();
    }
    let dir = tree("killed");
    let mut build = farm.start_build(dir.path(), &[]);
    build.started("deps");
    farm.restart_coordinator();
    build.end().well();
    let again = farm.build(dir.path(), &[]).well();
    assert!(again.caches().values().all(|cache| cache == "hit"), "{:?}", again.caches());
    assert!(stored(&farm) <= MAX, "expected at most {MAX} bytes, found {}", stored(&farm));
}
