//! `composer.lock`.

use serde_json::Value;

use super::Package;

/// Packages from elsewhere; those of the tree are omitted.
pub(super) fn lock(text: &str) -> Vec<Package> {
    let Ok(lock) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let list = |key: &str, development: bool| {
        let packages = lock.get(key).and_then(Value::as_array).into_iter().flatten();
        let foreign = packages.filter(|package| package.pointer("/dist/type").is_none_or(|kind| kind != "path"));
        let read = |package: &Value| {
            let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
            // Of several, one may be chosen.
            let licenses: Vec<&str> =
                package["license"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let license = licenses.join(" OR ");
            Some(Package { development, license, ..Package::new("composer", name, version.trim_start_matches('v')) })
        };
        foreign.filter_map(read).collect::<Vec<_>>()
    };
    [list("packages", false), list("packages-dev", true)].concat()
}
