//! Packages with parts in Rust: their build backend calls cargo, which needs crates.
//!
//! Invariant: crates are fetched according to the lock file before the build, which has no network access.

use super::{
    super::{
        found::{COMPILER_MEMORY_BYTES, COMPILER_MILLI_CPUS, fetch_step, strings},
        tree,
    },
    local::{Local, within},
    requirements,
};
use kiln_plan::{Source, Step};

const CARGO_HOME: &str = ".kiln/cargo";

/// The step that fetches the crates for packages of the tree; `None` if cargo builds none of them.
pub(super) fn step(source: &dyn Source, locals: &[Local]) -> Option<Step> {
    let by_cargo = |local: &Local| {
        let tools = ["maturin", "setuptools-rust"];
        local.backend.iter().any(|r| tools.contains(&requirements::normalised(requirements::name(r)).as_str()))
    };
    if !locals.iter().any(by_cargo) {
        return None;
    }
    let manifests = tree::named(source, |name| name == "Cargo.toml");
    let locks = tree::named(source, |name| name == "Cargo.lock");
    let mut run = format!("export CARGO_HOME=\"$PWD/{CARGO_HOME}\"\n");
    for manifest in &manifests {
        // Without a target, cargo rejects a manifest.
        let directory = tree::shell_word(&within(tree::parent(manifest), "src"));
        run.push_str(&format!("mkdir -p {directory}\ntouch {directory}/lib.rs\n"));
    }
    run.push_str(&format!("mkdir -p {CARGO_HOME}\n"));
    for lock in &locks {
        let manifest = tree::shell_word(&within(tree::parent(lock), "Cargo.toml"));
        run.push_str(&format!("cargo fetch --locked --manifest-path {manifest}\n"));
    }
    run.push_str(&format!("rm -rf {CARGO_HOME}/registry/cache/*/.last-updated {CARGO_HOME}/.package-cache*\n"));
    let mut step = fetch_step("crates", "fetches the crates that the package's Rust code needs", run);
    step.unversioned = manifests.iter().chain(&locks).cloned().collect();
    step.inputs = manifests.into_iter().chain(locks).collect();
    step.inputs.extend(tree::all_of(source, &[".cargo/config.toml", "rust-toolchain", "rust-toolchain.toml"]));
    (step.outputs, step.tools) = (strings([CARGO_HOME]), strings(["cargo"]));
    Some(step)
}

/// Makes a step that builds such packages use the fetched crates.
pub(super) fn give(step: &mut Step) {
    step.needs.push("crates".to_owned());
    step.run = format!("export CARGO_HOME=\"$PWD/{CARGO_HOME}\" CARGO_NET_OFFLINE=true\n{}", step.run);
    step.tools.push("cargo".to_owned());
    (step.milli_cpus, step.memory_bytes) = (COMPILER_MILLI_CPUS, COMPILER_MEMORY_BYTES);
}
