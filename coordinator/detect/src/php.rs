//! PHP: `composer.json` with `composer.lock`.
//!
//! The layer has the packages in `vendor`, without an autoloader, which needs the sources; the bundle writes it. Packages of the
//! tree (path repositories) are linked unless the project wants copies, so their sources are no inputs of the layer.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Detected, Error, Identity,
    found::{artifact, compile_step, fetch_step, strings},
    staging::{OUT, move_tree},
    tree,
};
use kiln_plan::{ArtifactKind, Source, Step};

const MANIFEST: &str = "composer.json";
const LOCK: &str = "composer.lock";
/// Writes the lock file without installing.
/// Older versions of Composer name the autoloader's classes at random, unless the project names them. As newer ones do, this follows the lock file.
const SUFFIX: &str = "composer config --global autoloader-suffix \"$(cat composer.json composer.lock 2>/dev/null | sha256sum | cut -c 1-32)\"\n";
const RELOCK: &str = "composer update --no-install";

/// The name and version in the manifest.
pub(super) fn identity(source: &dyn Source) -> Identity {
    tree::json(source, MANIFEST).ok().flatten().map(|root| stated(&root)).unwrap_or_default()
}

fn stated(root: &Value) -> Identity {
    let field = |key: &str| root.get(key).and_then(Value::as_str).map(str::to_owned);
    let name = field("name").map(|name| name.rsplit('/').next().unwrap_or_default().to_owned());
    Identity { name, version: field("version") }
}

/// The range of PHP's versions that the project allows.
pub(super) fn range(source: &dyn Source) -> Option<String> {
    let root = tree::json(source, MANIFEST).ok()??;
    root.get("require")?.get("php")?.as_str().map(str::to_owned)
}

/// The file that starts an application, if the project is one.
pub(super) fn application(source: &dyn Source) -> Option<&'static str> {
    tree::first_of(source, &["artisan", "bin/console", "index.php", "public/index.php", "web/index.php"])
}

/// Detects a PHP project in the root of the tree.
pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let Some(root) = tree::json(source, MANIFEST)? else { return Ok(None) };
    let wanted = packages(&root, "require");
    let lock = tree::json(source, LOCK)?;
    let Some(lock) = lock.or_else(|| wanted.is_empty().then_some(Value::Null)) else {
        return Err(Error::MissingLock { manifest: MANIFEST.into(), lock: LOCK.into(), command: RELOCK.into() });
    };
    let locked = locked(&lock);
    if let Some(name) = wanted.iter().find(|name| !locked.iter().any(|(known, _)| known == *name)) {
        return Err(Error::StaleLock {
            lock: LOCK.into(),
            fact: format!("`{MANIFEST}` requires `{name}`, which it lacks"),
            command: format!("{RELOCK} {name}"),
        });
    }
    let mut because = vec![format!("`{MANIFEST}` is a package")];
    because.push(match wanted.is_empty() {
        true => "it requires no packages".to_owned(),
        false => format!("`{LOCK}` locks what it requires"),
    });
    let vendor = vendor(&root);
    let deps = if wanted.is_empty() { None } else { Some(deps(source, &root, &locked, &vendor, true)?) };
    let bundle = bundle(&root, deps.as_ref());
    let identity = stated(&root);
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    Ok(Some(Detected {
        language: "php (composer)".into(),
        because,
        identity,
        steps: deps.into_iter().chain([bundle]).collect(),
        artifacts: vec![artifact(&name, ArtifactKind::Archive, "bundle", &[(OUT, ".")])],
        notes: Vec::new(),
    }))
}

/// The packages that a table requires. PHP itself, its extensions and libraries are part of the system.
fn packages(root: &Value, table: &str) -> Vec<String> {
    let names = root.get(table).and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.clone());
    // A virtual package of Composer has no `/` in its name either.
    names.filter(|name| name.contains('/')).collect()
}

/// Names and entries of the locked packages; those that others provide or replace count, without an entry.
fn locked(lock: &Value) -> Vec<(String, Option<&Value>)> {
    let list = |key: &str| lock.get(key).and_then(Value::as_array).into_iter().flatten();
    let mut found = Vec::new();
    for package in list("packages") {
        let name = package.get("name").and_then(Value::as_str).unwrap_or_default();
        found.push((name.to_owned(), Some(package)));
        for table in ["provide", "replace"] {
            let names = package.get(table).and_then(Value::as_object).into_iter().flatten();
            found.extend(names.map(|(name, _)| (name.clone(), None)));
        }
    }
    found
}

/// Where Composer puts packages.
fn vendor(root: &Value) -> String {
    let configured = root.get("config").and_then(|config| config.get("vendor-dir")).and_then(Value::as_str);
    configured.and_then(|path| tree::join("", path)).filter(|path| !path.is_empty()).unwrap_or_else(|| "vendor".into())
}

