//! A `kiln.toml` that changes parts of the detected plan.

use crate::{planned, refused};
use kiln_planner::plan::{ArtifactKind, Origin, Plan, Step};

const GO: [(&str, &str); 2] =
    [("go.mod", "module example.com/shop\n\ngo 1.19\n"), ("main.go", "package main\nfunc main() {}\n")];

fn with(text: &str) -> Plan {
    planned(&[&GO[..], &[("kiln.toml", text)]].concat())
}

fn step<'a>(plan: &'a Plan, name: &str) -> &'a Step {
    plan.steps.iter().find(|step| step.name == name).unwrap_or_else(|| panic!("no step `{name}`: {:?}", plan.steps))
}

#[test]
fn a_name_or_a_target_alone_leaves_the_detected_steps() {
    let plain = planned(&GO);
    let named = with("name = \"other\"\nversion = \"2\"\n");
    assert_eq!((named.name.as_str(), named.version.as_deref()), ("other", Some("2")));
    assert_eq!(named.steps, plain.steps);
    assert_eq!((plain.artifacts[0].name.as_str(), named.artifacts[0].name.as_str()), ("shop", "other"));
    let because = &named.origin.parts()[0].because;
    assert!(because.iter().any(|one| one.contains("kiln.toml")), "{because:?}");
    let targeted = with("[targets.prod]\nplatform = \"linux/arm64\"\nos = \"debian:12\"\n");
    assert_eq!((targeted.targets[0].name.as_str(), targeted.targets[0].os.as_deref()), ("prod", Some("debian:12")));
    assert_eq!(targeted.steps, plain.steps);
}

#[test]
fn one_key_of_a_step_is_changed_and_the_rest_stays() {
    let plain = planned(&GO);
    let name = plain.steps.last().unwrap().name.clone();
    let changed =
        with(&format!("[steps.{name}]\nmemory = \"8GiB\"\nenv = {{ GOFLAGS = \"-tags=prod\", X = \"1\" }}\n"));
    let (old, new) = (step(&plain, &name), step(&changed, &name));
    assert_eq!((new.memory_bytes, &new.run, &new.outputs), (8 << 30, &old.run, &old.outputs));
    assert_eq!((new.env["GOFLAGS"].as_str(), new.env["X"].as_str()), ("-tags=prod", "1"));
    assert!(old.env.keys().all(|key| new.env.contains_key(key)));
}

#[test]
fn a_step_that_needs_a_detected_one_is_added() {
    let plain = planned(&GO);
    let last = plain.steps.last().unwrap().name.clone();
    let added = with(&format!("[steps.smoke]\nneeds = [\"{last}\"]\nrun = \"./smoke\"\n"));
    assert_eq!(added.steps.len(), plain.steps.len() + 1);
    assert_eq!(step(&added, "smoke").needs, [last]);
    let asked = with("detect = true\n[steps.lint]\nrun = \"gofmt -l .\"\n");
    assert_eq!(asked.steps.len(), plain.steps.len() + 1);
}

#[test]
fn an_artifact_becomes_an_image_by_naming_its_base() {
    let plan = with("[artifacts.shop]\nkind = \"image\"\nbase = \"debian:12\"\n");
    assert!(matches!(plan.artifacts[0].kind, ArtifactKind::Image(_)), "{:?}", plan.artifacts);
    assert_eq!(plan.artifacts[0].files, planned(&GO).artifacts[0].files);
}

#[test]
fn complete_steps_are_the_whole_plan_as_before() {
    let plan = with("[steps.only]\nrun = \"make\"\noutputs = [\"a\"]\n[artifacts.a]\nfrom = \"only\"\nfiles = \"a\"\n");
    assert_eq!(plan.origin, Origin::KilnToml);
    assert_eq!(plan.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["only"]);
}

#[test]
fn a_change_to_a_step_that_is_not_there_is_refused() {
    let words = refused(&[&GO[..], &[("kiln.toml", "[steps.complie]\nmemory = \"1GiB\"\n")]].concat());
    assert!(words.contains("`[steps.complie]` has no `run`"), "{words}");
    let words = refused(&[("kiln.toml", "[steps.a]\nmemory = \"1GiB\"\n"), ("notes.txt", "")]);
    assert!(words.contains("`[steps.a]` has no `run`"), "{words}");
}
