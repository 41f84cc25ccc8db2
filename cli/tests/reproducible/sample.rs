//! The farm's own sample: steps that run again when nobody waits for them.

use kiln_harness::{Farm, project, until};
use serde_json::Value;

const CONFIG: &str = "name = \"sampled\"\nversion = \"1\"\n[steps.one]\nrun = \"date +%s > when\"\noutputs = [\"when\"]\n\
                      [artifacts.sampled]\nkind = \"archive\"\nfrom = \"one\"\nfiles = [\"when\"]\n";

#[test]
fn a_sample_fails_no_build_and_is_recorded_logged_and_counted() {
    let farm = Farm::with(&["--verify-sample", "100%", "--metrics-listen", "127.0.0.1:0"], &["one", "two"]);
    let dir = project(&[("kiln.toml", CONFIG)]);
    let built = farm.build(dir.path(), &[]).well();
    assert!(built.of_type("step_again").is_empty(), "nobody waits for it");
    let found = until("the sample", || {
        let listed: Value = serde_json::from_str(&farm.kiln(&["artifacts", "--json"]).out).unwrap();
        Some(listed[0]["reproducibility"].clone()).filter(|found| !found.is_null())
    });
    assert_eq!(
        (&found["outcome"], &found["sampled_of"], &found["build"]),
        (&"different".into(), &1.into(), &built.id().as_str().into())
    );
    let log = farm.log("coordinator");
    assert!(log.contains("steps made something else when they ran again") && log.contains("time stamp"), "{log}");
    let line = log.lines().find(|line| line.contains("serving metrics and health")).unwrap();
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let (_, metrics) = kiln_harness::http::get(address.trim_start_matches("http://"), "/metrics");
    assert!(metrics.contains("kiln_steps_reproduced_total{result=\"different\"} 1"), "{metrics}");
}

#[test]
fn an_invalid_sample_is_refused() {
    let refused = Farm::start(&[]).kiln(&["coordinator", "--verify-sample", "2", "--listen", "127.0.0.1:1"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("`2` is not a percentage from `0%` to `100%`"), "{}", refused.err);
}
