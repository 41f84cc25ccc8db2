//! Whatever the files set of coordinators and workers are options that these have.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use kiln_harness::guarded::{local, well};
use kiln_harness::{Ran, cannot_run};

use crate::deploy;

/// Variables that are not Kiln's programs', but of these files or of the commands on their pages.
const OF_FILES: [&str; 19] = [
    "KILN_BALANCED_PORT",
    "KILN_BINARIES",
    "KILN_BUCKET_KEY",
    "KILN_BUILD",
    "KILN_CA",
    "KILN_COORDINATOR_IMAGE",
    "KILN_FARM",
    "KILN_HAPROXY_IMAGE",
    "KILN_METRICS_PORT",
    "KILN_PACKAGES",
    "KILN_PORT",
    "KILN_PROJECT",
    "KILN_REDIS_IMAGE",
    "KILN_REGISTRY_IMAGE",
    "KILN_REGISTRY_PORT",
    "KILN_S3_IMAGE",
    "KILN_STAGE",
    "KILN_TOKEN_FILE",
    "KILN_WORKER_IMAGE",
];

fn variables(of: &clap::Command) -> Vec<String> {
    of.get_arguments().filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned())).collect()
}

/// All files below a directory, as text.
fn texts(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            texts(&path, found);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            found.push((path.display().to_string(), text));
        }
    }
}

#[test]
fn variables_in_manifests_are_options_of_the_programs() {
    let programs = [kiln_coordinator::Arguments::command(), kiln_worker::Arguments::command()];
    let known: BTreeSet<String> = programs.iter().flat_map(variables).collect();
    let mut files = Vec::new();
    for dir in ["kubernetes", "helm/kiln/templates"] {
        texts(&deploy().join(dir), &mut files);
    }
    for name in ["compose.yaml", "compose.replicas.yaml", "replicas.md"] {
        files.push((name.to_owned(), std::fs::read_to_string(deploy().join(name)).unwrap()));
    }
    let mut count = 0;
    for (file, text) in &files {
        for (at, _) in text.match_indices("KILN_") {
            let rest = &text[at..];
            let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            let name = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
            let is_known = known.contains(name);
            assert!(is_known || OF_FILES.contains(&name), "`{name}` in {file} is an option of neither program");
            count += usize::from(is_known);
        }
    }
    assert!(count > 20, "expected to have found variables: {count}");
}

#[test]
fn the_file_of_one_of_several_coordinators_is_taken() {
    let program = Path::new(env!("CARGO_BIN_EXE_kiln")).parent().unwrap().join("kiln-coordinator");
    if !program.exists() {
        return cannot_run("`cargo test --workspace` builds `kiln-coordinator`");
    }
    let page = std::fs::read_to_string(deploy().join("replicas.md")).unwrap();
    let blocks: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let text = blocks.iter().find(|block| block.contains("advertise = ")).expect("expected the coordinator's file");
    let dir = tempfile::tempdir().unwrap();
    let (etc, lib) = (dir.path().join("etc"), dir.path().join("lib"));
    well(local(&["farm", "init", etc.to_str().unwrap(), "--host", "coordinator-a.example"]));
    let own = text.replace("/etc/kiln", etc.to_str().unwrap()).replace("/var/lib/kiln", lib.to_str().unwrap());
    let file = dir.path().join("coordinator.toml");
    std::fs::write(&file, own).unwrap();
    // It may have a password.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(program);
    command.arg("--config").arg(&file).arg("--check-config").env_remove("KILN_LOG").stdin(Stdio::null());
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{ran:?}");
}
