//! An entry of a database, against packages of every ecosystem.

#![no_main]

use kiln_gates::{Scan, VulnerabilityPolicy};

const SBOM: &str = r#"{"bomFormat":"CycloneDX","components":[
    {"purl":"pkg:npm/a@1.0.0"},{"purl":"pkg:pypi/a@1.0"},{"purl":"pkg:cargo/a@1.0.0"},{"purl":"pkg:golang/a@v1.0.0"},
    {"purl":"pkg:maven/a/a@1.0"},{"purl":"pkg:gem/a@1.0"},{"purl":"pkg:composer/a/a@1.0"},{"purl":"pkg:nuget/a@1.0"},
    {"purl":"pkg:deb/debian/a@1.0-1"},{"purl":"pkg:apk/alpine/a@1.0-r0"},{"purl":"pkg:rpm/rocky/a@1.0-1"}]}"#;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(mut scan) = Scan::new(SBOM.as_bytes()) else { return };
    scan.entry("entry.json", data);
    let _ = scan.verdict(&VulnerabilityPolicy::default()).text();
    let _ = scan.scanner("1", "database");
});
