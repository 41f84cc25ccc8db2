//! A bill of materials, against one entry and a policy for licences.

#![no_main]

use kiln_gates::{LicensePolicy, Scan, VulnerabilityPolicy, check_licenses, components};

const ENTRY: &str = r#"{"id":"X","affected":[{"package":{"ecosystem":"npm","name":"a"},"versions":["1.0.0"],
    "ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"1.2"}]}]}]}"#;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(found) = components(data) else { return };
    let policy = LicensePolicy { allow: vec!["MIT".to_owned()], unknown_fails: true, ..LicensePolicy::default() };
    let _ = check_licenses(&found, &policy).text();
    let Ok(mut scan) = Scan::new(data) else { return };
    scan.entry("entry.json", ENTRY.as_bytes());
    let _ = scan.verdict(&VulnerabilityPolicy::default()).text();
});
