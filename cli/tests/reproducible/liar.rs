//! A worker that makes something else than it was told, on a machine that looks like the others.

use std::os::unix::fs::PermissionsExt;

use kiln_harness::{Farm, cannot_run, find, project};
use serde_json::json;

use crate::{again, compared};

const CONFIG: &str = "name = \"word\"\nversion = \"1\"\n[steps.turn]\ninputs = [\"in\"]\nrun = \"tac in > turned\"\noutputs = [\"turned\"]\n\
                      [artifacts.word]\nfrom = \"turn\"\nfiles = [\"turned\"]\nkind = \"binary\"\ncheck_elf = false\n";

#[test]
fn a_worker_that_lies_is_found_out_by_another_and_what_it_made_is_withdrawn() {
    if !nix::unistd::geteuid().is_root() {
        return cannot_run("only root can give a worker another `tac`");
    }
    let farm = Farm::start(&[]);
    // Its system has the same packages and tools, and a program that is not what it was.
    let evil = farm.dir.path().join("tac");
    std::fs::write(&evil, "#!/bin/sh\necho lie\n").unwrap();
    std::fs::set_permissions(&evil, std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!("mount --bind {} /usr/bin/tac && exec \"$@\"", evil.display());
    let before = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    farm.start_worker_behind(&before, &farm.url, "liar", &[], &[]);
    farm.wait_for_worker("liar");
    let dir = project(&[("kiln.toml", CONFIG), ("in", "one\ntwo\n")]);
    let made = || std::fs::read_to_string(find(&dir.path().join("kiln-out"), "turned").unwrap()).unwrap();
    let built = farm.build(dir.path(), &[]).well();
    let lie = built.of_type("artifact")[0]["id"].clone();
    assert_eq!(made(), "lie\n", "nobody has looked yet");

    farm.start_worker("honest");
    farm.wait_for_worker("honest");
    let found = farm.build(dir.path(), &["--verify-reproducible"]);
    assert_eq!(found.0.code, 1, "{}", found.0.err);
    assert_eq!(compared(&found)["outcome"], "different");
    let step = &again(&found)["turn"];
    assert_eq!((&step["first"]["worker"], &step["second"]["worker"]), (&json!("liar"), &json!("honest")), "{step:#}");
    assert_eq!(step["differences"][0]["path"], "turned", "{step:#}");
    assert!(found.message().contains("is not reproducible"), "{}", found.message());

    let ran = farm.kiln(&["farm", "distrust", "liar", "--since", "1h", "--json"]);
    let withdrawn: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(withdrawn["artifacts"][0]["id"], lie, "{withdrawn:#}");
    farm.build(dir.path(), &[]).well();
    assert_eq!(made(), "two\none\n");
}
