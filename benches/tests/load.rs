//! `kiln-bench load`, `layer` and `compare` on a real coordinator and worker, with tiny counts. No time is asserted.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Once;

use serde_json::Value;

/// The farm's binaries, next to the tested one: a run of this package alone does not build them.
fn build_farm() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let bench = Path::new(env!("CARGO_BIN_EXE_kiln-bench"));
        if ["kiln", "kiln-coordinator", "kiln-worker"].iter().all(|name| bench.with_file_name(name).exists()) {
            return;
        }
        let build = ["build", "--locked", "-p", "kiln-coordinator", "-p", "kiln-worker", "-p", "kiln-cli"];
        let built = Command::new(env!("CARGO")).args(build).current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
        assert!(built.success());
    });
}

fn bench(arguments: &[&str]) -> Output {
    build_farm();
    Command::new(env!("CARGO_BIN_EXE_kiln-bench")).args(arguments).output().unwrap()
}

#[track_caller]
fn well(arguments: &[&str]) -> (String, String) {
    let output = bench(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "expected a success, found\n{out}\n{err}");
    (out, err)
}

#[test]
fn every_case_does_what_was_asked_for_without_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report.json");
    let (table, _) = well(&["load", "--count", "2", "--concurrency", "2", "--json", report.to_str().unwrap()]);
    let document: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    let cases = document["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 26);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        assert_eq!(case["operations"], 2, "{case:#}\n{table}");
        assert_eq!(case["errors"], serde_json::json!({}), "{case:#}");
        assert!(case["refused"].is_null() && case["server_peak_bytes"].is_u64(), "{case:#}");
        assert!(table.lines().any(|line| line.starts_with(name)), "`{name}` is not in the table:\n{table}");
    }
    let (compared, _) = well(&["compare", report.to_str().unwrap(), report.to_str().unwrap()]);
    assert!(compared.lines().any(|line| line.starts_with("execute-noop") && line.contains("1.00")), "{compared}");
}

#[test]
fn a_layer_is_measured_cold_and_warm_and_json_may_be_all_of_standard_output() {
    let arguments = ["layer", "--files", "300", "--size", "100B", "--rounds", "1", "--warm", "2", "--json", "-"];
    let (out, _) = well(&arguments);
    let document: Value = serde_json::from_str(&out).unwrap();
    let operations: Vec<_> = document["cases"].as_array().unwrap().iter().map(|case| &case["operations"]).collect();
    assert_eq!(operations, [1, 1, 2, 2]);
}

#[test]
fn an_endpoint_that_refuses_a_case_is_told_and_the_others_go_on() {
    let more =
        ["load", "--count", "1", "--only", "execute-noop,find-missing-1", "--platform", "nobody=knows", "--json", "-"];
    let (out, _) = well(&more);
    let document: Value = serde_json::from_str(&out).unwrap();
    let case = |name: &str| document["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
    assert!(case("execute-noop")["refused"].as_str().unwrap().contains("`nobody`"), "{out}");
    assert_eq!(case("find-missing-1")["operations"], 1);
}

#[test]
fn what_is_no_endpoint_no_case_or_no_report_is_said_in_words() {
    let said = |arguments: &[&str]| {
        let output = bench(arguments);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&["load", "--target", "ftp://x"]).contains("invalid farm URL `ftp://x`"));
    assert!(said(&["load", "--only", "nothing"]).contains("unknown case `nothing`"));
    assert!(said(&["compare", "/dev/null", "/dev/null"]).contains("is not a report"));
    assert!(said(&["load", "--coordinator-arg", "--no-such-flag"]).contains("--no-such-flag"));
}

#[test]
fn a_crowd_is_all_there_and_sees_every_line() {
    for tls in [&[][..], &["--tls"]] {
        let (out, _) =
            well(&[&["crowd", "--workers", "4", "--watchers", "6", "--seconds", "1", "--json"], tls].concat());
        let figures: Value = serde_json::from_str(&out).unwrap();
        let of = |word: &str| {
            let found = figures.as_array().unwrap().iter().find(|one| one["name"].as_str().unwrap().contains(word));
            found.unwrap_or_else(|| panic!("`{word}` is not in {out}"))["value"].as_f64().unwrap()
        };
        assert!(of("lines that came") >= 6.0 && of("peak resident") > 1.0, "{out}");
    }
}

#[test]
fn every_action_is_assigned_to_a_farm_in_memory_and_completed() {
    let sizes =
        ["--actions", "4000", "--workers", "200", "--smaller", "2", "--rounds", "1", "--arrivals", "200", "--json"];
    let (out, _) = well(&[&["scheduler"][..], &sizes].concat());
    let figures: Value = serde_json::from_str(&out).unwrap();
    let value =
        |name: &str| figures.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()["value"].as_f64();
    assert!(value("assignments in a round, all checked").unwrap() >= 3900.0, "{out}");
    assert_eq!(value("submit, placed at once: events"), Some(200.0), "{out}");
    assert!(value("4000 actions on 200 workers: assigned").unwrap() > 0.0, "{out}");
}

#[test]
fn each_action_is_run_once_by_one_of_the_connected_workers() {
    let sizes = ["--workers", "10", "--actions", "40", "--callers", "20", "--directories", "3", "--json"];
    let (out, _) = well(&[&["workers"][..], &sizes].concat());
    let figures: Value = serde_json::from_str(&out).unwrap();
    let value = |words: &str| {
        let mut all = figures.as_array().unwrap().iter();
        all.find(|one| one["name"].as_str().unwrap().contains(words)).unwrap()["value"].as_f64().unwrap()
    };
    assert_eq!(value("leases, one for each action"), 40.0, "{out}");
    assert!((1.0..=10.0).contains(&value("workers that had one")), "{out}");
}

#[test]
fn every_open_page_gets_every_line() {
    let (out, _) = well(&["pages", "--pages", "5", "--seconds", "2", "--json"]);
    let figures: Value = serde_json::from_str(&out).unwrap();
    let came = figures.as_array().unwrap().iter().find(|one| one["name"].as_str().unwrap().contains("lines that came"));
    assert!(came.unwrap()["value"].as_f64() >= Some(5.0), "{out}");
}

#[test]
fn proof_is_measured_alone_in_builds_and_beside_the_hashing_of_an_image() {
    let (out, _) =
        well(&["proof", "--repeats", "2", "--rounds", "1", "--layer", "1", "--pairs", "1", "--builds", "2", "--json"]);
    let figures: Value = serde_json::from_str(&out).unwrap();
    let names: Vec<&str> = figures.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    for figure in [
        "a MAC over",
        "a statement of 8 KB",
        "a statement of 200 KB",
        "`kiln verify` of a layout of 20",
        "hashing its 0.",
        "builds of an artifact, 4 at once",
        "  with every statement signed twice",
        "  twice to once",
    ] {
        assert!(names.iter().any(|name| name.starts_with(figure)), "`{figure}` is not in {names:?}");
    }
}

/// `.ci/long` runs this.
mod long {
    use super::*;

    #[test]
    #[ignore = "long: run by .ci/long"]
    fn what_tls_and_telemetry_cost_is_measured_on_farms_that_have_them() {
        let (out, _) = well(&["cost", "--rounds", "1", "--actions", "2", "--calls", "10", "--json"]);
        let figures: Value = serde_json::from_str(&out).unwrap();
        let names: Vec<&str> = figures.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        for farm in ["plain:", "TLS and certificates:", "telemetry:", "spans that"] {
            assert!(names.iter().any(|name| name.starts_with(farm)), "`{farm}` is not in {names:?}");
        }
    }
}
