//! The checks that the farm makes itself, and the same by hand.

use kiln_harness::{Farm, write};
use serde_json::json;

use super::{ended, kept_out, passed, plain, stored};

/// A lock file of npm with one package.
const LOCK: &str = r#"{"lockfileVersion":3,"packages":{"":{"name":"shop"},"node_modules/left-pad":{"version":"1.0.0","license":"WTFPL"}}}"#;

fn entry(id: &str, name: &str, fixed: &str) -> String {
    json!({
        "id": id, "modified": "2026-01-01T00:00:00Z", "summary": "pads too much",
        "severity": [{ "type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H" }],
        "affected": [{
            "package": { "ecosystem": "npm", "name": name },
            "ranges": [{ "type": "SEMVER", "events": [{ "introduced": "0" }, { "fixed": fixed }] }],
        }],
    })
    .to_string()
}

#[test]
fn a_known_vulnerability_keeps_an_artifact_out_until_it_is_fixed_or_accepted() {
    let config = "[gates.vulns]\nuse = \"vulns\"\ndatabase = \"security/osv\"\nignore = \"security/accepted\"\n";
    let dir = plain("holey", config);
    write(dir.path(), "package-lock.json", LOCK);
    write(dir.path(), "security/accepted", "# none\n");
    write(dir.path(), "security/osv/GHSA-1.json", &entry("GHSA-1", "left-pad", "1.1.0"));
    let farm = Farm::shared();
    let built = farm.build(dir.path(), &[]);
    let words =
        ["gate `vulns` of artifact `holey`: left-pad 1.0.0: GHSA-1 (critical 9.8; fixed in 1.1.0): pads too much"];
    kept_out(farm, &built, "holey", &words);
    assert!(built.log().contains("error: left-pad 1.0.0: GHSA-1"), "{}", built.log());
    write(dir.path(), "security/accepted", "GHSA-1 # we pad little\n");
    assert_eq!(ended(&farm.build(dir.path(), &[]).well()), [passed("vulns", false)]);
    assert_eq!(ended(&farm.build(dir.path(), &[]).well()), [passed("vulns", true)]);
    // Another database is another question.
    write(dir.path(), "security/osv/GHSA-2.json", &entry("GHSA-2", "left-pad", "1.0.1"));
    let built = farm.build(dir.path(), &[]);
    assert!(built.0.code == 1 && built.message().contains("GHSA-2"), "{:?}", built.0);
    write(dir.path(), "package-lock.json", &LOCK.replace("\"1.0.0\"", "\"1.1.0\""));
    write(dir.path(), "security/accepted", "");
    assert_eq!(ended(&farm.build(dir.path(), &[]).well()), [passed("vulns", false)]);
    let kind = stored(farm, "holey")[0]["gates"][0]["predicate_type"].clone();
    assert_eq!(kind, "https://in-toto.io/attestation/vulns/v0.1");
}

#[test]
fn a_database_that_says_nothing_is_not_taken_for_good_news() {
    let farm = Farm::shared();
    let dir = plain("unsaid", "[gates.vulns]\nuse = \"vulns\"\ndatabase = \"osv\"\n");
    write(dir.path(), "package-lock.json", LOCK);
    kept_out(farm, &farm.build(dir.path(), &[]), "unsaid", &["the sources have no directory `osv`", "`database`"]);
    write(dir.path(), "osv/README", "later\n");
    kept_out(farm, &farm.build(dir.path(), &[]), "unsaid", &["the database: it has no entry"]);
    write(dir.path(), "osv/P-1.json", &entry("P-1", "x", "1").replace("npm", "PyPI"));
    kept_out(farm, &farm.build(dir.path(), &[]), "unsaid", &["the database has nothing about npm"]);
    write(dir.path(), "osv/broken.json", "{");
    kept_out(farm, &farm.build(dir.path(), &[]), "unsaid", &["`osv/broken.json`: is no entry of OSV"]);
}

