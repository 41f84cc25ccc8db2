//! Commands inside an image.

use kiln_harness::{Farm, write};

use super::{ended, image, kept_out, passed, stored};

const DOCKERFILE: &str =
    "RUN echo one > /one && mkdir /srv && chown 1000:1000 /srv\nENV MODE=prod\nWORKDIR /srv\nUSER app\n";

#[test]
fn a_command_runs_inside_the_image_as_its_user_with_its_variables_and_directory() {
    let run = "test \"$(id -u):$PWD:$MODE\" = 1000:/srv:prod; test \"$(cat /one)\" = one; echo x > here; test ! -w /one\n\
               ls /sys/class/net | grep -qx lo; test \"$(ls /sys/class/net | wc -l)\" = 1\n\
               grep -q CycloneDX \"$KILN_SBOM\"; test -e \"$KILN_ARTIFACT/index.json\"; grep -q rule \"$KILN_INPUTS/rules/one\"; test \"$OWN\" = gate";
    let report = r#"{"scanner":{"uri":"urn:test","result":[]}}"#;
    let gates = format!(
        "[gates.smoke]\ninside = true\ninputs = [\"rules\"]\nenv = {{ OWN = \"gate\" }}\nrun = '''{run}'''\n\
         [gates.files]\ninside = true\nrun = \"grep -q given $KILN_INPUTS/made\"\nfiles = {{ made = \"given\" }}\n\
         [gates.scan]\ninside = true\nrun = '''echo '{report}' > found.json'''\npredicate = \"vuln\"\nreport = \"found.json\"\n"
    );
    let Some(dir) = image("inside", DOCKERFILE, &gates) else { return };
    write(dir.path(), "rules/one", "a rule\n");
    let farm = Farm::shared();
    let all = |cached: bool| ["files", "scan", "smoke"].map(|name| passed(name, cached));
    assert_eq!(ended(&farm.build(dir.path(), &[]).well()), all(false));
    assert_eq!(ended(&farm.build(dir.path(), &[]).well()), all(true));
    // The image is stored as it was before the gate wrote to it.
    let [artifact] = &stored(farm, "inside")[..] else { panic!("expected one artifact") };
    assert!(artifact["gates"].as_array().unwrap().iter().all(|gate| gate["result"] == "passed"));
    assert_eq!(artifact["gates"][2]["predicate_type"], "https://in-toto.io/attestation/vulns/v0.1");
}

#[test]
fn a_failing_command_inside_keeps_the_image_out_and_says_what_it_printed() {
    let gates = "[gates.smoke]\ninside = true\nrun = \"echo 'error: no such table' >&2; exit 4\"\n";
    let Some(dir) = image("inside-bad", DOCKERFILE, gates) else { return };
    let farm = Farm::shared();
    let built = farm.build(dir.path(), &[]);
    kept_out(
        farm,
        &built,
        "inside-bad",
        &["gate `smoke` of artifact `inside-bad`: failed with exit code 4", "no such table"],
    );
    assert!(built.log().contains("error: no such table"), "{}", built.log());
}

#[test]
fn an_image_without_a_shell_runs_a_program_and_says_what_it_lacks_for_a_command() {
    let gates = "[gates.program]\ninside = true\nrun = [\"/busybox\", \"true\"]\n";
    let Some(dir) = image("shellless", "", gates) else { return };
    write(dir.path(), "Dockerfile", "FROM base AS base\nFROM scratch\nCOPY --from=base /bin/busybox /busybox\n");
    let farm = Farm::shared();
    assert_eq!(ended(&farm.build(dir.path(), &[]).well()), [passed("program", false)]);
    let Some(dir) = image("shellless-bad", "", "[gates.command]\ninside = true\nrun = \"true\"\n") else { return };
    write(dir.path(), "Dockerfile", "FROM base AS base\nFROM scratch\nCOPY --from=base /bin/busybox /busybox\n");
    let built = farm.build(dir.path(), &[]);
    kept_out(farm, &built, "shellless-bad", &["gate `command` of artifact `shellless-bad`", "exit code 127"]);
    assert!(built.log().contains("/bin/sh"), "{}", built.log());
}

#[test]
fn an_image_of_steps_is_entered_as_one_of_a_dockerfile_is() {
    let config = "name = \"stepped\"\nversion = \"1\"\n[steps.build]\ninputs = [\"in\"]\nrun = \"cat in > data\"\noutputs = [\"data\"]\n\
                  [artifacts.stepped]\nfrom = \"build\"\nfiles = [\"data\"]\nkind = \"image\"\nbase = \"./base\"\nworkdir = \"/srv\"\nuser = \"1000:1000\"\n\
                  [gates.smoke]\ninside = true\nrun = \"test \\\"$(id -u):$(cat data)\\\" = 1000:given\"\n";
    let Some(dir) = image("stepped", "", "") else { return };
    write(dir.path(), "kiln.toml", config);
    write(dir.path(), "in", "given\n");
    assert_eq!(ended(&Farm::shared().build(dir.path(), &[]).well()), [passed("smoke", false)]);
}

#[test]
fn each_platform_of_an_image_passes_its_own_gates() {
    let own = kiln_harness::bases::own_architecture();
    let gates = format!(
        "[gates.size]\nuse = \"size\"\nmax = \"1MB\"\n[gates.layout]\nplatform = \"linux/{own}\"\nrun = \"grep -rq ${{KILN_PLATFORM#linux/}} $KILN_ARTIFACT\"\n"
    );
    let Some(dir) = image("both", "", &gates) else { return };
    // Only copied together, so the other platform needs no worker; the command names the one that it runs on.
    write(dir.path(), "Dockerfile", "FROM scratch\nCOPY kiln.toml /here\n");
    let farm = Farm::shared();
    let built = farm.build(dir.path(), &["--platform", "linux/amd64,linux/arm64"]).well();
    let mut results: Vec<_> = built
        .of_type("gate_finished")
        .into_iter()
        .map(|one| format!("{} {} {}", one["platform"], one["gate"], one["result"]).replace('"', ""))
        .collect();
    results.sort();
    let expected = [
        "linux/amd64 layout passed",
        "linux/amd64 size passed",
        "linux/arm64 layout passed",
        "linux/arm64 size passed",
    ];
    assert_eq!(results, expected);
    assert!(stored(farm, "both").iter().all(|artifact| artifact["gates"].as_array().unwrap().len() == 2));
}

#[test]
fn the_example_passes_all_its_gates() {
    if !kiln_harness::has("go") {
        return;
    }
    let dir = kiln_harness::example("gates");
    let built = Farm::shared().build(dir.path(), &[]).well();
    let expected = ["http", "layout", "licenses", "size", "vulns"].map(|name| passed(name, false));
    assert_eq!(ended(&built), expected);
    assert!(built.log().contains("200 OK: well") && built.log().contains("runs as nobody special"), "{}", built.log());
}
