//! The bill of materials of an image as an SPDX document: the packages of its system, those of the project's lock files, and what it
//! is built on. BuildKit attaches such a document to an image (predicate type `https://spdx.dev/Document`).
//!
//! Invariant: as for the CycloneDX document. Source: SPDX 2.3, JSON.

use std::collections::BTreeMap;

use kiln_images::image::rfc3339;
use kiln_planner::plan::Source;
use kiln_proto::v1;
use serde_json::{Value, json};

use super::{packages, with};
use crate::Made;

/// What SPDX writes where nothing is said.
const UNKNOWN: &str = "NOASSERTION";
/// What an id in the document begins with.
const ID: &str = "SPDXRef-";

/// Creates the document. `created` is the image's own time, in seconds since the epoch.
pub fn document(artifact: &v1::Artifact, sources: &[&dyn Source], made: &Made, created: i64) -> Value {
    let digest = artifact.digest.clone().unwrap_or_default().hash;
    let image = format!("{ID}Image");
    let mut all = vec![package(&image, &artifact.name, &artifact.version, None, "CONTAINER")];
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", &image)];
    // By their URLs, each once.
    let mut contained: BTreeMap<String, (String, String)> = BTreeMap::new();
    for one in &made.installed {
        contained.insert(one.purl(), (one.name.clone(), one.version.clone()));
    }
    for one in packages(sources).keys().filter(|one| !one.development) {
        contained.insert(one.purl(), (one.name.clone(), one.version.clone()));
    }
    for (number, (purl, (name, version))) in contained.into_iter().enumerate() {
        let id = format!("{ID}Package-{number}");
        all.push(package(&id, &name, &version, Some(&purl), "LIBRARY"));
        relations.push(relation(&image, "CONTAINS", &id));
    }
    for (number, base) in made.materials.iter().enumerate() {
        let id = format!("{ID}Base-{number}");
        let described = package(&id, &base.uri, "", Some(&base.uri).filter(|uri| uri.starts_with("pkg:")), "CONTAINER");
        let checksums = json!([{ "algorithm": "SHA256", "checksumValue": base.sha256 }]);
        all.push(with(described, "checksums", Some(checksums)));
        relations.push(relation(&id, "BUILD_DEPENDENCY_OF", &image));
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": artifact.id,
        "documentNamespace": format!("https://spdx.org/spdxdocs/kiln/{}-{digest}", super::percent(&artifact.id)),
        "creationInfo": {
            "created": rfc3339(created),
            "creators": [format!("Tool: kiln-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": all,
        "relationships": relations,
    })
}

fn package(id: &str, name: &str, version: &str, purl: Option<&String>, purpose: &str) -> Value {
    let package = json!({
        "SPDXID": id,
        "name": name,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": purpose,
    });
    let package = with(package, "versionInfo", Some(version).filter(|version| !version.is_empty()).map(Value::from));
    let reference = |purl: &String| json!([{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl }]);
    with(package, "externalRefs", purl.map(reference))
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}
