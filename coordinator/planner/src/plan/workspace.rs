//! Determines which workspaces a directory belongs to, from the manifests at their root.
//!
//! Invariant: a directory with its own lock file or settings is not a member, whatever is above it.

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobSetBuilder};
use toml::Value;

use super::Source;
use kiln_detect::tree;
use kiln_detect::{self as detect, Language};
use kiln_plan::paths::join;

/// The manifests at a root, without a list of other files.
struct Manifests<'a>(&'a dyn Fn(&str) -> Option<Vec<u8>>);

impl Source for Manifests<'_> {
    fn paths(&self) -> &[String] {
        &[]
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        (self.0)(path)
    }
}

/// The languages whose manifest at the root, read by `read`, declares the directory `member` below it to be a workspace
/// member. `has` checks for files of the member.
pub(super) fn languages(
    read: &dyn Fn(&str) -> Option<Vec<u8>>,
    member: &str,
    has: &dyn Fn(&str) -> bool,
) -> BTreeSet<Language> {
    let root = &Manifests(read);
    let has_any = |names: &[&str]| names.iter().any(|name| has(name));
    let mut found = BTreeSet::new();
    if has("Cargo.toml") && cargo(root, member) {
        found.insert(Language::Rust);
    }
    if has("go.mod") && go(root, member) {
        found.insert(Language::Go);
    }
    let locks = ["package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock", "bun.lock", "bun.lockb"];
    if has("package.json") && !has_any(&locks) && detect::is_node_member(root, member) {
        found.insert(Language::Node);
    }
    if has_any(&["deno.json", "deno.jsonc"]) && !has("deno.lock") && detect::is_deno_member(root, member) {
        found.insert(Language::Deno);
    }
    if has("pyproject.toml") && !has("uv.lock") && uv(root, member) {
        found.insert(Language::Python);
    }
    let is_maven = || has("pom.xml") && detect::maven_modules(root).iter().any(|module| module == member);
    let is_gradle =
        || !has_any(&["settings.gradle", "settings.gradle.kts"]) && detect::gradle_project(root, member, has).is_some();
    if is_maven() || is_gradle() {
        found.insert(Language::Java);
    }
    found
}

fn cargo(root: &dyn Source, member: &str) -> bool {
    let manifest = tree::toml(root, "Cargo.toml").ok().flatten();
    let Some(workspace) = manifest.as_ref().and_then(|manifest| manifest.get("workspace")) else { return false };
    names(workspace.get("members"), member) && !names(workspace.get("exclude"), member)
}

fn go(root: &dyn Source, member: &str) -> bool {
    let Some(work) = tree::text(root, "go.work") else { return false };
    let words = work.split(|c: char| c.is_whitespace() || c == '(' || c == ')');
    words.map(|word| word.trim_matches('"')).any(|word| join("", word).as_deref() == Some(member))
}

fn uv(root: &dyn Source, member: &str) -> bool {
    let manifest = tree::toml(root, "pyproject.toml").ok().flatten();
    let workspace = manifest.as_ref().and_then(|manifest| manifest.get("tool")?.get("uv")?.get("workspace"));
    let Some(workspace) = workspace else { return false };
    names(workspace.get("members"), member) && !names(workspace.get("exclude"), member)
}

/// Whether a list of directories and globs matches a directory.
fn names(globs: Option<&Value>, directory: &str) -> bool {
    let globs = globs.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut builder = GlobSetBuilder::new();
    for glob in globs {
        let glob = glob.trim_start_matches("./").trim_end_matches('/');
        if let Ok(glob) = GlobBuilder::new(glob).literal_separator(true).build() {
            builder.add(glob);
        }
    }
    builder.build().is_ok_and(|set| set.is_match(directory))
}