/// The layer, with or without what only developers need.
fn deps(
    source: &dyn Source,
    root: &Value,
    locked: &[(String, Option<&Value>)],
    vendor: &str,
    production: bool,
) -> Result<Step, Error> {
    let flag = if production { " --no-dev" } else { "" };
    let run = format!(
        "composer install{flag} --no-autoloader --no-scripts --no-progress --prefer-dist\nmkdir -p {}\n",
        tree::shell_word(vendor)
    );
    let mut step = fetch_step("deps", "installs what `composer.lock` names; keyed by it and `composer.json`", run);
    step.inputs = strings([MANIFEST, LOCK]);
    step.unversioned = strings([MANIFEST]);
    for package in locked.iter().filter_map(|(_, package)| *package) {
        let field = |key: &str| package.get("dist").and_then(|dist| dist.get(key)).and_then(Value::as_str);
        let Some(url) = field("url").filter(|_| field("type") == Some("path")) else { continue };
        let name = package.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let path = tree::join("", url).filter(|path| tree::has(source, &format!("{path}/{MANIFEST}")));
        let Some(path) = path else {
            return Err(Error::LocalDependency { manifest: MANIFEST.into(), name, path: url.to_owned() });
        };
        step.inputs.push(if is_copied(package) { path } else { format!("{path}/{MANIFEST}") });
    }
    let archives = root.get("repositories").into_iter().flat_map(|all| match all {
        Value::Array(list) => list.iter().collect::<Vec<_>>(),
        Value::Object(table) => table.values().collect(),
        _ => Vec::new(),
    });
    for repository in archives.filter(|one| one.get("type").and_then(Value::as_str) == Some("artifact")) {
        let path = repository.get("url").and_then(Value::as_str).and_then(|url| tree::join("", url));
        step.inputs.extend(path.filter(|path| tree::has_directory(source, path)));
    }
    (step.env, step.tools, step.outputs) = (environment(root), strings(["php", "composer"]), vec![vendor.to_owned()]);
    Ok(step)
}

/// Whether a package of the tree is copied. Composer links it unless its repository says otherwise.
fn is_copied(package: &Value) -> bool {
    package.get("transport-options").and_then(|options| options.get("symlink")).and_then(Value::as_bool) == Some(false)
}

fn bundle(root: &Value, deps: Option<&Step>) -> Step {
    let script = |name: &str| root.get("scripts").is_some_and(|scripts| scripts.get(name).is_some());
    // Composer runs the scripts of the autoloader's event itself.
    let mut run = format!("{SUFFIX}composer dump-autoload --no-dev --optimize\n");
    if script("post-install-cmd") {
        run.push_str("composer run-script --no-dev post-install-cmd\n");
    }
    if script("build") {
        run.push_str("composer run-script --no-dev build\n");
    }
    run.push_str(&move_tree(&[]));
    let why = if script("build") {
        "runs the project's `build`, and bundles it"
    } else {
        "bundles the project with its packages"
    };
    let mut bundle = compile_step("bundle", why, run);
    bundle.needs = deps.iter().map(|deps| deps.name.clone()).collect();
    (bundle.env, bundle.tools, bundle.outputs) = (environment(root), strings(["php", "composer"]), strings([OUT]));
    bundle
}

/// The layer and the command of the project's tests, if it has any.
pub(super) fn tests(source: &dyn Source, layer: &str) -> Option<(Option<Step>, String)> {
    let root = tree::json(source, MANIFEST).ok()??;
    let script = root.get("scripts").and_then(|scripts| scripts.get("test")).is_some();
    let phpunit = packages(&root, "require-dev").iter().any(|name| name == "phpunit/phpunit");
    let configured = tree::first_of(source, &["phpunit.xml", "phpunit.xml.dist", "phpunit.dist.xml"]).is_some();
    let has_tests = script || (phpunit && configured);
    if !has_tests {
        return None;
    }
    let lock = tree::json(source, LOCK).ok()?;
    let vendor = vendor(&root);
    let deps = lock.and_then(|mut lock| {
        let dev = lock.get("packages-dev").and_then(Value::as_array).cloned().unwrap_or_default();
        lock.get_mut("packages").and_then(Value::as_array_mut)?.extend(dev);
        deps(source, &root, &locked(&lock), &vendor, false).ok()
    });
    let deps = deps.map(|deps| Step { name: layer.to_owned(), why: "installs what the tests need too".into(), ..deps });
    let run = match script {
        true => "composer run-script test".to_owned(),
        false => format!("{}/bin/phpunit", tree::shell_word(&vendor)),
    };
    Some((deps, format!("composer dump-autoload\n{run}")))
}

/// Composer would ask git for the project's version, which steps do not see.
fn environment(root: &Value) -> BTreeMap<String, String> {
    let version = root.get("version").and_then(Value::as_str).unwrap_or("1.0.0").to_owned();
    let fixed = [
        ("COMPOSER_ALLOW_SUPERUSER", "1"),
        ("COMPOSER_CACHE_DIR", "/tmp/composer-cache"),
        ("COMPOSER_HOME", "/tmp/composer"),
        ("COMPOSER_NO_INTERACTION", "1"),
    ];
    let mut all: BTreeMap<String, String> = fixed.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    all.insert("COMPOSER_ROOT_VERSION".into(), version);
    all
}
