//! What is attested of a gate that passed. Source: in-toto attestation framework, predicates "Test Result" v0.1 and "Vulns" v0.1.

use serde_json::{Map, Value, json};

/// The type of a result of tests.
pub const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// The type of a scan for vulnerabilities.
pub const VULNERABILITIES: &str = "https://in-toto.io/attestation/vulns/v0.1";

/// Largest report that becomes a predicate, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// The predicate of a gate's success. `definition` is the SHA-256 of how the gate is defined, in hex.
pub fn test_result(gate: &str, definition: &str, warned: bool, passed: &[String]) -> Value {
    let mut tests = vec![gate.to_owned()];
    tests.extend(passed.iter().cloned());
    let (passed, warnings) = if warned { (Vec::new(), tests) } else { (tests, Vec::new()) };
    json!({
        "result": if warned { "WARNED" } else { "PASSED" },
        "configuration": [{ "name": format!("kiln.toml#gates.{gate}"), "digest": { "sha256": definition } }],
        "passedTests": passed,
        "warnedTests": warnings,
        "failedTests": [],
    })
}

/// A command's report as the predicate of a scan.
///
/// # Errors
/// What it lacks, for people.
pub fn read_report(data: &[u8]) -> Result<Value, String> {
    if data.len() > MAX_BYTES {
        return Err(format!("it has {} bytes: expected at most {MAX_BYTES}", data.len()));
    }
    let report: Map<String, Value> =
        serde_json::from_slice(data).map_err(|error| format!("it is no JSON object: {error}"))?;
    let has = |key: &str| report.get("scanner").and_then(|scanner| scanner.get(key)).is_some();
    let missing: Vec<&str> = ["uri", "result"].into_iter().filter(|key| !has(key)).collect();
    if missing.is_empty() {
        return Ok(Value::Object(report));
    }
    let missing = missing.iter().map(|key| format!("`scanner.{key}`")).collect::<Vec<_>>().join(" and ");
    Err(format!("it has no {missing}: expected the predicate `{VULNERABILITIES}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_names_the_gate_and_what_it_ran() {
        let result = test_result("smoke", "abc", false, &["answers".to_owned()]);
        assert_eq!(result["result"], "PASSED");
        assert_eq!(result["passedTests"], json!(["smoke", "answers"]));
        assert_eq!(test_result("vulns", "abc", true, &[])["warnedTests"], json!(["vulns"]));
    }

    #[test]
    fn a_report_that_is_no_predicate_is_refused() {
        assert!(read_report(br#"{"scanner":{"uri":"x","result":[]},"metadata":{}}"#).is_ok());
        for (bad, expected) in
            [("[]", "no JSON object"), ("{}", "`scanner.uri` and `scanner.result`"), ("x", "no JSON object")]
        {
            assert!(read_report(bad.as_bytes()).unwrap_err().contains(expected), "{bad}");
        }
    }
}
