//! Ruby: a `Gemfile` with its lock.
//!
//! The layer holds the gems under `vendor/bundle`; the archive is the application with them.

use std::collections::BTreeMap;

use super::{
    Detected, Error, Identity,
    found::{artifact, compile_step, fetch_step, strings},
    staging::{OUT, move_tree},
    tree,
};
use crate::plan::{ArtifactKind, Source};

/// A Ruby application says neither its name nor its version; a gem does in its `.gemspec`.
pub(super) fn identity(source: &dyn Source) -> Identity {
    let spec = source.paths().iter().find(|p| p.ends_with(".gemspec") && !p.contains('/'));
    let text = spec.and_then(|path| tree::text(source, path)).unwrap_or_default();
    let field = |key: &str| {
        let line = text.lines().find(|l| l.split('=').next().is_some_and(|left| left.trim().ends_with(key)))?;
        Some(line.split_once('=')?.1.trim().trim_end_matches(".freeze").trim_matches(['"', '\'']).to_owned())
    };
    let literal = |value: &String| value.starts_with(|c: char| c.is_ascii_alphanumeric()) && !value.contains("::");
    Identity { name: field(".name"), version: field(".version").filter(literal) }
}

/// A Ruby project in the root of the tree.
pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let Some(gemfile) = tree::text(source, "Gemfile") else { return Ok(None) };
    let wanted = gems(&gemfile);
    let lock = match tree::text(source, "Gemfile.lock") {
        Some(lock) => lock,
        None => {
            return Err(Error::MissingLock {
                manifest: "Gemfile".into(),
                lock: "Gemfile.lock".into(),
                command: "bundle lock".into(),
            });
        }
    };
    let dependencies = lock.split("\nDEPENDENCIES\n").nth(1).unwrap_or_default();
    let locked = |gem: &str| dependencies.lines().any(|l| l.trim().split([' ', '!']).next() == Some(gem));
    if let Some(gem) = wanted.iter().find(|gem| !locked(gem)) {
        return Err(Error::StaleLock {
            lock: "Gemfile.lock".into(),
            fact: format!("`Gemfile` names the gem `{gem}`, which it lacks"),
            command: "bundle lock".into(),
        });
    }
    let mut key = strings(["Gemfile", "Gemfile.lock"]);
    key.extend(tree::all_of(source, &[".ruby-version", ".tool-versions"]));
    let specs = tree::named(source, |name| name.ends_with(".gemspec"));
    if !specs.is_empty() {
        // A specification usually reads the version from this file.
        key.extend(tree::named(source, |name| name == "version.rb"));
    }
    key.extend(specs);
    let unversioned = key.iter().filter(|p| !p.starts_with('.')).cloned().collect();
    let env: BTreeMap<String, String> = [
        ("BUNDLE_APP_CONFIG", "/build/.kiln/bundle"),
        ("BUNDLE_DEPLOYMENT", "true"),
        ("BUNDLE_PATH", "/build/vendor/bundle"),
        ("BUNDLE_WITHOUT", "development:test"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    let run = "bundle install --jobs 4 --retry 3\nmkdir -p vendor/bundle\n\
               # logs and downloads, which differ from one run to the next\n\
               find vendor/bundle \\( -name gem_make.out -o -name mkmf.log -o -name '*.gem' \\) -delete";
    let mut deps = fetch_step("deps", "installs the gems that `Gemfile.lock` names", run);
    (deps.inputs, deps.unversioned, deps.env) = (key, unversioned, env.clone());
    (deps.outputs, deps.tools) = (strings(["vendor/bundle"]), strings(["ruby", "bundle", "cc"]));

    let assets = tree::has(source, "config/application.rb")
        && tree::has(source, "Rakefile")
        && tree::has_directory(source, "app/assets");
    let precompile =
        if assets { "SECRET_KEY_BASE_DUMMY=1 RAILS_ENV=production bundle exec rake assets:precompile\n" } else { "" };
    let why = if assets { "compiles the assets and bundles the application" } else { "bundles the application" };
    let mut bundle = compile_step("bundle", why, format!("{precompile}{}", move_tree(&[])));
    (bundle.needs, bundle.env, bundle.outputs) = (strings(["deps"]), env, strings([OUT]));
    bundle.tools = strings(["ruby", "bundle"]);
    let identity = identity(source);
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    Ok(Some(Detected {
        language: "ruby (bundler)".into(),
        because: strings(["`Gemfile` names its gems", "`Gemfile.lock` locks them"]).into_iter().collect(),
        identity,
        steps: vec![deps, bundle],
        artifacts: vec![artifact(&name, ArtifactKind::Archive, "bundle", &[(OUT, ".")])],
        notes: Vec::new(),
    }))
}

/// The gems that a `Gemfile` names outright; what stands under a condition counts as well.
fn gems(gemfile: &str) -> Vec<String> {
    let lines = gemfile.lines().filter_map(|line| line.trim().strip_prefix("gem"));
    lines
        .filter(|rest| rest.starts_with([' ', '(']))
        .filter_map(|rest| rest.trim_start_matches([' ', '(']).split(['"', '\'']).nth(1).map(str::to_owned))
        .collect()
}
