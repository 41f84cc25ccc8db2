//! Pipenv: a `Pipfile` with its `Pipfile.lock`.
//!
//! The lock file has everything that pip needs, so workers need no Pipenv. Invariant: what comes from an index is installed in
//! the locked version, with one of the locked hashes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    super::{Error, found::strings, tree},
    PACKAGES, Project,
    layers::{Layer, PIP_INSTALL},
    local::Local,
};
use kiln_plan::Source;

pub(super) const LOCK: &str = "Pipfile.lock";
const MANIFEST: &str = "Pipfile";
/// The locked packages from indices, as pip reads them.
const LOCKED: &str = ".kiln/locked.txt";
/// Those from repositories, which have no hashes.
const REPOSITORIES: &str = ".kiln/repositories.txt";

/// What a section of the lock file asks for.
#[derive(Default)]
struct Section {
    locked: String,
    repositories: String,
    directories: Vec<(String, Vec<String>)>,
    archives: Vec<String>,
}

impl Project<'_> {
    pub(super) fn pipenv(&self) -> Result<Layer, Error> {
        let lock = lock(self.source)?;
        let section = section(self.source, &lock, &["default"])?;
        let mut locals = Vec::new();
        for (directory, extras) in &section.directories {
            locals.push(Local::read(self.source, directory, extras.clone())?);
        }
        let mut layer = Layer {
            tool: "pipenv",
            because: vec![format!("`{MANIFEST}` names what it needs"), format!("`{LOCK}` locks it")],
            named: format!("`{LOCK}`"),
            inputs: section.archives.clone(),
            tools: strings(["python3"]),
            sources: true,
            ..Layer::default()
        };
        layer.run = install(&lock, &section, PACKAGES, &mut layer.files);
        if layer.files.contains_key(REPOSITORIES) {
            layer.tools.push("git".to_owned());
        }
        layer.locals = locals;
        Ok(layer)
    }
}

/// The version of Python that a `Pipfile` requires.
pub(crate) fn python(source: &dyn Source) -> Option<String> {
    let requires = tree::toml(source, MANIFEST).ok()??.get("requires")?.clone();
    let version = requires.get("python_full_version").or_else(|| requires.get("python_version"))?.as_str()?;
    Some(version.to_owned())
}

/// The command and the files that install what tests need too, if the lock file has pytest.
pub(crate) fn for_tests(source: &dyn Source, packages: &str) -> Option<(String, BTreeMap<String, String>)> {
    let lock = lock(source).ok()?;
    lock.get("develop")?.get("pytest")?;
    let section = section(source, &lock, &["default", "develop"]).ok()?;
    let mut files = BTreeMap::new();
    let run = install(&lock, &section, packages, &mut files);
    Some((format!("mkdir -p {packages}\n{run}"), files))
}

/// The lock file, if it is that of the manifest.
fn lock(source: &dyn Source) -> Result<Value, Error> {
    let manifest = tree::toml(source, MANIFEST)?.unwrap_or_default();
    let Some(lock) = tree::json(source, LOCK)? else {
        return Err(Error::MissingLock { manifest: MANIFEST.into(), lock: LOCK.into(), command: "pipenv lock".into() });
    };
    let stale = |fact: String| Error::StaleLock { lock: LOCK.into(), fact, command: "pipenv lock".into() };
    let number = lock.get("_meta").and_then(|meta| meta.get("pipfile-spec")).and_then(Value::as_u64);
    if number != Some(6) {
        return Err(stale("it is not in version 6 of its format".to_owned()));
    }
    let named = |table: &str| manifest.get(table).and_then(toml::Value::as_table).into_iter().flatten();
    for (table, section) in [("packages", "default"), ("dev-packages", "develop")] {
        let known = lock.get(section).and_then(Value::as_object);
        let has = |name: &str| {
            let wanted = super::requirements::normalised(name);
            known.is_some_and(|known| known.keys().any(|key| super::requirements::normalised(key) == wanted))
        };
        if let Some((name, _)) = named(table).find(|(name, _)| !has(name)) {
            return Err(stale(format!("`{MANIFEST}` names `{name}`, which it lacks")));
        }
    }
    let recorded = lock.get("_meta").and_then(|meta| meta.get("hash")?.get("sha256")?.as_str());
    if let (Some(recorded), Some(hash)) = (recorded, hash(&manifest))
        && recorded != hash
    {
        return Err(stale(format!("`{MANIFEST}` has changed since it was written")));
    }
    Ok(lock)
}

