//! Checks the caches of steps: where they are, and that no output or input file is in one or the other way round.

use std::collections::BTreeMap;

use super::{Step, Target, below_sources, cache_target, is_writable_on_system};

/// Most caches of one step.
const MAX_CACHES: usize = 16;

/// A step cannot have these caches.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are too many.
    #[error("step `{step}` has {found} caches; expected at most {MAX_CACHES}: keep several directories in one cache")]
    TooMany {
        /// The step.
        step: String,
        /// How many it has.
        found: usize,
    },
    /// One is at a place where there can be none.
    #[error("step `{step}` has a cache at `{path}`, which {problem}")]
    Path {
        /// The step.
        step: String,
        /// The cache's path.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// One is in another one.
    #[error("step `{step}` has caches at `{first}` and `{second}`, one of which is in the other: keep the outer one")]
    Nested {
        /// The step.
        step: String,
        /// One path.
        first: String,
        /// The other.
        second: String,
    },
    /// One name stands for two directories.
    #[error(
        "step `{step}` has the cache `{key}` at `{first}` and at `{second}`: give each directory a `key` of its own"
    )]
    SharedKey {
        /// The step.
        step: String,
        /// The key.
        key: String,
        /// One path.
        first: String,
        /// The other.
        second: String,
    },
    /// One overlaps with what the step makes or is given.
    #[error(
        "step `{step}` has a cache at `{path}`, which overlaps with `{other}` of its `{key}`; what a cache has must not be part of a result, \
         so one of them has to go elsewhere"
    )]
    Overlap {
        /// The step.
        step: String,
        /// The cache's path.
        path: String,
        /// The key of the step that has the other path.
        key: &'static str,
        /// The other path.
        other: String,
    },
    /// A worker's own system is read-only there.
    #[error(
        "step `{step}` has a cache at `{path}`, but for target `{target}` it runs on a worker's own system, which is read-only there: choose a \
         path below the project, `~/` or `/tmp`, or set `image` of the step"
    )]
    ReadOnly {
        /// The step.
        step: String,
        /// The cache's path.
        path: String,
        /// The target.
        target: String,
    },
}

/// Whether one path equals the other or is above it.
fn overlap(a: &str, b: &str) -> bool {
    let under =
        |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    under(a, b) || under(b, a)
}

/// Checks the caches of a step by themselves.
pub(super) fn check(step: &Step) -> Result<(), Error> {
    let name = || step.name.clone();
    if step.caches.len() > MAX_CACHES {
        return Err(Error::TooMany { step: name(), found: step.caches.len() });
    }
    let (mut seen, mut keys) = (Vec::<(&String, String)>::new(), BTreeMap::new());
    for (path, cache) in &step.caches {
        let target = cache_target(path).map_err(|problem| Error::Path { step: name(), path: path.clone(), problem })?;
        if let Some((other, _)) = seen.iter().find(|(_, other)| overlap(other, &target)) {
            return Err(Error::Nested { step: name(), first: (*other).clone(), second: path.clone() });
        }
        if let Some(first) = keys.insert(&cache.key, path) {
            let (key, first) = (cache.key.clone(), String::clone(first));
            return Err(Error::SharedKey { step: name(), key, first, second: path.clone() });
        }
        if let Some(below) = below_sources(&target) {
            let plain = |path: &str| path.trim_start_matches("./").trim_end_matches('/').to_owned();
            let outputs = step.outputs.iter().map(|output| ("outputs", output));
            let directory = step.working_directory.iter().map(|path| ("working_directory", path));
            let inside = |outer: &str, inner: &str| inner == outer || inner.starts_with(&format!("{outer}/"));
            let found = outputs
                .chain(step.files.keys().map(|file| ("files", file)))
                .find(|(_, other)| overlap(below, &plain(other)));
            // A cache may well be in the directory that a step works in.
            let found = found.or_else(|| directory.into_iter().find(|(_, other)| inside(below, &plain(other))));
            if let Some((key, other)) = found {
                return Err(Error::Overlap { step: name(), path: path.clone(), key, other: other.clone() });
            }
        }
        seen.push((path, target));
    }
    Ok(())
}

/// Checks that a step's caches can be where they are on a target.
pub(super) fn check_on(step: &Step, target: &Target) -> Result<(), Error> {
    if target.image_of(step).is_some() {
        return Ok(());
    }
    let read_only = |path: &&String| cache_target(path).is_ok_and(|target| !is_writable_on_system(&target));
    match step.caches.keys().find(read_only) {
        None => Ok(()),
        Some(path) => Err(Error::ReadOnly { step: step.name.clone(), path: path.clone(), target: target.name.clone() }),
    }
}