#[test]
fn a_licence_that_is_not_allowed_keeps_an_artifact_out() {
    let gates = |more: &str| format!("[gates.licenses]\nuse = \"licenses\"\nallow = [\"MIT\", \"Apache-2.0\"]\n{more}");
    let dir = plain("licensed", &gates(""));
    write(dir.path(), "package-lock.json", LOCK);
    let farm = Farm::shared();
    let built = farm.build(dir.path(), &[]);
    kept_out(
        farm,
        &built,
        "licensed",
        &["gate `licenses` of artifact `licensed`: left-pad 1.0.0: WTFPL is not allowed"],
    );
    write(dir.path(), "package-lock.json", &LOCK.replace("WTFPL", "(MIT OR GPL-3.0-only)"));
    assert_eq!(ended(&farm.build(dir.path(), &[]).well()), [passed("licenses", false)]);
    let dir = plain("unlicensed", &gates(""));
    write(dir.path(), "package-lock.json", &LOCK.replace(",\"license\":\"WTFPL\"", ""));
    kept_out(farm, &farm.build(dir.path(), &[]), "unlicensed", &["left-pad 1.0.0: its licence is unknown"]);
    let config = std::fs::read_to_string(dir.path().join("kiln.toml")).unwrap();
    write(dir.path(), "kiln.toml", &format!("{config}known = {{ left-pad = \"MIT\" }}\n"));
    assert_eq!(ended(&farm.build(dir.path(), &[]).well()), [passed("licenses", false)]);
    let wrong = plain("mislicensed", "[gates.licenses]\nuse = \"licenses\"\nallow = [\"Apache 2\"]\n");
    kept_out(
        farm,
        &farm.build(wrong.path(), &[]),
        "mislicensed",
        &["`Apache 2` is no SPDX licence id", "did you mean `Apache-2.0`"],
    );
}

#[test]
fn an_artifact_above_its_budget_is_kept_out() {
    let dir = plain("large", "[gates.size]\nuse = \"size\"\nmax = \"4B\"\n");
    let farm = Farm::shared();
    kept_out(farm, &farm.build(dir.path(), &[]), "large", &["large: 9 bytes, which is 5 more than its budget of 4"]);
    write(dir.path(), "in", "abc\n");
    let built = farm.build(dir.path(), &[]).well();
    assert_eq!(built.of_type("gate_finished")[0]["message"], "large: 4 bytes of at most 4");
}

#[test]
fn what_may_pass_with_a_warning_is_recorded_as_that() {
    let dir = plain("warned", "[gates.licenses]\nuse = \"licenses\"\nallow = [\"MIT\"]\nunknown = \"warn\"\n");
    write(dir.path(), "package-lock.json", &LOCK.replace(",\"license\":\"WTFPL\"", ""));
    let farm = Farm::shared();
    farm.build(dir.path(), &[]).well();
    assert_eq!(stored(farm, "warned")[0]["gates"][0]["result"], "warned");
}

#[test]
fn the_same_checks_are_made_by_hand() {
    let farm = Farm::shared();
    let dir = plain("handmade", "");
    write(dir.path(), "package-lock.json", LOCK);
    write(dir.path(), "osv/GHSA-1.json", &entry("GHSA-1", "left-pad", "1.1.0"));
    farm.build(dir.path(), &[]).well();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let sbom = kiln_harness::find(&dir.path().join("kiln-out"), ".cdx.json").unwrap().display().to_string();
    let report = path("report.json");
    let found = farm.kiln(&["gate", "vulns", &sbom, "--database", &path("osv"), "--report", &report]);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.out.contains("error: left-pad 1.0.0: GHSA-1 (critical 9.8; fixed in 1.1.0)"), "{found:?}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["scanner"]["result"][0]["id"], "GHSA-1");
    let fine = farm.kiln(&["gate", "licenses", &sbom, "--deny", "GPL-3.0-only"]);
    assert_eq!(fine.code, 0, "{fine:?}");
    let size = farm.kiln(&["gate", "size", &path("kiln-out/handmade"), "--max", "1B"]);
    assert_eq!(size.code, 1, "{size:?}");
    let absent = farm.kiln(&["gate", "size", &path("nothing"), "--max", "1B"]);
    assert!(absent.code == 2 && absent.err.contains("cannot read it"), "{absent:?}");
}
