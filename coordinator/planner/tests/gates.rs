//! `[gates.NAME]` of a `kiln.toml`.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use kiln_planner::plan::gates::{Check, Place, Predicate, Severity};
use kiln_planner::plan::{Gate, MemorySource, Options, Plan, Platform, Scope, plan, plan_for, to_kiln_toml};

const SHOP: &str = "name = \"shop\"\n[steps.build]\nrun = \"make\"\noutputs = [\"out\"]\n[artifacts.shop]\nfrom = \"build\"\nfiles = \"out\"\nkind = \"image\"\nbase = \"scratch\"\n[artifacts.cli]\nfrom = \"build\"\nfiles = \"out/cli\"\n";

fn source(gates: &str) -> MemorySource {
    [("kiln.toml", format!("{SHOP}{gates}").as_str()), ("Makefile", "all:\n")].into_iter().collect()
}

fn planned(gates: &str) -> Plan {
    plan(&source(gates), &Options::new(Platform::Amd64)).unwrap()
}

fn refused(gates: &str) -> String {
    plan(&source(gates), &Options::new(Platform::Amd64)).unwrap_err().to_string()
}

#[test]
fn a_gate_has_the_keys_of_a_step_and_sees_no_sources_unless_it_names_some() {
    let plan = planned(
        "[gates.smoke]\nartifact = \"shop\"\ninside = true\nrun = \"test -x /out/shop\"\ntimeout = \"2m\"\nenv = { A = \"b\" }\n\
         [gates.size]\nuse = \"size\"\nmax = \"100MB\"\n",
    );
    let [smoke, size] = &plan.gates[..] else { panic!("expected two gates, found {:?}", plan.gates) };
    let command = smoke.command().unwrap();
    assert_eq!((command.place.clone(), command.step.timeout), (Place::Inside, Some(Duration::from_secs(120))));
    assert_eq!((&command.step.inputs[..], command.step.env["A"].as_str()), (&["!**".to_owned()][..], "b"));
    assert!(smoke.is_for("shop") && !smoke.is_for("cli") && size.is_for("cli"));
    assert_eq!(size.check, Check::Size { max_bytes: 100_000_000 });
}

#[test]
fn a_plan_with_gates_is_written_so_that_it_is_read_again() {
    let text = "[gates.smoke]\nartifact = \"shop\"\nstart = true\nport = 8080\nimage = \"busybox\"\nrun = \"wget -qO- http://127.0.0.1:8080/\"\n\
         [gates.selfcheck]\nartifact = \"shop\"\ninside = true\nrun = [\"/out/shop\", \"--check\"]\ntimeout = \"5s\"\n\
         [gates.scan]\nartifact = [\"cli\"]\nrun = \"./scan $KILN_SBOM >report.json\"\ninputs = [\"scan\"]\npredicate = \"vuln\"\nreport = \"report.json\"\nsecrets = [\"TOKEN\"]\ncache = false\nnetwork = true\n\
         [gates.vulns]\nuse = \"vulns\"\ndatabase = \"osv\"\nfail_on = \"medium\"\nignore = \"osv-ignored\"\nunknown = \"warn\"\n\
         [gates.licenses]\nuse = \"licenses\"\nallow = [\"MIT\", \"Apache-2.0\"]\nknown = { left-pad = \"WTFPL\" }\n\
         [gates.size]\nuse = \"size\"\nmax = \"3MiB\"\n";
    let first = planned(text);
    let written = to_kiln_toml(&first);
    let again: MemorySource = [("kiln.toml", written.as_str()), ("Makefile", "all:\n")].into_iter().collect();
    assert_eq!(plan(&again, &Options::new(Platform::Amd64)).unwrap().gates, first.gates, "{written}");
    let command = |name: &str| first.gates.iter().find(|gate| gate.name == name).and_then(Gate::command).unwrap();
    assert_eq!(command("smoke").place, Place::Started { port: Some(8080), ready: None });
    assert_eq!(command("selfcheck").words, ["/out/shop", "--check"]);
    assert_eq!(command("scan").predicate, Predicate::Vulnerabilities);
    let Check::Vulnerabilities(scan) = &first.gates[3].check else { panic!("{:?}", first.gates[3]) };
    assert_eq!((scan.fail_on, scan.unknown_fails), (Severity::Medium, false));
}

