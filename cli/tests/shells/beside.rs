//! What a step has that its action does not name, its shell has as well: caches, hosts, and the SSH agents of whoever opens it.

use std::path::Path;

use kiln_harness::ssh::{Agent, programs};
use kiln_harness::{Built, Farm, Ran, write};

use super::doing;
use super::places::with_base;

const DOCKERFILE: &str =
    "version = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\ncontexts = { base = \"oci-layout://base\" }\n";

/// A project with this Dockerfile, on a busybox that is called `base`. `None` if there is no busybox.
fn dockerfile(text: &str) -> Option<tempfile::TempDir> {
    with_base(&[("kiln.toml", DOCKERFILE), ("Dockerfile", text)])
}

/// The name of the build's step that this is a part of.
fn step(built: &Built, part: &str) -> String {
    let names = built.of_type("step_finished");
    let mut names = names.iter().filter_map(|event| event["step"].as_str());
    names.find(|name| name.contains(part)).unwrap_or_else(|| panic!("no step `{part}`")).to_owned()
}

#[test]
fn a_shell_begins_with_what_is_in_its_steps_caches_and_leaves_nothing_there() {
    // A private cache belongs to a worker.
    let farm = Farm::start(&["one"]);
    let text = "FROM base\nRUN --mount=type=cache,target=/a --mount=type=cache,target=/b,sharing=locked \
                --mount=type=cache,target=/c,sharing=private --mount=type=cache,target=/d,uid=7,mode=0700 \
                for cache in a b c d; do echo step >> /$cache/file; done; stat -c '%u %a' /d > /owner; cat /owner /?/file\n";
    let Some(dir) = dockerfile(text) else { return };
    let built = farm.build(dir.path(), &[]).well();
    let (id, step) = (built.id(), step(&built, "RUN"));
    let script = "stat -c '%u %a' /d; cat /a/file /b/file /c/file /d/file; for cache in a b c d; do echo shell >> /$cache/file; done";
    for _ in 0..2 {
        let ran = farm.kiln(&["run", "--before", &id, &step, "--", "sh", "-c", script]);
        assert_eq!((ran.code, ran.out.as_str()), (0, "7 700\nstep\nstep\nstep\nstep\n"), "{ran:?}");
    }
    // What the step's own command adds is there after it, and is not kept either.
    let ran = farm.kiln(&["run", &id, &step, "--", "cat", "/a/file"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "step\nstep\n"), "{ran:?}");
    let again = farm.build(dir.path(), &["--no-cache"]).well();
    assert!(again.log().contains("7 700\nstep\nstep\nstep\nstep\nstep\nstep\nstep\nstep\n"), "{}", again.log());
    // A shell takes a cache from nobody: here the step has it to itself, and what it leaves is not thrown away.
    let ran = farm.kiln(&["run", "--before", &again.id(), &step, "--", "cat", "/c/file"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "step\nstep\n"), "{ran:?}");
}

#[test]
fn a_step_that_is_built_while_a_shell_has_its_caches_keeps_what_it_leaves() {
    let farm = Farm::start(&["one"]);
    let text = "FROM base\nRUN --mount=type=cache,target=/c,sharing=private echo step >> /c/file\n";
    let Some(dir) = dockerfile(text) else { return };
    let built = farm.build(dir.path(), &[]).well();
    let (id, step) = (built.id(), step(&built, "RUN"));
    let mut terminal = super::opened(&farm, &["--before", &id, &step]);
    farm.build(dir.path(), &["--no-cache"]).well();
    terminal.types("cat /c/file; echo is a''ll\r");
    let seen = terminal.until("is all");
    assert_eq!(seen.matches("step\r\n").count(), 1, "expected what there was when it began: {seen}");
    terminal.types("exit\r");
    assert_eq!(terminal.code(), 0);
    let ran = farm.kiln(&["run", "--before", &id, &step, "--", "cat", "/c/file"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "step\nstep\n"), "{ran:?}");
}

#[test]
fn a_shell_in_a_step_of_kiln_toml_begins_with_its_caches_too() {
    let farm = Farm::shared();
    let dir =
        doing("echo step >> .counts/lines; cp .counts/lines out", "caches = { \".counts\" = { key = \"in-shells\" } }");
    let built = farm.build(dir.path(), &[]).well();
    let look = ["--", "sh", "-c", "cat .counts/lines; echo shell >> .counts/lines"];
    for _ in 0..2 {
        let ran = farm.kiln(&[&["run", "--before", &built.id(), "work"], &look[..]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (0, "step\n"), "{ran:?}");
    }
}

#[test]
fn whoever_opens_a_shell_gives_it_keys_that_stay_where_they_are() {
    let text = "FROM base\nCOPY root /\nRUN --mount=type=ssh,required ssh-add -l && exit 3\n";
    let (Some(agent), Some(dir)) = (Agent::start(), dockerfile(text)) else { return };
    programs(&["ssh-add"], &dir.path().join("root"));
    write(dir.path(), ".dockerignore", "base\n");
    let farm = Farm::shared();
    let with_agent = |mut command: std::process::Command| {
        command.current_dir(dir.path()).env("SSH_AUTH_SOCK", agent.path("socket"));
        command
    };
    let built = Built(Ran::from(with_agent(farm.build_command(dir.path(), &["--ssh", "default"]))));
    assert_eq!(built.0.code, 1, "{:?}", built.0);
    let (id, step) = (built.id(), step(&built, "ssh-add"));
    let run = |more: &[&str]| {
        Ran::from(with_agent(
            farm.command(&[&["run", "--before"], more, &[&id, &step, "--", "ssh-add", "-l"]].concat()),
        ))
    };
    let ran = run(&["--ssh", "default"]);
    assert!(ran.code == 0 && ran.out.contains(" held (ED25519)"), "{ran:?}");
    // Another key of whoever opens it, which the build did not have.
    let ran = run(&["--ssh", &format!("default={}", agent.path("file").display())]);
    assert!(ran.code == 0 && ran.out.contains(" file (ECDSA)") && !ran.out.contains("held"), "{ran:?}");
    // Those of the build are not for whoever opens a shell in it.
    let ran = run(&[]);
    assert!(ran.code != 0 && !ran.out.contains("held"), "{ran:?}");
    // A shell that a failed build ends in has the agents of the build.
    let command = with_agent(farm.command(&["build", "--ssh", "default", "--shell-on-failure"]));
    let mut terminal = kiln_harness::terminal::Terminal::start(&command);
    terminal.until("ends it");
    terminal.types("ssh-add -l\r");
    terminal.until("held (ED25519)");
    terminal.types("exit\r");
    assert_eq!(terminal.code(), 1);
}

#[test]
fn a_shell_resolves_the_hosts_that_its_build_was_given() {
    let Some(dir) = dockerfile("FROM base\nRUN grep -w db.internal /etc/hosts && exit 3\n") else { return };
    // Its latest build is this one.
    let farm = &Farm::start(&["one"]);
    let line = ["docker", "build", "--build-context=base=oci-layout://base", "--add-host", "db.internal:10.1.2.3", "."];
    let built = in_directory(farm, dir.path(), &line);
    assert!(built.code == 1 && built.err.contains("10.1.2.3"), "{built:?}");
    let ran =
        in_directory(farm, dir.path(), &["run", "latest", "[1/2]", "--", "grep", "-w", "db.internal", "/etc/hosts"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "10.1.2.3 db.internal\n"), "{ran:?}");
}

fn in_directory(farm: &Farm, dir: &Path, line: &[&str]) -> Ran {
    let mut command = farm.command(line);
    command.current_dir(dir);
    Ran::from(command)
}
