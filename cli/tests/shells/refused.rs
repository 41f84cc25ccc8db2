//! Who gets no shell, and where there is none.

use kiln_harness::guarded::{Guarded, access, certificate, refused, token};
use kiln_harness::{Farm, project};

use super::{broken, doing, fails};

#[test]
fn there_is_no_shell_where_there_is_no_step_or_where_it_has_not_run() {
    let (farm, dir) = (Farm::shared(), broken());
    let build = fails(farm, dir.path());
    let run = |build: &str, step: &str| farm.kiln(&["run", build, step, "--", "true"]);
    refused(&run("0000nowhere", "compile"), 2, "no build `0000nowhere`");
    refused(&run(&build, "link"), 2, "has no step `link`; expected one of: compile, after");
    refused(&run(&build, "after"), 2, "step `after` of build");
    refused(&run(&build, "after"), 2, "has not run");
    refused(
        &farm.kiln(&["run", "--shard", "2", &build, "compile", "--", "true"]),
        2,
        "no such platform, target or shard",
    );
    refused(&farm.kiln(&["shell", &build, "compile"]), 2, "`kiln shell` needs a terminal");
    refused(&farm.kiln(&["run", &build, "compile"]), 2, "COMMAND");
}

#[test]
fn a_worker_without_a_sandbox_opens_none_and_says_why() {
    let farm = Farm::start(&[]);
    farm.start_worker_with("bare", &["--sandbox", "off"]);
    farm.wait_for_worker("bare");
    let dir = doing("exit 1", "");
    let build = fails(&farm, dir.path());
    let ran = farm.kiln(&["run", &build, "work", "--", "echo", "inside"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("runs steps without a sandbox"), "{ran:?}");
}

#[test]
fn a_step_with_secrets_gets_those_of_whoever_opens_the_shell() {
    let farm = Farm::shared();
    let dir = doing("test -n \"$API_TOKEN\"; exit 1", "secrets = [\"API_TOKEN\"]");
    let mut command = farm.build_command(dir.path(), &["--secret", "API_TOKEN"]);
    command.env("API_TOKEN", "the-builds-own-value");
    let built = kiln_harness::Built(kiln_harness::Ran::from(command));
    assert_eq!(built.0.code, 1, "{:?}", built.0);
    let id = built.id();
    let show = "echo \"length ${#API_TOKEN}, value $API_TOKEN\"";
    refused(&farm.kiln(&["run", &id, "work", "--", "sh", "-c", show]), 2, "pass `--secret API_TOKEN`");
    let mut command = farm.command(&["run", "--secret", "API_TOKEN", &id, "work", "--", "sh", "-c", show]);
    command.env("API_TOKEN", "another-one");
    let ran = kiln_harness::Ran::from(command);
    // As in a step's output, the value is masked.
    assert_eq!((ran.code, ran.out.as_str()), (0, "length 11, value ***\n"), "{ran:?}");
    let mut command = farm.command(&["run", "--secret", "OTHER", &id, "work", "--", "true"]);
    command.env("OTHER", "some-value");
    refused(&kiln_harness::Ran::from(command), 2, "API_TOKEN");
}

#[test]
fn only_who_may_build_gets_a_shell_and_only_in_the_tenants_own_builds() {
    let log = tempfile::tempdir().unwrap();
    let audit = log.path().join("audit.jsonl");
    let guarded = Guarded::start(&["--audit-log", audit.to_str().unwrap()]);
    guarded.worker("one");
    let dir = project(&[(
        "kiln.toml",
        "name = \"hello\"\n[steps.make]\nrun = \"exit 1\"\noutputs = [\"out\"]\n[artifacts.out]\nfrom = \"make\"\nfiles = [\"out\"]\n",
    )]);
    let build = ["build", "--progress", "json", dir.path().to_str().unwrap()];
    let token_of = |name: &str, more: &[&str]| token(&guarded.dir(), &guarded.make(&[&["token", name], more].concat()));
    let ann = || token_of("ann", &["--role", "builder"]);
    let id = kiln_harness::Built(guarded.ran(ann(), &build)).id();
    let run = ["run", &id, "make", "--", "echo", "inside"];
    let ran = guarded.ran(token_of("bea", &["--role", "builder"]), &run);
    assert_eq!((ran.code, ran.out.as_str()), (0, "inside\n"), "{ran:?}");
    refused(&guarded.ran(token_of("reader", &["--role", "cache-reader"]), &run), 2, "role");
    refused(&guarded.ran(access(&guarded.dir(), None), &run), 2, "authentication required");
    let worker = certificate(&guarded.dir(), "mallory", &["--role", "worker"]);
    refused(&guarded.ran(access(&guarded.dir(), Some(&worker)), &run), 2, "role");
    // A build of another tenant is no build at all.
    let other = || token_of("eve", &["--role", "builder", "--tenant", "other"]);
    let (theirs, nowhere) =
        (guarded.ran(other(), &run), guarded.ran(other(), &["run", "0123abcd", "make", "--", "true"]));
    refused(&theirs, 2, &format!("no build `{id}`"));
    assert_eq!(theirs.err.replace(&id, "0123abcd"), nowhere.err);
    let lines = std::fs::read_to_string(&audit).unwrap();
    let of = |name: &str| {
        let line =
            lines.lines().find(|line| line.contains("Shells/Open") && line.contains(&format!("\"{name}\""))).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()
    };
    assert_eq!(
        (of("bea")["outcome"].as_str(), of("reader")["outcome"].as_str()),
        (Some("OK"), Some("PermissionDenied"))
    );
    assert_eq!(of("bea")["subject"], format!("shell in step make of build {id}"));
    assert_eq!(of("eve")["outcome"], "NotFound");
}
