//! `Cargo.lock`.

use super::Package;

/// Packages from registries or repositories; the project's own are omitted.
pub(super) fn lock(text: &str) -> Vec<Package> {
    let Ok(lock) = text.parse::<toml::Table>() else { return Vec::new() };
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let read = |package: &toml::Value| {
        let word = |key: &str| package.get(key).and_then(toml::Value::as_str);
        word("source")?;
        let hash = word("checksum").map(|hash| ("SHA-256", hash.to_owned()));
        Some(Package { hash, ..Package::new("cargo", word("name")?, word("version")?) })
    };
    packages.filter_map(read).collect()
}
