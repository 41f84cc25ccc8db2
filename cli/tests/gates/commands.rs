//! Commands beside an artifact.

use kiln_harness::registry::Registry;
use kiln_harness::{Farm, write};
use serde_json::json;

use super::{edit, ended, image, kept_out, passed, plain, stored};

#[test]
fn a_command_sees_the_artifact_its_bill_of_materials_and_the_sources_that_it_names() {
    let run = "test \"$(cat \"$KILN_ARTIFACT/out\")\" = 'of seen'; grep -q CycloneDX \"$KILN_SBOM\"; test \"$KILN_ARTIFACT_NAME\" = seen\n\
               case $KILN_PLATFORM in linux/*) ;; *) exit 9 ;; esac; test ! -e in; cat rules/one; test \"$MODE\" = strict; test ! -e \"$KILN_PROVENANCE\" || grep -q slsa.dev \"$KILN_PROVENANCE\"";
    let gates = format!(
        "[gates.look]\nartifact = \"seen\"\ninputs = [\"rules\"]\nenv = {{ MODE = \"strict\" }}\nrun = '''{run}'''\n"
    );
    let dir = plain("seen", &gates);
    write(dir.path(), "rules/one", "what the rule says\n");
    let farm = Farm::shared();
    let built = farm.build(dir.path(), &[]).well();
    assert_eq!(ended(&built), [passed("look", false)]);
    assert!(built.log().contains("what the rule says"), "{}", built.log());
    assert_eq!(built.caches()["gate:look"], "miss");
    let [artifact] = &stored(farm, "seen")[..] else { panic!("expected one artifact") };
    assert_eq!(artifact["gates"][0]["name"], "look");
    assert_eq!(artifact["gates"][0]["result"], "passed");
    assert_eq!(artifact["gates"][0]["predicate_type"], "https://in-toto.io/attestation/test-result/v0.1");
    let listed = farm.kiln(&["artifacts", "seen"]);
    assert!(listed.out.contains("look"), "{listed:?}");
}

#[test]
fn all_gates_that_fail_are_told_of_and_nothing_is_stored_or_pushed() {
    let Some(registry) = Registry::start() else { return };
    let gates = "[gates.first]\nrun = \"echo 'error: not good enough'; exit 3\"\n[gates.second]\nuse = \"size\"\nmax = \"1B\"\n\
                 [gates.third]\nrun = \"true\"\n";
    let Some(dir) = image("kept", "RUN echo one > /one\n", gates) else { return };
    let farm = Farm::shared();
    let to = format!("{}/shop/kept", registry.name);
    let built = farm.build(dir.path(), &["--push", &to]);
    let words = [
        "gate `first` of artifact `kept`: failed with exit code 3",
        "gate `second` of artifact `kept`: kept: ",
        "its budget of 1",
    ];
    kept_out(farm, &built, "kept", &words);
    let results: Vec<_> = ended(&built).into_iter().map(|(gate, result, _)| (gate, result)).collect();
    let expected = [("first", "failed"), ("second", "failed"), ("third", "passed")];
    assert_eq!(results, expected.map(|(gate, result)| (gate.to_owned(), result.to_owned())));
    assert!(built.of_type("pushed").is_empty());
    assert!(!registry.log().contains("PUT"), "nothing is sent to the registry: {}", registry.log());
    assert!(
        !dir.path().join("kiln-out").exists()
            || kiln_harness::find(dir.path(), "index.json")
                .is_some_and(|path| path.starts_with(dir.path().join("base")))
    );
}

#[test]
fn a_gate_that_hangs_is_stopped_and_keeps_the_artifact_out() {
    let dir = plain("hung", "[gates.wait]\nrun = \"sleep 600\"\ntimeout = \"1s\"\n");
    let farm = Farm::shared();
    let built = farm.build(dir.path(), &[]);
    kept_out(farm, &built, "hung", &["gate `wait` of artifact `hung`: was stopped after its 1 s timeout"]);
}

#[test]
fn a_gate_is_a_hit_as_long_as_the_artifact_is_the_same_and_runs_for_another_one() {
    let dir = plain("again", "[gates.look]\nrun = \"grep -q . $KILN_ARTIFACT/out\"\n");
    let farm = Farm::shared();
    kiln_harness::commit(dir.path());
    assert_eq!(ended(&farm.build(dir.path(), &[]).well()), [passed("look", false)]);
    edit(dir.path());
    kiln_harness::commit(dir.path());
    assert_eq!(
        ended(&farm.build(dir.path(), &[]).well()),
        [passed("look", true)],
        "another commit of the same content"
    );
    write(dir.path(), "in", "something else\n");
    assert_eq!(ended(&farm.build(dir.path(), &[]).well()), [passed("look", false)]);
}

