//! The surroundings of a project: the directory that limits its references, and the manifests in it.

use std::path::{Path, PathBuf};

use super::git;

/// How many levels above a project outside a repository it may refer to.
const LEVELS: usize = 3;
/// How many levels below a directory are searched for files.
const DEPTH: usize = 4;

/// The directory that a project's references never leave: its repository or, outside of one, a few levels up.
pub fn boundary(project: &Path) -> PathBuf {
    git::work_tree(project).unwrap_or_else(|| {
        let above = project.ancestors().skip(1).take(LEVELS).filter(|above| above.parent().is_some());
        above.last().unwrap_or(project).to_owned()
    })
}

/// The files with matching names in a directory and a few levels below it, relative to `boundary`. Hidden directories
/// and installed packages are skipped.
pub fn files_named(boundary: &Path, directory: &str, wanted: fn(&str) -> bool) -> Vec<String> {
    fn look(at: &Path, relative: &str, depth: usize, wanted: fn(&str) -> bool, found: &mut Vec<String>) {
        let Ok(entries) = std::fs::read_dir(at) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let (Some(name), Ok(kind)) = (name.to_str(), entry.file_type()) else { continue };
            let path = || if relative.is_empty() { name.to_owned() } else { format!("{relative}/{name}") };
            if kind.is_file() && wanted(name) {
                found.push(path());
            } else if kind.is_dir()
                && depth > 0
                && !name.starts_with('.')
                && !["node_modules", "target"].contains(&name)
            {
                look(&entry.path(), &path(), depth.saturating_sub(1), wanted, found);
            }
        }
    }
    let (mut found, at) = (Vec::new(), boundary.join(directory));
    match directory.rsplit('/').next() {
        Some(name) if at.is_file() && wanted(name) => found.push(directory.to_owned()),
        _ => look(&at, directory, DEPTH, wanted, &mut found),
    }
    found.sort();
    found
}