#[test]
fn what_cannot_be_a_gate_is_refused_with_its_place_and_a_suggestion() {
    let cases = [
        (
            "[gates.a]\nartifact = \"shap\"\nrun = \"true\"\n",
            "gate `a` is for unknown artifact `shap`: did you mean `shop`?",
        ),
        (
            "[gates.a]\nrun = \"true\"\n[gates.a]\nrun = \"false\"\n",
            "line 15: duplicate key `a`: each name is used once",
        ),
        (
            "[gates.a]\ninside = true\nrun = \"true\"\n",
            "artifact `cli` is of kind `binary`: name the images in `artifact`",
        ),
        (
            "[gates.a]\nartifact = \"shop\"\ninside = true\nimage = \"x\"\nrun = \"true\"\n",
            "line 16: unknown key `image`",
        ),
        ("[gates.a]\nuse = \"vuln\"\n", "line 14: `use` is `vuln`: expected `vulns`, `licenses` or `size`"),
        ("[gates.a]\n", "line 13: `[gates.a]` has no `run`: add one"),
        (
            "[gates.a]\nrun = \"true\"\nmax = \"1MB\"\n",
            "line 15: unknown key `max` in `[gates.a]`: it is for a gate with `use`",
        ),
        ("[gates.a]\nuse = \"size\"\nmax = \"12\"\n", "line 15: `max` is `12`: expected a size"),
        ("[gates.a]\nuse = \"size\"\nmax = \"1MB\"\nfail_on = \"high\"\n", "unknown key `fail_on`"),
        (
            "[gates.a]\nrun = \"true\"\nport = 80\n",
            "line 15: unknown key `port` in `[gates.a]`: it is for a gate with `start = true`",
        ),
        ("[gates.a]\nartifact = \"shop\"\nstart = true\nrun = \"true\"\n", "`[gates.a]` has no `port`: add one"),
        (
            "[gates.a]\nartifact = \"shop\"\nstart = true\nport = 0\nrun = \"true\"\n",
            "line 16: `port` is `0`: expected a port",
        ),
        ("[gates.a]\nrun = \"true\"\npredicate = \"vuln\"\n", "`[gates.a]` has no `report`: add one"),
        ("[gates.a]\nrun = \"true\"\ninputs = [\"../x\"]\n", "gate `a` has `../x` in `inputs`, which"),
        (
            "[gates.a]\nrun = \"true\"\nenv = { KILN_X = \"1\" }\n",
            "variables that start with `KILN_` are the farm's own",
        ),
        ("[gates.a]\nrunn = \"true\"\n", "line 14: unknown key `runn` in `[gates.a]`: did you mean `run`?"),
        ("[gates.a]\nrun = [\"a\", \"b\"]\n", "line 14: `run` must be a string, found a list"),
        ("[gates.a]\nrun = \"true\"\nmemory = \"auto\"\n", "line 15: `memory` is `auto`: expected a size"),
        (
            "[gates.a]\nartifact = \"shop\"\ninside = true\nrun = \"true\"\nreport = \"x\"\n",
            "line 17: `report` is `x`: expected none, because results of tests",
        ),
        ("[gates.A]\nrun = \"true\"\n", "invalid gate name `A`"),
    ];
    for (text, expected) in cases {
        let words = refused(text);
        assert!(words.contains(expected), "expected `{expected}`, found `{words}`, of\n{text}");
    }
}

#[test]
fn tests_have_no_gates() {
    let text = "[steps.unit]\nrun = \"make test\"\ntest = true\n[gates.a]\nrun = \"true\"\n";
    let tests = plan_for(&source(text), &Options::new(Platform::Amd64), Scope::Tests).unwrap();
    assert!(tests.gates.is_empty());
}

#[test]
fn a_project_in_a_directory_has_its_gates_there() {
    let text = format!(
        "{SHOP}[gates.a]\nartifact = \"cli\"\nrun = \"./check\"\ninputs = [\"check\"]\n[gates.v]\nuse = \"vulns\"\ndatabase = \"osv\"\n"
    );
    let files = [("shop/kiln.toml", text.as_str()), ("shop/check", ""), ("shop/Makefile", ""), ("other/x", "")];
    let options = Options { directory: "shop".into(), ..Options::new(Platform::Amd64) };
    let plan = plan(&files.into_iter().collect::<MemorySource>(), &options).unwrap();
    let step = &plan.gates[0].command().unwrap().step;
    assert_eq!((&step.inputs[..1], step.working_directory.as_deref()), (&["shop/check".to_owned()][..], Some("shop")));
    let Check::Vulnerabilities(scan) = &plan.gates[1].check else { panic!("{:?}", plan.gates[1]) };
    assert_eq!(scan.database, "shop/osv");
}

#[test]
fn the_guides_own_gates_are_valid() {
    let readme = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let (_, section) = text.split_once("### Gates\n").unwrap();
    let (_, block) = section.split_once("```toml\n").unwrap();
    let (block, _) = block.split_once("\n```").unwrap();
    let block = block.replace("\"shop\"", "\"cli\"").replace("\"service\"", "\"shop\"");
    let names: Vec<String> = planned(&block).gates.into_iter().map(|gate| gate.name).collect();
    assert_eq!(names, ["format", "smoke", "http", "vulns", "licenses", "size"]);
}
