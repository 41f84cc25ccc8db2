//! The caches that a step's build tools have: where their entries are, and the settings with which the tools find them.
//!
//! Invariant: the settings are the same in every step on every farm, and none that a step has itself is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_gocache::{Shown, Sources, digest_of, read_by_others};
use parking_lot::Mutex;

use super::goahead::GoAhead;

/// The port of a step's loopback at which its tools find their caches: below those that systems give out, and nobody's.
pub(super) const PORT: u16 = 18981;
/// The same as an address, for what reads it from there.
const ADDRESS: &str = "http://127.0.0.1:18981/cache";
/// The variable with that address, for tools whose configuration is a file of the project.
const VARIABLE: &str = "KILN_TOOL_CACHE";
/// How long a tool waits for the farm's answer for one entry.
pub(super) const WAIT: Duration = Duration::from_secs(1);
/// How long a farm that did not answer in time is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(20);

/// A tool's settings.
struct Settings {
    /// What the names of variables begin with by which a step says that it has a cache of its own.
    own: &'static [&'static str],
    /// The variables.
    values: &'static [(&'static str, &'static str)],
}

/// The tools whose settings are variables. Tokens are not looked at: a tool without one does not ask.
const TOOLS: [Settings; 4] = [
    Settings {
        own: &["CCACHE_REMOTE_", "CCACHE_SECONDARY_STORAGE"],
        values: &[("CCACHE_REMOTE_STORAGE", "http://127.0.0.1:18981/cache/ccache")],
    },
    Settings {
        own: &["NX_SELF_HOSTED_REMOTE_CACHE_", "NX_CLOUD_ACCESS_TOKEN"],
        values: &[
            ("NX_SELF_HOSTED_REMOTE_CACHE_SERVER", "http://127.0.0.1:18981/cache/nx"),
            ("NX_SELF_HOSTED_REMOTE_CACHE_ACCESS_TOKEN", "step"),
        ],
    },
    // It uses one cache only: a directory that a step names is among its outputs, or is a cache mount.
    Settings { own: &["SCCACHE_"], values: &[("SCCACHE_WEBDAV_ENDPOINT", "http://127.0.0.1:18981/cache/sccache")] },
    Settings {
        own: &["TURBO_API", "TURBO_TOKEN", "TURBO_TEAM", "TURBO_CACHE", "TURBO_REMOTE_"],
        values: &[("TURBO_API", "http://127.0.0.1:18981/cache/turbo"), ("TURBO_TOKEN", "step"), ("TURBO_TEAM", "kiln")],
    },
];

/// Where the entries of a step's build tools are.
#[derive(Debug)]
pub(super) struct Tools {
    /// Go's, on this worker's disk, if it can show them to steps.
    pub(super) shown: Option<Shown>,
    pub(super) read_only: bool,
    pub(super) beside: Beside,
    pub(super) patience: Arc<Patience>,
    pub(super) ahead: GoAhead,
}

impl Tools {
    pub(super) fn new(shown: Option<Shown>, read_only: bool, beside: Beside) -> Self {
        Self { shown, read_only, beside, patience: Arc::default(), ahead: GoAhead::default() }
    }
}

/// Where the files are that C compilers and assemblers read without `go` knowing.
#[derive(Debug, Clone)]
pub(super) enum Beside {
    /// Among the step's inputs; all others are its environment's.
    Build,
    /// In the root that the step changes: those that it had at its beginning and what stands for them, if that is known.
    Root(Option<([u8; 32], Arc<BTreeSet<PathBuf>>)>),
}

impl Beside {
    /// Those of a root, which is walked.
    pub(super) fn in_root(root: &(dyn Sources + Sync)) -> Self {
        let find = || {
            let files = read_by_others(root, Path::new("/"))?;
            Ok::<_, std::io::Error>((digest_of(root, &files)?, Arc::new(files)))
        };
        Self::Root(
            tokio::task::block_in_place(find)
                .inspect_err(|error| tracing::debug!(%error, "cannot tell a root's files apart"))
                .ok(),
        )
    }
}

/// Whether the farm is asked: one that did not answer in time is left alone for a while.
#[derive(Debug, Default)]
pub(super) struct Patience(Mutex<Option<Instant>>);

impl Patience {
    /// Whether the farm is left alone at the moment.
    pub(super) fn is_over(&self) -> bool {
        self.0.lock().is_some_and(|late| late.elapsed() < LEFT_ALONE)
    }

    /// The farm did not answer in time.
    pub(super) fn was_tried(&self) {
        *self.0.lock() = Some(Instant::now());
    }
}

/// Adds the settings of tools for which the step has none of its own.
pub(super) fn add_settings(environment: &mut BTreeMap<String, String>) {
    for tool in &TOOLS {
        let has_own = environment.keys().any(|name| tool.own.iter().any(|own| name.starts_with(own)));
        if !has_own {
            let values = tool.values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            environment.extend(values);
        }
    }
    environment.insert(VARIABLE.to_owned(), ADDRESS.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_sets_itself_stays_and_all_addresses_are_the_ports() {
        let own = BTreeMap::from([
            ("SCCACHE_DIR".to_owned(), "/build/cache".to_owned()),
            ("TURBO_TOKEN".to_owned(), "mine".to_owned()),
            ("CCACHE_DIR".to_owned(), "/build/ccache".to_owned()),
        ]);
        let mut environment = own.clone();
        add_settings(&mut environment);
        assert!(own.iter().all(|(name, value)| environment[name] == *value), "{environment:?}");
        let has = |name: &str| environment.contains_key(name);
        assert!(!has("SCCACHE_WEBDAV_ENDPOINT") && !has("TURBO_API"), "{environment:?}");
        assert!(has("CCACHE_REMOTE_STORAGE") && has("NX_SELF_HOSTED_REMOTE_CACHE_SERVER"), "{environment:?}");
        let all = TOOLS.iter().flat_map(|tool| tool.values).map(|(_, value)| *value).chain([ADDRESS]);
        let addresses: Vec<&str> = all.filter(|value| value.contains("://")).collect();
        assert_eq!(addresses.len(), TOOLS.len() + 1);
        assert!(addresses.iter().all(|address| address.starts_with(&format!("http://127.0.0.1:{PORT}/cache"))));
    }
}
