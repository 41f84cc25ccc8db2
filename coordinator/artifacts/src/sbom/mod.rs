//! The bill of materials of an artifact, as a CycloneDX document: the packages of the project's lock files, the
//! shared libraries that its executables need, and the packages of the system of an image that a Dockerfile builds. Of such an image there
//! is an [SPDX](spdx) document as well.
//!
//! Invariant: the same lock files and files produce the same bytes; the document contains neither a time nor a serial
//! number. Missing details are omitted, and an unreadable lock file contributes nothing. Source: CycloneDX 1.5, JSON.

mod cargo;
mod composer;
mod go;
mod npm;
mod python;
mod rpm;
mod ruby;
pub mod spdx;
pub(crate) mod system;

use std::collections::{BTreeMap, BTreeSet};

use kiln_planner::plan::Source;
use kiln_proto::v1;
use serde_json::{Value, json};

use crate::elf::Wants;
use system::Installed;

/// A package in a lock file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    /// Its name in its registry.
    name: String,
    /// Its exact version.
    version: String,
    /// Its ecosystem's purl type, such as `cargo`.
    ecosystem: &'static str,
    /// Algorithm and hex value of its hash, if the lock file has one.
    hash: Option<(&'static str, String)>,
    /// Whether it is only a development dependency.
    development: bool,
    /// Its licence as the lock file has it; empty if it has none.
    license: String,
}

impl Package {
    fn new(ecosystem: &'static str, name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            ecosystem,
            hash: None,
            development: false,
            license: String::new(),
        }
    }

    /// Its package URL.
    fn purl(&self) -> String {
        let name: Vec<String> = self.name.split('/').map(percent).collect();
        format!("pkg:{}/{}@{}", self.ecosystem, name.join("/"), percent(&self.version))
    }
}

/// Creates the document.
pub fn document(
    artifact: &v1::Artifact,
    sources: &[&dyn Source],
    wants: &BTreeMap<String, Wants>,
    installed: &[Installed],
) -> Value {
    let subject = json!({
        "type": if artifact.kind == "image" { "container" } else { "application" },
        "bom-ref": artifact.id,
        "name": artifact.name,
        "version": artifact.version,
        "properties": [{ "name": "kiln:platform", "value": artifact.platform }],
    });
    let mut components: Vec<Value> = packages(sources).iter().map(component).collect();
    components.extend(installed.iter().map(of_system));
    components.extend(libraries(wants));
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": subject,
            "tools": { "components": [{ "type": "application", "name": "kiln", "version": env!("CARGO_PKG_VERSION") }] },
        },
        "components": components,
    })
}

/// Reads the lock files that a document will use, so that a source that supplies files on request has them in time.
pub fn read_locks(source: &dyn Source) {
    packages(&[source]);
}

/// The packages of all lock files, each once, with the files that list it.
fn packages(sources: &[&dyn Source]) -> BTreeMap<Package, BTreeSet<String>> {
    let mut found: BTreeMap<Package, BTreeSet<String>> = BTreeMap::new();
    for (source, path) in sources.iter().flat_map(|source| source.paths().iter().map(move |path| (source, path))) {
        let name = path.rsplit('/').next().unwrap_or(path);
        let read: fn(&str) -> Vec<Package> = match name {
            "Cargo.lock" => cargo::lock,
            "package-lock.json" | "npm-shrinkwrap.json" => npm::lock,
            "bun.lock" => npm::bun,
            "deno.lock" => npm::deno,
            "composer.lock" => composer::lock,
            "Pipfile.lock" => python::pipfile,
            "poetry.lock" | "uv.lock" => python::lock,
            "go.sum" => go::sums,
            "Gemfile.lock" => ruby::lock,
            _ if name.starts_with("requirements") && name.ends_with(".txt") => python::requirements,
            _ => continue,
        };
        let Some(text) = source.read(path).and_then(|data| String::from_utf8(data).ok()) else { continue };
        for package in read(&text) {
            found.entry(package).or_default().insert(path.clone());
        }
    }
    found
}

fn component((package, locks): (&Package, &BTreeSet<String>)) -> Value {
    let purl = package.purl();
    let component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "properties": locks.iter().map(|lock| json!({ "name": "kiln:lock", "value": lock })).collect::<Vec<_>>(),
    });
    let hashes = package.hash.as_ref().map(|(algorithm, hash)| json!([{ "alg": algorithm, "content": hash }]));
    let component = with(component, "hashes", hashes);
    let component = with(component, "licenses", licenses(&package.license));
    with(component, "scope", package.development.then(|| json!("excluded")))
}

/// A licence as CycloneDX has it: an expression of SPDX, or else a name.
fn licenses(text: &str) -> Option<Value> {
    match text {
        "" => None,
        text if kiln_gates::is_spdx(text) => Some(json!([{ "expression": text }])),
        text => Some(json!([{ "license": { "name": text } }])),
    }
}

/// An object with one more field, if there is anything to say in it.
fn with(mut object: Value, field: &str, value: Option<Value>) -> Value {
    if let (Value::Object(fields), Some(value)) = (&mut object, value) {
        fields.insert(field.to_owned(), value);
    }
    object
}

/// A package of an image's system.
fn of_system(package: &Installed) -> Value {
    let purl = package.purl();
    let component =
        json!({ "type": "library", "bom-ref": purl, "name": package.name, "version": package.version, "purl": purl });
    with(component, "licenses", licenses(&package.license))
}

/// Shared libraries by name, with the files that need each.
fn libraries(wants: &BTreeMap<String, Wants>) -> Vec<Value> {
    let mut wanted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (path, wants) in wants {
        for library in &wants.needed {
            wanted.entry(library).or_default().push(path);
        }
    }
    let component = |(library, paths): (&str, Vec<&str>)| {
        let by = paths.iter().map(|path| json!({ "name": "kiln:needed-by", "value": path })).collect::<Vec<_>>();
        json!({ "type": "library", "bom-ref": format!("elf:{library}"), "name": library, "properties": by })
    };
    wanted.into_iter().map(component).collect()
}

/// Percent-encodes everything that a purl must not contain.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests;
