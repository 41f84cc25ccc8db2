//! Ruby: a `Gemfile` with its lock.
//!
//! The layer has the gems in `vendor/bundle`; the archive is the application with these and bundler's settings, so that
//! `bundle exec` finds them.

mod gemfile;
pub mod lock;

use std::collections::BTreeMap;

use lock::Lock;

use super::{
    Detected, Error, Identity,
    found::{artifact, compile_step, fetch_step, strings},
    staging::{OUT, move_tree},
    tree,
};
use kiln_plan::{ArtifactKind, Source, Step};

/// Where `bundle cache` stores gems.
const CACHE: &str = "vendor/cache";
const SPECS: (&str, &str) = (".kiln/specs.rb", include_str!("specs.rb"));
/// Configures bundler to find the archive's gems, wherever it is unpacked.
const SETTINGS: &str = "\
mkdir -p .kiln/out/.bundle
touch .kiln/out/.bundle/config
sed -i -e '/^BUNDLE_\\(PATH\\|DEPLOYMENT\\|WITHOUT\\):/d' .kiln/out/.bundle/config
printf 'BUNDLE_PATH: \"vendor/bundle\"\\nBUNDLE_DEPLOYMENT: \"true\"\\nBUNDLE_WITHOUT: \"development:test\"\\n' \
    >> .kiln/out/.bundle/config
";

/// A Ruby application has no declared name or version; a gem has them in its `.gemspec`.
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

/// The file that starts an application, if the project is one.
pub(super) fn application(source: &dyn Source) -> Option<&'static str> {
    tree::first_of(source, &["config.ru", "config/application.rb", "bin/rails"])
}

/// Detects a Ruby project in the root of the tree.
pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let Some(gemfile) = tree::text(source, "Gemfile") else { return Ok(None) };
    let wanted = gemfile::gems(&gemfile);
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
    let named = Lock::read(&lock);
    let specs = specs(source, &named);
    let mut key = strings(["Gemfile", "Gemfile.lock"]);
    key.extend(tree::all_of(source, &[".ruby-version", ".tool-versions"]));
    key.extend(gemfile::reads(source));
    let cached = tree::has_directory(source, CACHE);
    if cached {
        key.push(CACHE.to_owned());
    }
    let env: BTreeMap<String, String> = [
        ("BUNDLE_APP_CONFIG", "/build/.kiln/bundle"),
        ("BUNDLE_DEPLOYMENT", "true"),
        ("BUNDLE_PATH", "/build/vendor/bundle"),
        ("BUNDLE_WITHOUT", "development:test"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    let local = if cached && all_cached(source, &named) { " --local" } else { "" };
    let take = if specs.is_some() { "cp -a .kiln/specs/. .\n" } else { "" };
    let run = format!(
        "{take}bundle install{local} --jobs 4 --retry 3\nmkdir -p vendor/bundle\n\
         # logs and downloads, which differ from one run to the next\n\
         find vendor/bundle \\( -name gem_make.out -o -name mkmf.log -o -path '*/cache/*.gem' \\) -delete"
    );
    let mut deps = fetch_step("deps", "installs the gems that `Gemfile.lock` names", run);
    (deps.inputs, deps.unversioned, deps.env) = (key, strings(["Gemfile.lock"]), env.clone());
    (deps.outputs, deps.tools) = (strings(["vendor/bundle"]), strings(["ruby", "bundle", "cc"]));
    deps.needs = specs.iter().map(|step| step.name.clone()).collect();
    if named.git {
        deps.tools.push("git".to_owned());
    }

    let assets = tree::has(source, "config/application.rb")
        && tree::has(source, "Rakefile")
        && tree::has_directory(source, "app/assets");
    let precompile =
        if assets { "SECRET_KEY_BASE_DUMMY=1 RAILS_ENV=production bundle exec rake assets:precompile\n" } else { "" };
    let why = if assets { "compiles the assets and bundles the application" } else { "bundles the application" };
    let mut bundle = compile_step("bundle", why, format!("{precompile}{}{SETTINGS}", move_tree(&[])));
    (bundle.needs, bundle.env, bundle.outputs) = (strings(["deps"]), env, strings([OUT]));
    bundle.tools = strings(["ruby", "bundle"]);
    let identity = identity(source);
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    Ok(Some(Detected {
        language: "ruby (bundler)".into(),
        because: strings(["`Gemfile` names its gems", "`Gemfile.lock` locks them"]).into_iter().collect(),
        identity,
        steps: specs.into_iter().chain([deps, bundle]).collect(),
        artifacts: vec![artifact(&name, ArtifactKind::Archive, "bundle", &[(OUT, ".")])],
        notes: Vec::new(),
    }))
}

/// A step that evaluates the specifications of the tree's own gems, which may read any file, and writes the results, so
/// that the layer does not depend on the sources.
fn specs(source: &dyn Source, lock: &Lock) -> Option<Step> {
    let below = |directory: &String| tree::join("", directory).map(|d| if d.is_empty() { d } else { format!("{d}/") });
    let directories: Vec<String> = lock.directories.iter().filter_map(below).collect();
    let found = tree::named(source, |name| name.ends_with(".gemspec"));
    let found = found.iter().filter(|path| !path.starts_with("vendor/bundle/") && !path.starts_with("vendor/cache/"));
    // Bundler searches to the same depth.
    let reached = |path: &&String| {
        directories.iter().any(|d| path.strip_prefix(d.as_str()).is_some_and(|p| p.matches('/').count() <= 2))
    };
    let found: Vec<String> = found.filter(reached).map(|path| tree::shell_word(path)).collect();
    if found.is_empty() {
        return None;
    }
    let bare: Vec<String> = lock.bare.iter().map(|name| tree::shell_word(name)).collect();
    let run = format!("ruby {} {} -- {}\n", SPECS.0, bare.join(" "), found.join(" "));
    let mut step = Step::new("specs", run);
    step.why = "evaluates the specifications of the tree's own gems".into();
    step.files.insert(SPECS.0.into(), SPECS.1.into());
    (step.outputs, step.tools) = (strings([".kiln/specs"]), strings(["ruby"]));
    Some(step)
}

/// Whether `vendor/cache` contains every registry gem in the lock file.
fn all_cached(source: &dyn Source, lock: &Lock) -> bool {
    let there = |name: &str| {
        source.paths().iter().any(|path| {
            let file = path.strip_prefix("vendor/cache/").and_then(|f| f.strip_suffix(".gem"));
            let version = file.and_then(|f| f.strip_prefix(name)).and_then(|f| f.strip_prefix('-'));
            version.is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    lock.registry.iter().all(|name| there(name))
}
