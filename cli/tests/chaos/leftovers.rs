//! What a farm might leave on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_harness::Farm;

fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Files that only running work needs: scratch directories of jobs, growing logs, incomplete uploads, and the contents
/// of the temporary directory.
pub fn files(farm: &Farm, temporary: &tempfile::TempDir) -> Vec<PathBuf> {
    let mut found = entries(temporary.path());
    for state in entries(farm.dir.path()) {
        found.extend(entries(&state.join("logs")));
        found.extend(entries(&state.join("sandbox")));
        found.extend(entries(&state.join("blobs/tmp")));
    }
    found
}

/// Control groups of these processes.
pub fn groups(pids: &[u32]) -> Vec<String> {
    let output = Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", "kiln-*-*"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |path: &str| Path::new(path).file_name()?.to_str()?.split('-').nth(1)?.parse::<u32>().ok();
    text.lines().filter(|path| of(path).is_some_and(|pid| pids.contains(&pid))).map(str::to_owned).collect()
}

/// Processes that refer to a directory in their command line, their variables, or a mount that they see.
pub fn processes_and_mounts(dir: &Path) -> Vec<String> {
    let name = dir.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for process in entries(Path::new("/proc")) {
        for file in ["cmdline", "environ", "mountinfo"] {
            let Ok(content) = std::fs::read(process.join(file)) else { continue };
            if String::from_utf8_lossy(&content).contains(&name) {
                found.push(format!("{} in {file}", process.display()));
            }
        }
    }
    found
}
