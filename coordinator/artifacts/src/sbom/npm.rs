//! `package-lock.json` of npm 7 and later.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Package;

/// Installed packages; links into the project are omitted.
pub(super) fn lock(text: &str) -> Vec<Package> {
    let Ok(lock) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let Some(packages) = lock["packages"].as_object() else { return Vec::new() };
    let read = |(path, package): (&String, &Value)| {
        let (_, name) = path.rsplit_once("node_modules/")?;
        if package["link"].as_bool() == Some(true) {
            return None;
        }
        // An alias is installed under a different name.
        let name = package["name"].as_str().unwrap_or(name);
        let hash = package["integrity"].as_str().and_then(integrity);
        let development = package["dev"].as_bool() == Some(true);
        Some(Package { hash, development, ..Package::new("npm", name, package["version"].as_str()?) })
    };
    packages.iter().filter_map(read).collect()
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
