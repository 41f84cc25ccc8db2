//! What earlier runs of a step took: shown before it runs, and what it reserves with `memory = "auto"`.

#![allow(clippy::unwrap_used)]

use kiln_harness::guarded::well;
use kiln_harness::{Built, Farm, project, write};

/// A step that takes this much memory for a moment; what is needed is in the file `mib`.
const CONFIG: &str = r#"name = "NAME"
version = "1"
[steps.work]
inputs = ["mib", "in"]
run = '''
python3 -c '
import sys, time
held = bytearray(int(open("mib").read()) << 20)
for at in range(0, len(held), 4096): held[at] = 1
time.sleep(1)
'
cp in out
'''
outputs = ["out"]
memory = "auto"
"#;

fn with(name: &str, mib: u32) -> tempfile::TempDir {
    project(&[("kiln.toml", &CONFIG.replace("NAME", name)), ("mib", &mib.to_string()), ("in", "0")])
}

fn warnings(built: &Built) -> Vec<String> {
    built.of_type("warning").iter().map(|event| event["text"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_step_that_ran_before_is_expected_to_take_as_long() {
    let farm = Farm::shared();
    let dir = with("expected", 10);
    let plan = || well(farm.kiln(&["plan", dir.path().to_str().unwrap()]));
    assert!(!plan().contains("takes "), "expected nothing to be known");
    let first = farm.build(dir.path(), &[]).well();
    assert!(first.of_type("step_started")[0]["expected_ms"].is_null());
    let about = plan();
    assert!(about.contains("takes    about 1") && about.contains("memory as earlier runs used"), "{about}");
    write(dir.path(), "in", "1");
    let second = farm.build(dir.path(), &[]).well();
    assert_eq!(second.caches()["work"], "miss");
    let expected = second.of_type("step_started")[0]["expected_ms"].as_u64().unwrap();
    assert!(expected >= 1000, "{expected}");
    // It is no part of anything's key.
    assert_eq!(farm.build(dir.path(), &[]).well().caches()["work"], "hit");
    write(dir.path(), "kiln.toml", &CONFIG.replace("NAME", "expected").replace("sleep(1)", "sleep(0)"));
    assert!(!plan().contains("takes "), "expected another command to be another kind of step");
}

#[test]
fn a_step_with_too_little_memory_runs_again_with_more_and_begins_with_enough_the_next_time() {
    let farm = Farm::shared();
    let dir = with("memory", 1100);
    let first = farm.build(dir.path(), &[]).well();
    let told = warnings(&first);
    assert!(
        told.iter().any(|text| text.contains("used more than 1024 MiB of memory; it runs again with 2048 MiB")),
        "{told:?}"
    );
    write(dir.path(), "in", "1");
    let second = farm.build(dir.path(), &[]).well();
    assert_eq!((second.caches()["work"].as_str(), warnings(&second)), ("miss", Vec::new()));
    // Without `auto`, it is the user's decision.
    let fixed = CONFIG.replace("NAME", "memory").replace("\"auto\"", "\"256MiB\"");
    write(dir.path(), "kiln.toml", &fixed);
    let failed = farm.build(dir.path(), &[]);
    assert!(failed.0.code == 1 && failed.0.out.contains("limit of 256 MiB of memory"), "{}", failed.0.out);
}
