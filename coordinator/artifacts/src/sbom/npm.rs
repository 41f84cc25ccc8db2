//! `package-lock.json` of npm 7 and later, and the lock files of Bun and Deno, which have packages of npm.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Package;

/// Installed packages; links into the project are omitted.
pub(super) fn lock(text: &str) -> Vec<Package> {
    let Ok(lock) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let Some(packages) = lock.get("packages").and_then(Value::as_object) else { return Vec::new() };
    let read = |(path, package): (&String, &Value)| {
        let (_, name) = path.rsplit_once("node_modules/")?;
        if package["link"].as_bool() == Some(true) {
            return None;
        }
        // An alias is installed under a different name.
        let name = package["name"].as_str().unwrap_or(name);
        let hash = package["integrity"].as_str().and_then(integrity);
        let development = package["dev"].as_bool() == Some(true);
        let license = package["license"].as_str().unwrap_or_default().to_owned();
        Some(Package { hash, development, license, ..Package::new("npm", name, package["version"].as_str()?) })
    };
    packages.iter().filter_map(read).collect()
}

/// Bun's lock file, in which each package is a line `"PLACE": ["NAME@VERSION", "REGISTRY", {…}, "INTEGRITY"],`. Packages of the tree
/// have no integrity.
pub(super) fn bun(text: &str) -> Vec<Package> {
    let read = |line: &str| {
        let (_, rest) = line.strip_prefix("    \"")?.split_once("\": [\"")?;
        let (name, version) = rest.split('"').next()?.rsplit_once('@').filter(|(name, _)| !name.is_empty())?;
        let hash = line.rsplit('"').nth(1).and_then(integrity)?;
        Some(Package { hash: Some(hash), ..Package::new("npm", name, version) })
    };
    text.lines().filter_map(read).collect()
}

/// Deno's lock file: packages of npm by `NAME@VERSION`, where `_` begins what they are combined with.
pub(super) fn deno(text: &str) -> Vec<Package> {
    let Ok(lock) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let read = |(key, package): (&String, &Value)| {
        // A scope begins with `@` too.
        let (at, _) = key.match_indices('@').find(|(at, _)| *at > 0)?;
        let (name, version) = key.split_at_checked(at)?;
        let version = version.strip_prefix('@')?.split('_').next()?;
        let hash = package["integrity"].as_str().and_then(integrity);
        Some(Package { hash, ..Package::new("npm", name, version) })
    };
    lock.get("npm").and_then(Value::as_object).into_iter().flatten().filter_map(read).collect()
}

/// `sha512-BASE64`; the first of several.
fn integrity(text: &str) -> Option<(&'static str, String)> {
    let (algorithm, hash) = text.split_whitespace().next()?.split_once('-')?;
    let algorithm = match algorithm {
        "sha512" => "SHA-512",
        "sha384" => "SHA-384",
        "sha256" => "SHA-256",
        "sha1" => "SHA-1",
        _ => return None,
    };
    Some((algorithm, hex::encode(STANDARD.decode(hash).ok()?)))
}
