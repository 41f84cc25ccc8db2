//! What an artifact consists of, from a CycloneDX document. Source: CycloneDX 1.5 and 1.6, JSON.

use serde::Deserialize;

use crate::ecosystem::Ecosystem;
use crate::purl::Purl;

/// Levels of components within components that are read.
const MAX_DEPTH: usize = 16;

/// A bill of materials that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON, or has something else where a component is expected.
    #[error("the bill of materials is no CycloneDX document in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It says that it is something else.
    #[error(
        "the bill of materials is a `{0}`: expected a `CycloneDX` document, such as `kiln build` writes to `NAME.cdx.json`"
    )]
    Format(String),
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "bomFormat", default)]
    format: String,
    #[serde(default)]
    components: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    purl: String,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    licenses: Vec<Licensed>,
    #[serde(default)]
    components: Vec<Listed>,
}

#[derive(Deserialize)]
struct Licensed {
    license: Option<License>,
    expression: Option<String>,
}

#[derive(Deserialize)]
struct License {
    id: Option<String>,
    name: Option<String>,
}

/// A package that an artifact consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Its name in its registry.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its package URL; empty if it has none, as a shared library of the system.
    pub purl: String,
    /// Whether only development needs it, so that it is not in the artifact.
    pub is_excluded: bool,
    /// SPDX expressions, all of which hold.
    pub licenses: Vec<String>,
    pub(crate) ecosystem: Option<Ecosystem>,
}

impl Component {
    /// Its name and version, for people.
    pub fn shown(&self) -> String {
        if self.version.is_empty() { self.name.clone() } else { format!("{} {}", self.name, self.version) }
    }
}

/// The components of a bill of materials, those within others too.
///
/// # Errors
/// If it is no CycloneDX document.
pub fn components(sbom: &[u8]) -> Result<Vec<Component>, Unreadable> {
    let document: Document = serde_json::from_slice(sbom)?;
    if document.format != "CycloneDX" {
        return Err(Unreadable::Format(document.format));
    }
    let mut found = Vec::new();
    collect(document.components, MAX_DEPTH, &mut found);
    Ok(found)
}

fn collect(listed: Vec<Listed>, depth: usize, found: &mut Vec<Component>) {
    for one in listed {
        let purl = Purl::read(&one.purl);
        let ecosystem = purl.as_ref().map(Ecosystem::of);
        let license = |licensed: Licensed| {
            let named = licensed.license.and_then(|license| license.id.or(license.name));
            licensed.expression.or(named)
        };
        found.push(Component {
            name: ecosystem.as_ref().map_or(one.name, |ecosystem| ecosystem.names.first().cloned().unwrap_or_default()),
            version: purl.map_or(one.version, |purl| purl.version),
            purl: one.purl,
            is_excluded: one.scope == "excluded",
            licenses: one.licenses.into_iter().filter_map(license).collect(),
            ecosystem,
        });
        if let Some(depth) = depth.checked_sub(1) {
            collect(one.components, depth, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_found_wherever_they_are_with_their_licences() {
        let sbom = r#"{"bomFormat":"CycloneDX","components":[
            {"name":"serde","version":"1.0.0","purl":"pkg:cargo/serde@1.0.0","licenses":[{"expression":"MIT OR Apache-2.0"}],
             "components":[{"name":"inner","purl":"pkg:npm/%40a/inner@2.0.0","licenses":[{"license":{"id":"ISC"}},{"license":{"name":"Own"}}]}]},
            {"name":"libc.so.6"},{"name":"jest","purl":"pkg:npm/jest@1.0.0","scope":"excluded"}]}"#;
        let found = components(sbom.as_bytes()).unwrap();
        let shown: Vec<String> = found.iter().map(Component::shown).collect();
        assert_eq!(shown, ["serde 1.0.0", "@a/inner 2.0.0", "libc.so.6", "jest 1.0.0"]);
        assert_eq!(found[1].licenses, ["ISC", "Own"]);
        assert!(found[3].is_excluded && !found[0].is_excluded);
    }

    #[test]
    fn another_document_is_refused() {
        assert!(
            components(b"{\"spdxVersion\":\"SPDX-2.3\"}").unwrap_err().to_string().contains("expected a `CycloneDX`")
        );
        assert!(components(b"[").is_err());
    }
}
