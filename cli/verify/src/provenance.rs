//! What provenance states: SLSA v1, of the build type that `coordinator/artifacts/BUILDTYPE.md` describes.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::Value;

use crate::statements::Proven;

/// The type of the statement.
pub(crate) const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// A statement of provenance. What it lacks is empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Provenance<'a>(pub(crate) &'a Value);

/// Where the sources are from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source<'a> {
    pub(crate) repository: &'a str,
    pub(crate) commit: &'a str,
    pub(crate) branch: &'a str,
    pub(crate) is_dirty: bool,
    /// Whether the farm fetched the commit itself.
    pub(crate) is_verified: bool,
}

impl<'a> Provenance<'a> {
    pub(crate) fn of(proven: &'a Proven) -> Self {
        Self(&proven.statement.predicate)
    }

    fn text(self, pointer: &str) -> &'a str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    fn list(self, pointer: &str) -> &'a [Value] {
        self.0.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn builder(self) -> &'a str {
        self.text("/runDetails/builder/id")
    }

    /// What it was built for: one platform, or those of an index.
    pub(crate) fn platforms(self) -> Vec<&'a str> {
        let several = self.list("/buildDefinition/externalParameters/platforms").iter().filter_map(Value::as_str);
        let several: Vec<&str> = several.collect();
        if several.is_empty() { vec![self.text("/buildDefinition/externalParameters/platform")] } else { several }
    }

    /// When the build ended.
    pub(crate) fn finished(self) -> Option<SystemTime> {
        humantime::parse_rfc3339(self.text("/runDetails/metadata/finishedOn")).ok()
    }

    pub(crate) fn dependencies(self) -> &'a [Value] {
        self.list("/buildDefinition/resolvedDependencies")
    }

    /// The checkout that was built, if it was one.
    pub(crate) fn source(self) -> Option<Source<'a>> {
        let text = |value: &'a Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let commit = |value: &'a Value| Some(text(value, "/digest/gitCommit")).filter(|commit| !commit.is_empty());
        let (found, commit) = self.dependencies().iter().find_map(|one| Some((one, commit(one)?)))?;
        let uri = text(found, "/uri");
        let uri = uri.strip_prefix("git+").unwrap_or(uri);
        let repository = uri.strip_suffix(commit).and_then(|uri| uri.strip_suffix('@')).unwrap_or(uri);
        Some(Source {
            repository,
            commit,
            branch: text(found, "/annotations/branch"),
            // What does not say that it is clean is not.
            is_dirty: found.pointer("/annotations/dirty").and_then(Value::as_bool).unwrap_or(true),
            is_verified: text(found, "/annotations/assertedBy") == "farm",
        })
    }

    /// The symbolic links of the artifact, with what they lead to; `None` of a farm that did not cover links.
    pub(crate) fn links(self) -> Option<BTreeMap<&'a str, &'a str>> {
        let links = self.0.get("kiln_links")?.as_object()?.iter();
        Some(links.map(|(path, target)| (path.as_str(), target.as_str().unwrap_or_default())).collect())
    }

    /// The steps that were not made again with the same result: name, and what came of it. `None`: there are no steps.
    pub(crate) fn not_reproduced(self) -> Option<Vec<(&'a str, &'a str)>> {
        let steps = self.list("/runDetails/byproducts");
        let text = |value: &'a Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        let outcome = |step| text(step, "/annotations/reproduced/outcome").unwrap_or("not-run");
        let all = steps.iter().map(|step| (text(step, "/name").unwrap_or_default(), outcome(step)));
        (!steps.is_empty()).then(|| all.filter(|(_, outcome)| *outcome != "same").collect())
    }
}
