//! Determines which part of a local checkout a build of a project in it needs.

use std::path::{Path, PathBuf};

use kiln_planner::plan::context::{self, Files};
use kiln_scan::around;

/// The part of the disk that a build sees.
#[derive(Debug, Clone)]
pub struct Context {
    /// The root of the tree, an absolute path.
    pub root: PathBuf,
    /// The project's directory in the tree; empty for the root.
    pub project: String,
    /// The paths that belong to the tree, relative to the root; empty for all.
    pub parts: Vec<String>,
}

/// The context of the project in this absolute directory.
pub fn of(project: &Path) -> Context {
    let alone = || Context { root: project.to_owned(), project: String::new(), parts: Vec::new() };
    let boundary = around::boundary(project);
    let Some(relative) = project.strip_prefix(&boundary).ok().and_then(Path::to_str) else { return alone() };
    let found = context::context(
        &Files {
            read: &|path| std::fs::read(boundary.join(path)).ok(),
            exists: &|path| boundary.join(path).exists(),
            manifests: &|directory| around::files_named(&boundary, directory, context::is_manifest),
        },
        relative,
    );
    let root = if found.root.is_empty() { boundary } else { boundary.join(&found.root) };
    Context { root, project: found.project, parts: found.parts }
}
