//! The guide's first chapter, typed as it stands into a shell of a user who has nothing but `kiln`, git and compilers.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use kiln_harness::registry::Registry;
use kiln_harness::{Ran, has};

const CHAPTER: &str = "## From nothing to an image for two architectures\n";

/// The commands of the chapter.
fn commands() -> String {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let chapter = guide.split_once(CHAPTER).unwrap().1.split("\n## ").next().unwrap();
    let blocks = chapter.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    blocks.collect()
}

#[test]
fn the_first_chapter_leads_from_nothing_to_an_image_for_two_architectures_in_a_registry() {
    if !["gcc", "aarch64-linux-gnu-gcc", "git", "make"].into_iter().all(has) {
        return;
    }
    let Some(registry) = Registry::start() else { return };
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kiln"), bin.join("kiln")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let farm = format!("127.0.0.1:{port}");
    let typed = commands().replace("127.0.0.1:8980", &farm).replace("localhost:5000", &registry.name);
    let typed = typed.replace("/tmp/hello", home.path().join("tmp").to_str().unwrap());
    // In a terminal of its own, which the user sees to be ready.
    let (before, after) = typed.split_once(" &\n").unwrap();
    let ready = format!("until kiln status --farm http://{farm} > /dev/null 2>&1; do kill -0 $! && sleep 0.1; done");
    let script = format!("set -eux\ntrap 'kill %1; wait' EXIT\n{before} > up.log 2>&1 &\n{ready}\n{after}");
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).env_clear().current_dir(home.path()).stdin(Stdio::null());
    shell.env("HOME", home.path()).env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let ran = Ran::from(shell);
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
    assert!(Path::new(&home.path().join("hello/fetched")).is_dir());
}
