//! What coordinator and worker serve to a scraper, and how the dashboard and the alert rules evaluate it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::two_steps;
use kiln_harness::http;
use kiln_harness::{Farm, cannot_run, until};

/// A farm of one worker that has built something twice, and the addresses at which its processes are scraped.
struct Scraped {
    farm: Farm,
    coordinator: String,
    worker: String,
}

fn scraped() -> Scraped {
    let listen = ["--metrics-listen", "127.0.0.1:0"];
    let farm = Farm::with(&listen, &[]);
    farm.start_worker_with("one", &listen);
    farm.wait_for_worker("one");
    let dir = two_steps();
    farm.build(dir.path(), &[]).well();
    farm.build(dir.path(), &[]).well();
    let address = |name: &str| {
        let log = farm.log(name);
        let line = log.lines().find(|line| line.contains("serving metrics and health")).unwrap();
        line.split("address=").nth(1).unwrap().trim().to_owned()
    };
    Scraped { coordinator: address("coordinator"), worker: address("one"), farm }
}

#[track_caller]
fn expect(samples: &[String], line: &str) {
    assert!(samples.iter().any(|sample| sample == line), "expected `{line}` in {samples:#?}");
}

#[test]
fn builds_hits_workers_and_leases_are_counted_where_they_happen() {
    let scraped = scraped();
    let samples = until("both builds to be counted", || {
        let samples = http::samples(&scraped.coordinator);
        samples.iter().any(|sample| sample == "kiln_builds_total{result=\"succeeded\"} 2").then_some(samples)
    });
    for line in [
        "kiln_builds_running 0",
        "kiln_action_cache_lookups_total{result=\"hit\"} 2",
        "kiln_action_cache_lookups_total{result=\"miss\"} 2",
        "kiln_build_seconds_count{result=\"succeeded\"} 2",
    ] {
        expect(&samples, line);
    }
    let ready = |sample: &&String| sample.starts_with("kiln_workers{") && sample.ends_with("state=\"ready\"} 1");
    assert_eq!(samples.iter().filter(ready).count(), 1, "expected one ready worker in {samples:#?}");

    let samples = http::samples(&scraped.worker);
    expect(&samples, "kiln_worker_running_leases 0");
    expect(&samples, "kiln_worker_leases_total{outcome=\"succeeded\"} 2");
    let value = |name: &str| -> u64 {
        let line = samples.iter().find(|sample| sample.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(value("kiln_worker_input_bytes_total"), 5, "expected `in.txt` to have been fetched, once");
    assert!(value("kiln_worker_cache_bytes") >= 5 && value("kiln_worker_disk_free_bytes") > 0);
}

#[test]
fn a_worker_is_ready_while_it_has_a_coordinator() {
    let scraped = scraped();
    assert_eq!(http::get(&scraped.worker, "/readyz"), (200, "ok\n".to_owned()));
    scraped.farm.kill_coordinator();
    until("the worker to report that it is not ready", || {
        (http::get(&scraped.worker, "/readyz").0 == 503).then_some(())
    });
    assert_eq!(http::get(&scraped.worker, "/healthz").0, 200, "expected no restart to be requested");
}

fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// Every expression of the dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| expressions(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

/// The metrics in an expression, each with the labels that it selects by.
fn uses(text: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    text.match_indices("kiln_")
        .map(|(at, _)| {
            let rest = &text[at..];
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let selector = rest[end..].strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
            let label = |part: &str| part.split(['=', '!']).next().unwrap_or_default().trim().to_owned();
            (rest[..end].to_owned(), selector.split(',').map(label).filter(|label| !label.is_empty()).collect())
        })
        .collect()
}

#[test]
fn dashboard_and_alert_rules_use_only_what_is_exported() {
    let scraped = scraped();
    let texts = [&scraped.coordinator, &scraped.worker].map(|address| http::get(address, "/metrics").1);
    // Every metric has a type, even if it has no samples yet.
    let mut exported = BTreeSet::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) else { continue };
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        exported.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(deployed("grafana/dashboard.json")).unwrap()).unwrap();
    let mut used = Vec::new();
    expressions(&dashboard, &mut used);
    assert!(used.len() > 20, "expected the dashboard to show something, found {used:#?}");
    used.push(std::fs::read_to_string(deployed("prometheus/alerts.yaml")).unwrap());
    used.extend(["amd64", "arm64"].map(scaled_by));
    let used: Vec<_> = used.iter().flat_map(|text| uses(text)).collect();
    for (name, labels) in &used {
        assert!(exported.contains(name), "`{name}` is exported by neither coordinator nor worker: {exported:#?}");
        let samples: Vec<&str> =
            texts.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with(&format!("{name}{{"))).collect();
        for label in labels.iter().filter(|label| !samples.is_empty() && *label != "instance") {
            let has =
                |sample: &&str| sample.contains(&format!("{{{label}=\"")) || sample.contains(&format!(",{label}=\""));
            assert!(samples.iter().any(has), "`{name}` has no label `{label}`: {samples:#?}");
        }
    }
    let used: BTreeSet<&String> = used.iter().map(|(name, _)| name).collect();
    let base = |name: &str| {
        let known = ["_total", "_bucket", "_sum", "_count"];
        known.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name).to_owned()
    };
    let seen: BTreeSet<String> = used.iter().map(|name| base(name)).collect();
    let unseen: Vec<&String> = exported.iter().filter(|name| !seen.contains(&base(name))).collect();
    assert!(unseen.is_empty(), "expected every metric on the dashboard or in a rule; missing: {unseen:?}");
}

