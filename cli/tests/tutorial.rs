//! The guide's first chapter, typed as it stands by a user of a fresh Debian who has nothing but `kiln` and the packages that the chapter names.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use kiln_harness::machine::Machine;
use kiln_harness::registry::Registry;
use kiln_harness::{Ran, bases};

const CHAPTER: &str = "## From nothing to an image for two architectures\n";

fn chapter() -> String {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    guide.split_once(CHAPTER).unwrap().1.split("\n## ").next().unwrap().to_owned()
}

/// The commands of the chapter.
fn commands(chapter: &str) -> String {
    let blocks = chapter.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    blocks.collect()
}

/// The packages that its reader is to install.
fn packages(chapter: &str) -> Vec<&str> {
    let (_, after) = chapter.split_once("`apt-get install ").unwrap();
    after.split_once('`').unwrap().0.split_whitespace().collect()
}

#[test]
fn the_first_chapter_leads_from_nothing_to_an_image_for_two_architectures_in_a_registry() {
    let chapter = chapter();
    let Some(base) = bases::fresh(&packages(&chapter)) else { return };
    let Some(registry) = Registry::start() else { return };
    let machine = Machine::of(&base);
    let mut install = Command::new("strip");
    install.arg("-o").arg(machine.at("usr/local/bin/kiln")).arg(env!("CARGO_BIN_EXE_kiln"));
    assert!(install.status().unwrap().success());
    let user = Ran::from(machine.command("root", "useradd --create-home me"));
    assert_eq!(user.code, 0, "{user:?}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let farm = format!("127.0.0.1:{port}");
    let typed = commands(&chapter).replace("127.0.0.1:8980", &farm).replace("localhost:5000", &registry.name);
    // In a terminal of its own, which the user sees to be ready.
    let (before, after) = typed.split_once(" &\n").unwrap();
    let ready =
        format!("until kiln status --farm http://{farm} > /dev/null 2>&1; do kill -0 $! || exit; sleep 0.1; done");
    let script = format!("set -eux\ntrap 'kill %1; wait' EXIT\n{before} > up.log 2>&1 &\n{ready}\n{after}");
    std::fs::write(machine.at("home/me/typed"), script).unwrap();
    let login = "export HOME=/home/me PATH=/usr/local/bin:/usr/bin:/bin; cd && exec bash typed";
    let ran = Ran::from(machine.command("me", login));
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    assert!(ran.out.contains("hello from nowhere") && ran.err.contains("(hit)"), "{}\n{}", ran.out, ran.err);
    // One name for both, each a program for its machine.
    let mut inspect = Command::new("skopeo");
    inspect.args(["inspect", "--raw", "--tls-verify=false"]).arg(format!("docker://{}/hello:1.0", registry.name));
    let index: serde_json::Value = serde_json::from_str(&Ran::from(inspect).out).unwrap();
    let platform = |one: &serde_json::Value| one["platform"]["architecture"].as_str().unwrap_or_default().to_owned();
    let platforms: Vec<String> = index["manifests"].as_array().unwrap().iter().map(platform).collect();
    assert!(platforms.contains(&"amd64".to_owned()) && platforms.contains(&"arm64".to_owned()), "{index}");
    // What the provenance names is what git says, in the last two lines.
    let last: Vec<&str> = ran.out.trim().lines().rev().take(2).collect();
    assert!(last[0].len() == 40 && last[1].contains(last[0]), "{last:?}");
    assert!(machine.at("home/me/hello/fetched").is_dir());
}
