//! `poetry.lock`, `uv.lock`, `Pipfile.lock`, and requirements with exact versions.

use super::Package;

/// Packages of poetry's or uv's lock file; the project's own are omitted.
pub(super) fn lock(text: &str) -> Vec<Package> {
    let Ok(lock) = text.parse::<toml::Table>() else { return Vec::new() };
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let read = |package: &toml::Value| {
        let word = |key: &str| package.get(key).and_then(toml::Value::as_str);
        let source = package.get("source").and_then(toml::Value::as_table);
        let is_own =
            |source: &toml::Table| ["editable", "virtual", "directory"].iter().any(|key| source.contains_key(*key));
        if source.is_some_and(is_own) {
            return None;
        }
        Some(Package::new("pypi", normal(word("name")?), word("version")?))
    };
    packages.filter_map(read).collect()
}

/// Packages of a `Pipfile.lock` that come from an index.
pub(super) fn pipfile(text: &str) -> Vec<Package> {
    let Ok(lock) = serde_json::from_str::<serde_json::Value>(text) else { return Vec::new() };
    let section = |name: &str, development: bool| {
        let entries = lock.get(name).and_then(serde_json::Value::as_object).into_iter().flatten();
        let read = |(name, entry): (&String, &serde_json::Value)| {
            let version = entry["version"].as_str()?.strip_prefix("==")?;
            Some(Package { development, ..Package::new("pypi", normal(name), version) })
        };
        entries.filter_map(read).collect::<Vec<_>>()
    };
    [section("default", false), section("develop", true)].concat()
}

/// Lines such as `idna==3.7 ; python_version > "3"`; lines without an exact version are ignored.
pub(super) fn requirements(text: &str) -> Vec<Package> {
    let read = |line: &str| {
        let line = line.split('#').next()?.split(';').next()?.trim();
        let (name, rest) = line.split_once("==")?;
        let version = rest.trim_start_matches('=').split([' ', ',', '\\']).find(|word| !word.is_empty())?;
        let name = name.split('[').next()?.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        (!name.is_empty() && name.chars().all(plain) && !version.contains('*'))
            .then(|| Package::new("pypi", normal(name), version))
    };
    text.lines().filter_map(read).collect()
}

/// A name as PyPI normalises it: lower case, with `-` for any run of `.`, `-` and `_`.
fn normal(name: &str) -> String {
    let parts: Vec<String> =
        name.split(['.', '-', '_']).filter(|part| !part.is_empty()).map(str::to_lowercase).collect();
    parts.join("-")
}