/// The query by which KEDA scales a pool of workers.
fn scaled_by(arch: &str) -> String {
    let text = std::fs::read_to_string(deployed(&format!("kubernetes/keda/worker-{arch}.yaml"))).unwrap();
    text.lines().find_map(|line| line.trim().strip_prefix("query: ")).unwrap().to_owned()
}

#[test]
fn a_pool_grows_by_what_waits_and_runs_on_its_own_instruction_set() {
    if Command::new("promtool").arg("--version").output().is_err() {
        return cannot_run("promtool is not installed");
    }
    let series = |name: &str, isa: &str, value: u32| serde_json::json!({ "series": format!("{name}{{isa=\"{isa}\",os=\"debian:12\"}}"), "values": format!("{value}x5") });
    let all = [
        series("kiln_queue_actions", "x86-64", 8),
        series("kiln_queue_actions", "any", 4),
        series("kiln_queue_actions", "arm-a64", 3),
        series("kiln_waiting_targets", "arm-a64", 2),
        series("kiln_running_actions", "x86-64", 16),
    ];
    let expects = |series: &[Value], expected: [u32; 2]| {
        let cases = ["amd64", "arm64"].iter().zip(expected).map(|(arch, value)| {
            let samples = [serde_json::json!({ "labels": "{}", "value": value })];
            serde_json::json!({ "expr": scaled_by(arch), "eval_time": "2m", "exp_samples": samples })
        });
        serde_json::json!({ "interval": "1m", "input_series": series, "promql_expr_test": cases.collect::<Vec<_>>() })
    };
    // No samples must mean no work, rather than a result that KEDA cannot use.
    let tests = serde_json::json!({ "rule_files": [], "tests": [expects(&all, [28, 5]), expects(&[], [0, 0])] });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scalers.yaml");
    std::fs::write(&path, tests.to_string()).unwrap();
    promtool(&["test", "rules"], &path);
}

fn promtool(arguments: &[&str], file: &Path) {
    let output = Command::new("promtool").args(arguments).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "expected `promtool {}` to accept {}: {said}",
        arguments.join(" "),
        file.display()
    );
}

#[test]
fn prometheus_takes_rules_and_dashboard_and_alerts_when_it_should() {
    if Command::new("promtool").arg("--version").output().is_err() {
        return cannot_run("promtool is not installed");
    }
    let rules = deployed("prometheus/alerts.yaml");
    promtool(&["check", "rules"], &rules);
    let dir = tempfile::tempdir().unwrap();
    let cases = include_str!("alerts.yaml").replace("RULES", rules.to_str().unwrap());
    let path = dir.path().join("cases.yaml");
    std::fs::write(&path, cases).unwrap();
    promtool(&["test", "rules"], &path);
    // The dashboard's expressions, as recording rules.
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(deployed("grafana/dashboard.json")).unwrap()).unwrap();
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    let records: Vec<Value> = found
        .iter()
        .enumerate()
        .map(|(number, text)| {
            let text = text.replace("$__rate_interval", "5m");
            serde_json::json!({ "record": format!("panel:{number}"), "expr": text })
        })
        .collect();
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": records }] });
    let path = dir.path().join("dashboard.yaml");
    std::fs::write(&path, groups.to_string()).unwrap();
    promtool(&["check", "rules"], &path);
}
