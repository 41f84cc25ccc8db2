//! `kiln rebuild`: an artifact again from its provenance alone.

use std::time::SystemTime;

use kiln_harness::registry::Registry;
use kiln_harness::{Farm, commit, project, until, write};
use serde_json::Value;

use crate::farm;

fn rebuilt(arguments: &[&str]) -> (i32, Value, String) {
    let ran = farm().kiln(&[&["rebuild", "--json", "--progress", "plain"], arguments].concat());
    (ran.code, serde_json::from_str(&ran.out).unwrap_or(Value::Null), ran.err)
}

fn built(dir: &tempfile::TempDir) -> String {
    let built = farm().build(dir.path(), &["--env", "GREETING=hello"]).well();
    built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned()
}

const SAME: &str = "name = \"again\"\nversion = \"1\"\n[steps.one]\nrun = \"mkdir d; echo $GREETING > d/greeting; cat in > d/in\"\n\
                    outputs = [\"d\"]\n[artifacts.again]\nkind = \"archive\"\nfrom = \"one\"\nfiles = [\"d\"]\n";

#[test]
fn an_artifact_comes_out_the_same_from_what_its_provenance_says() {
    let dir = project(&[("kiln.toml", SAME), ("in", "rebuilt\n")]);
    let id = built(&dir);
    // The sources on the disk, and how they were built, are of no account: the provenance has both.
    write(dir.path(), "in", "other\n");
    let (code, result, err) = rebuilt(&[&id]);
    assert_eq!(code, 0, "{err}");
    assert_eq!((&result["artifact"], &result["result"]["outcome"]), (&id.as_str().into(), &"same".into()));
    assert!(err.contains("one") && err.contains("came out the same from its sources"), "{err}");
    // That is stated, and signed.
    let policy = dir.path().join("policy.toml");
    write(dir.path(), "policy.toml", "reproducible = true\nallow-dirty = true\n");
    let verified = farm().kiln(&["verify", &id, "--farm", &farm().url, "--policy", policy.to_str().unwrap()]);
    assert!(verified.code == 0 && verified.out.contains("built again from its sources"), "{verified:?}");
    std::fs::remove_file(policy).unwrap();
    // Sources that are given must be those.
    let refused = farm().kiln(&["rebuild", &id, "--source", dir.path().to_str().unwrap()]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("has other sources than the artifact"), "{}", refused.err);
    write(dir.path(), "in", "rebuilt\n");
    let (code, ..) = rebuilt(&[&id, "--source", dir.path().to_str().unwrap()]);
    assert_eq!(code, 0);
    assert_eq!(farm().kiln(&["rebuild", "no-such-artifact"]).code, 2);
}

/// What a step writes of the time are seconds: waits for others.
fn until_another_second() {
    let second = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let began = second();
    until("another second", || (second() > began).then_some(()));
}

#[test]
fn what_differs_is_named_in_its_files() {
    let config = SAME.replace("cat in > d/in", "date +%s > d/when");
    let dir = project(&[("kiln.toml", &config), ("in", "different\n")]);
    commit(dir.path());
    let id = built(&dir);
    until_another_second();
    let (code, result, err) = rebuilt(&[&id]);
    assert_eq!(code, 1, "{err}");
    let one = &result["result"]["differences"][0];
    assert_eq!((&result["result"]["outcome"], &one["kind"]), (&"different".into(), &"time".into()), "{result:#}");
    assert!(one["words"].as_str().unwrap().starts_with("member `d/when`: line 1: time stamp"), "{result:#}");
    assert_ne!(result["result"]["made"], id.as_str());
    // What was found is with the artifact, whose record is the same as before.
    let listed: Value = serde_json::from_str(&farm().kiln(&["artifacts", "--json"]).out).unwrap();
    let listed = listed.as_array().unwrap().iter().find(|artifact| artifact["id"] == id.as_str()).unwrap();
    assert_eq!(
        (&listed["reproducibility"]["outcome"], &listed["reproducibility"]["rebuilt"]),
        (&"different".into(), &true.into())
    );
}

#[test]
fn a_rebuilt_image_names_its_layers_and_their_files() {
    let config = "name = \"layered\"\nversion = \"1\"\n[steps.one]\nrun = \"mkdir d; date +%s > d/when\"\noutputs = [\"d\"]\n\
                  [artifacts.layered]\nkind = \"image\"\nbase = \"scratch\"\nfrom = \"one\"\nfiles = [{ path = \"d\", dest = \"/d\" }]\ncmd = [\"/d/when\"]\n";
    let dir = project(&[("kiln.toml", config)]);
    let id = built(&dir);
    until_another_second();
    let (code, result, err) = rebuilt(&[&id]);
    assert_eq!(code, 1, "{err}");
    let differences = result["result"]["differences"].as_array().unwrap();
    let layer = differences.iter().find(|one| one["path"] == "layer 1").unwrap_or_else(|| panic!("{result:#}"));
    assert_eq!(layer["kind"], "time");
    assert!(layer["words"].as_str().unwrap().starts_with("member `d/when`: line 1"), "{layer}");
}

#[test]
fn a_tag_stands_for_the_image_that_the_artifact_was_made_with() {
    let Some(registry) = Registry::start() else { return };
    let farm = Farm::with(&["--allow-registry", &registry.name], &["one"]);
    let tag = format!("{}/base:1", registry.name);
    let base = |content: &str| {
        let config = "name = \"base\"\nversion = \"1\"\n[steps.one]\nrun = \"mkdir d; cat in > d/base\"\noutputs = [\"d\"]\n\
                      [artifacts.base]\nkind = \"image\"\nbase = \"scratch\"\nfrom = \"one\"\nfiles = [{ path = \"d\", dest = \"/d\" }]\n";
        let dir = project(&[("kiln.toml", config), ("in", content)]);
        farm.build(dir.path(), &["--push", &tag, "--push-over"]).well();
    };
    base("first\n");
    let config = format!(
        "name = \"on\"\nversion = \"1\"\n[steps.one]\nrun = \"mkdir e; cat in > e/own\"\noutputs = [\"e\"]\n\
         [artifacts.on]\nkind = \"image\"\nbase = \"{tag}\"\nfrom = \"one\"\nfiles = [{{ path = \"e\", dest = \"/e\" }}]\n"
    );
    let dir = project(&[("kiln.toml", &config), ("in", "own\n")]);
    let built = || farm.build(dir.path(), &[]).well().of_type("artifact")[0]["id"].as_str().unwrap().to_owned();
    let id = built();
    base("second\n");
    let again = farm.kiln(&["rebuild", "--progress", "plain", &id]);
    assert!(again.code == 0 && again.err.contains("came out the same from its sources"), "{again:?}");
    assert_ne!(built(), id, "a new build is made with what the tag stands for now");
}