#[test]
fn a_gate_that_asks_for_the_provenance_sees_the_commit() {
    let dir =
        plain("proven", "[gates.origin]\nrun = \"grep -q buildDefinition $KILN_PROVENANCE; cat $KILN_PROVENANCE\"\n");
    let commit = kiln_harness::commit(dir.path());
    let built = Farm::shared().build(dir.path(), &[]).well();
    assert!(built.log().contains(&commit), "{}", built.log());
    assert!(!built.log().contains("invocationId") && !built.log().contains("startedOn"), "{}", built.log());
}

#[test]
fn a_gate_that_is_new_counts_for_an_artifact_that_is_there() {
    let dir = plain("later", "");
    let farm = Farm::shared();
    farm.build(dir.path(), &[]).well();
    assert_eq!(stored(farm, "later")[0]["gates"], json!([]));
    let config = std::fs::read_to_string(dir.path().join("kiln.toml")).unwrap();
    write(dir.path(), "kiln.toml", &format!("{config}[gates.look]\nrun = \"true\"\n"));
    let again = farm.build(dir.path(), &[]).well();
    assert_eq!(ended(&again), [passed("look", false)]);
    assert_eq!(stored(farm, "later")[0]["gates"][0]["name"], "look");
    write(dir.path(), "kiln.toml", &format!("{config}[gates.look]\nrun = \"exit 1\"\n"));
    let refused = farm.build(dir.path(), &[]);
    assert_eq!(refused.0.code, 1, "{:?}", refused.0);
}

#[test]
fn a_report_becomes_what_is_attested() {
    let report = r#"{"scanner":{"uri":"urn:test","version":"1","db":{},"result":[]},"metadata":{}}"#;
    let gates = format!(
        "[gates.scan]\nrun = '''echo '{report}' > report.json'''\npredicate = \"vuln\"\nreport = \"report.json\"\n\
         [gates.unit]\nrun = '''echo '<testsuite><testcase name=\"answers\"/></testsuite>' > junit.xml'''\nreport = \"junit.xml\"\n"
    );
    let dir = plain("told", &gates);
    let farm = Farm::shared();
    farm.build(dir.path(), &[]).well();
    let gates = stored(farm, "told")[0]["gates"].clone();
    let kind = |name: &str| {
        let all = gates.as_array().unwrap();
        all.iter().find(|gate| gate["name"] == name).unwrap()["predicate_type"].as_str().unwrap().to_owned()
    };
    assert_eq!(kind("scan"), "https://in-toto.io/attestation/vulns/v0.1");
    assert_eq!(kind("unit"), "https://in-toto.io/attestation/test-result/v0.1");
    let dir = plain(
        "untold",
        "[gates.scan]\nrun = \"echo {} > report.json\"\npredicate = \"vuln\"\nreport = \"report.json\"\n",
    );
    let built = farm.build(dir.path(), &[]);
    kept_out(farm, &built, "untold", &["its report `report.json` is no predicate", "`scanner.uri`"]);
}

#[test]
fn a_gate_of_an_artifact_of_a_platform_without_workers_says_so_and_nothing_is_stored() {
    let Some(dir) = image("foreign", "COPY Dockerfile /here\n", "[gates.look]\ninside = true\nrun = \"true\"\n") else {
        return;
    };
    let other = if cfg!(target_arch = "x86_64") { "arm64" } else { "amd64" };
    // An image of the other platform, which is only copied together: no worker is needed for it.
    write(dir.path(), "Dockerfile", "FROM scratch\nCOPY kiln.toml /here\n");
    let farm = Farm::shared();
    let built = farm.build(dir.path(), &["--platform", &format!("linux/{other}"), "--queue-timeout", "1s"]);
    assert_eq!(built.0.code, 3, "expected the farm's failure, found {:?}", built.0);
    assert!(built.message().contains("gate `look` of artifact `foreign`"), "{}", built.message());
    assert!(built.message().contains(other), "{}", built.message());
    assert!(stored(farm, "foreign").is_empty());
}