/// Pipenv's hash of a manifest: SHA-256 of its tables as JSON with sorted keys. `None` where other versions of Pipenv hash
/// other tables.
fn hash(manifest: &toml::Table) -> Option<String> {
    let known = ["dev-packages", "packages", "pipenv", "requires", "scripts", "source"];
    if manifest.keys().any(|key| !known.contains(&key.as_str())) {
        return None;
    }
    let empty = || toml::Value::Table(toml::Table::new());
    let of = |key: &str| manifest.get(key).cloned().unwrap_or_else(empty);
    let sources = manifest.get("source")?.clone();
    let value = serde_json::json!({
        "_meta": { "sources": sources, "requires": of("requires") },
        "default": of("packages"),
        "develop": of("dev-packages"),
    });
    // Keys are sorted unless something makes serde_json keep their order.
    let text = sorted(&value).to_string();
    text.is_ascii().then(|| Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(table) => {
            let mut all: Vec<(&String, &Value)> = table.iter().collect();
            all.sort_by_key(|(key, _)| key.as_str());
            all.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect()
        }
        Value::Array(list) => list.iter().map(sorted).collect(),
        value => value.clone(),
    }
}

fn section(source: &dyn Source, lock: &Value, names: &[&str]) -> Result<Section, Error> {
    let mut found = Section::default();
    let entries = names.iter().filter_map(|name| lock.get(*name)?.as_object()).flatten();
    let mut seen = BTreeSet::new();
    for (name, entry) in entries.filter(|(name, _)| seen.insert((*name).clone())) {
        let field = |key: &str| entry.get(key).and_then(Value::as_str);
        let extras: Vec<String> = entry
            .get("extras")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let bracket = if extras.is_empty() { String::new() } else { format!("[{}]", extras.join(",")) };
        let marker = field("markers").map(|markers| format!(" ; {markers}")).unwrap_or_default();
        if let Some(url) = field("git") {
            let commit = field("ref").unwrap_or("HEAD");
            let below = field("subdirectory").map(|path| format!("#subdirectory={path}")).unwrap_or_default();
            found.repositories.push_str(&format!("{name}{bracket} @ git+{url}@{commit}{below}{marker}\n"));
        } else if let Some(path) = field("path").or_else(|| field("file").filter(|file| !file.contains("://"))) {
            let place = tree::join("", path)
                .filter(|place| place.is_empty() || tree::has(source, place) || tree::has_directory(source, place));
            let Some(place) = place else {
                let (name, path) = (name.clone(), path.to_owned());
                return Err(Error::LocalDependency { manifest: MANIFEST.into(), name, path });
            };
            if tree::has(source, &place) {
                found.repositories.push_str(&format!("./{place}\n"));
                found.archives.push(place);
            } else {
                found.directories.push((place, extras));
            }
        } else if let Some(url) = field("file") {
            found.repositories.push_str(&format!("{name}{bracket} @ {url}{marker}\n"));
        } else {
            let version = field("version").unwrap_or_default();
            let hashes = entry.get("hashes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let hashes: String = hashes.map(|hash| format!(" --hash={hash}")).collect();
            found.locked.push_str(&format!("{name}{bracket}{version}{marker}{hashes}\n"));
        }
    }
    Ok(found)
}

/// The commands that install a section, and the files that they read.
fn install(lock: &Value, section: &Section, packages: &str, files: &mut BTreeMap<String, String>) -> String {
    let mut run = String::new();
    if !section.locked.is_empty() {
        let hashes =
            if section.locked.lines().all(|line| line.contains(" --hash=")) { " --require-hashes" } else { "" };
        files.insert(LOCKED.into(), format!("{}{}", indices(lock), section.locked));
        run.push_str(&format!("{PIP_INSTALL} --no-deps{hashes} --target {packages} -r {LOCKED}\n"));
    }
    if !section.repositories.is_empty() {
        files.insert(REPOSITORIES.into(), section.repositories.clone());
        run.push_str(&format!("{PIP_INSTALL} --no-deps --target {packages} -r {REPOSITORIES}\n"));
    }
    run
}

/// The project's own indices, if it names others than the public one, which a machine may have a mirror of.
fn indices(lock: &Value) -> String {
    let sources = lock.get("_meta").and_then(|meta| meta.get("sources")).and_then(Value::as_array);
    let sources: Vec<&Value> = sources.into_iter().flatten().collect();
    let mut out = String::new();
    for (at, source) in sources.iter().enumerate() {
        let field = |key: &str| source.get(key).and_then(Value::as_str);
        // Pipenv gives the public index this name.
        if let Some(url) = field("url").filter(|_| field("name") != Some("pypi")) {
            out.push_str(&format!("{} {url}\n", if at == 0 { "--index-url" } else { "--extra-index-url" }));
        }
    }
    out
}
