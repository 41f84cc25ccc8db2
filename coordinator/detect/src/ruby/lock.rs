//! Parses `Gemfile.lock` section by section.
//!
//! Invariant: a gem of the tree is never in `bare` if something outside the tree's gems requires it by version.

use std::collections::BTreeSet;

/// The contents of a lock file.
#[derive(Debug, Default)]
pub struct Lock {
    /// Directories of the tree that contain gems.
    pub directories: Vec<String>,
    /// The gems in them.
    pub own: BTreeSet<String>,
    /// Those whose version may be removed, because only each other requires them.
    pub bare: BTreeSet<String>,
    /// Gems from a registry.
    pub registry: BTreeSet<String>,
    /// Whether gems come from git.
    pub git: bool,
}

impl Lock {
    /// Reads a lock file; unknown lines are ignored.
    pub fn read(text: &str) -> Self {
        let mut lock = Lock::default();
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        let mut section = "";
        for line in text.lines() {
            let depth = line.len().saturating_sub(line.trim_start_matches(' ').len());
            let (name, version) = entry(line);
            match (section, depth) {
                (_, 0) => section = line.trim(),
                ("PATH", 2) => lock.directories.extend(line.trim().strip_prefix("remote: ").map(str::to_owned)),
                ("GIT", 2) => lock.git = true,
                ("PATH", 4) => {
                    lock.own.insert(name.to_owned());
                }
                ("GEM", 4) => {
                    lock.registry.insert(name.to_owned());
                }
                ("GEM" | "GIT", 6) | ("DEPENDENCIES", 2) if version.is_some() => {
                    wanted.insert(name.to_owned());
                }
                _ => {}
            }
        }
        lock.bare = lock.own.difference(&wanted).cloned().collect();
        lock
    }
}

/// The parts of `name (version)`; a trailing `!` marks a gem with an explicit source.
pub fn entry(line: &str) -> (&str, Option<&str>) {
    let line = line.trim().trim_end_matches('!');
    match line.split_once(" (") {
        Some((name, rest)) => (name, rest.split(')').next()),
        None => (line, None),
    }
}
