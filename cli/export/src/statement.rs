//! Attestations: statements about an image, in the format of in-toto.
//!
//! Source: in-toto attestation framework, "Statement v0.1"; slsa.dev, "Provenance v1".

use kiln_buildx::Mode;
use kiln_images::digest::Digest;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

/// A statement without its subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// What it is about.
    pub predicate_type: String,
    /// What it says.
    pub predicate: Value,
}

impl Statement {
    /// The farm's provenance. `request` is what the user asked for, which `mode=max` tells.
    ///
    /// # Errors
    /// If it is not a statement.
    pub fn provenance(data: &[u8], mode: Mode, request: Value) -> Result<Self, serde_json::Error> {
        let mut statement: Map<String, Value> = serde_json::from_slice(data)?;
        let predicate_type = statement.get("predicateType").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut predicate = statement.remove("predicate").unwrap_or_default();
        match mode {
            // What commands were run, and where, is not for everybody who pulls the image.
            Mode::Min => {
                remove(&mut predicate, &["buildDefinition", "internalParameters"], "steps");
                remove(&mut predicate, &["runDetails"], "byproducts");
            }
            Mode::Max => {
                if let Some(parameters) = predicate.pointer_mut("/buildDefinition/externalParameters") {
                    parameters["request"] = request;
                }
            }
        }
        Ok(Self { predicate_type, predicate })
    }

    /// The farm's bill of materials, an SPDX document.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn sbom(data: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(Self { predicate_type: "https://spdx.dev/Document".to_owned(), predicate: serde_json::from_slice(data)? })
    }

    /// The statement about an image.
    pub(crate) fn about(
        &self,
        names: &[String],
        platform: &str,
        digest: &Digest,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let digest = json!({ "sha256": digest.hex() });
        let mut subjects: Vec<Value> =
            names.iter().map(|name| json!({ "name": purl(name, platform), "digest": digest })).collect();
        if subjects.is_empty() {
            subjects.push(json!({ "name": "_", "digest": digest }));
        }
        serde_json::to_vec(&json!({
            "_type": "https://in-toto.io/Statement/v0.1",
            "subject": subjects,
            "predicateType": self.predicate_type,
            "predicate": self.predicate,
        }))
    }
}

fn remove(value: &mut Value, path: &[&str], key: &str) {
    let mut at = value;
    for part in path {
        let Some(below) = at.get_mut(*part) else { return };
        at = below;
    }
    if let Value::Object(object) = at {
        object.remove(key);
    }
}

/// The package URL of an image.
fn purl(name: &str, platform: &str) -> String {
    let (repository, tag) = match name.rfind(':').filter(|at| !name[*at..].contains('/')) {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (name, "latest"),
    };
    format!("pkg:docker/{repository}@{tag}?platform={}", utf8_percent_encode(platform, NON_ALPHANUMERIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_provenance_tells_no_commands_and_the_long_one_what_was_asked_for() {
        let farm = json!({
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": { "externalParameters": {}, "internalParameters": { "steps": [{ "run": "make" }] } },
                "runDetails": { "byproducts": [1], "builder": { "id": "b" } },
            },
        });
        let data = serde_json::to_vec(&farm).unwrap();
        let min = Statement::provenance(&data, Mode::Min, json!({ "args": {} })).unwrap();
        assert!(!min.predicate.to_string().contains("make") && min.predicate.to_string().contains("builder"));
        let max = Statement::provenance(&data, Mode::Max, json!({ "args": { "A": "1" } })).unwrap();
        assert_eq!(max.predicate["buildDefinition"]["externalParameters"]["request"]["args"]["A"], "1");
        assert_eq!(
            purl("r.example:5000/a/b", "linux/arm64"),
            "pkg:docker/r.example:5000/a/b@latest?platform=linux%2Farm64"
        );
    }
}
