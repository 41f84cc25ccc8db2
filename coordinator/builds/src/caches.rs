//! The caches of steps: which names they travel under with a lease. They are no part of any action.

use kiln_execution::ToolSpace;
use kiln_planner::plan::{Sharing, Step, Target, below_sources, cache_target};
use kiln_proto::digest::DigestFunction;
use kiln_proto::v1::{self, CacheName, CacheSharing};
use kiln_trees::tree::{Entry, Tree};

/// Whose caches a build uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    /// The project.
    pub(super) project: &'a str,
    /// The branch scope; empty: the base.
    pub(super) scope: &'a str,
}

impl Owner<'_> {
    /// A cache of a Dockerfile with its whole name. Without a namespace (`BUILDKIT_CACHE_MOUNT_NS`) it is the project's own.
    pub(super) fn of_dockerfile(&self, cache: &v1::CacheMount, target: &Target) -> v1::CacheMount {
        let mut cache = cache.clone();
        if let Some(name) = &mut cache.name {
            if let Some(id) = name.id.strip_prefix('/') {
                (name.id, name.project) = (id.to_owned(), self.project.to_owned());
            }
            name.platform = target.platform.to_string();
            name.scope = self.scope.to_owned();
        }
        cache
    }

    /// Where the build tools of steps in an environment keep what they find by keys of their own. A key is the tool's word, so a project has its
    /// own, and a scope only reads: whatever its steps make is everyone's result.
    pub(super) fn tools(&self, environment: &str) -> ToolSpace {
        let text = ["kiln.steps/1", environment, self.project].join("\0");
        let name = DigestFunction::Sha256.digest(text.as_bytes()).hex();
        ToolSpace { name, read_only: !self.scope.is_empty() }
    }

    /// The caches of a step on a system: a fingerprint of the workers' own, or an image with its digest.
    pub(super) fn of_step(&self, step: &Step, target: &Target, system: &str) -> Vec<v1::CacheMount> {
        let mount = |(path, cache): (&String, &kiln_planner::plan::Cache)| {
            let name = CacheName {
                project: self.project.to_owned(),
                id: cache.key.clone(),
                platform: target.platform.to_string(),
                environment: system.to_owned(),
                scope: self.scope.to_owned(),
                ..CacheName::default()
            };
            let sharing = match cache.sharing {
                Sharing::Shared => CacheSharing::CacheShared,
                Sharing::Private => CacheSharing::CachePrivate,
                Sharing::Locked => CacheSharing::CacheLocked,
            };
            // The planner has refused paths where there can be none.
            let target = cache_target(path).ok()?;
            Some(v1::CacheMount { target, name: Some(name), sharing: sharing.into() })
        };
        step.caches.iter().filter_map(mount).collect()
    }
}

/// Refuses a cache that would hide inputs of its step.
pub(super) fn check(step: &Step, inputs: &Tree) -> Result<(), String> {
    for path in step.caches.keys() {
        let target = cache_target(path).map_err(|problem| format!("the cache at `{path}` {problem}"))?;
        let Some(below) = below_sources(&target) else { continue };
        let what = match inputs.get(below) {
            None => match above(inputs, below) {
                None => continue,
                Some(file) => format!("is below the input file `{file}`"),
            },
            Some(Entry::Directory(_) | Entry::Sealed { .. }) => {
                "would hide the input files of that directory".to_owned()
            }
            Some(_) => "would hide that input file".to_owned(),
        };
        return Err(format!(
            "the cache at `{path}` {what}; put it elsewhere, or leave them out of the step's `inputs` (`\"!{below}\"`)"
        ));
    }
    Ok(())
}

/// The file or link that a path goes through.
fn above<'a>(inputs: &Tree, path: &'a str) -> Option<&'a str> {
    path.match_indices('/')
        .map(|(end, _)| &path[..end])
        .find(|above| matches!(inputs.get(above), Some(Entry::File { .. } | Entry::Symlink { .. })))
}
