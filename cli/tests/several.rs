//! Several projects of one repository: built by one command, planned, and chosen by what changed since a commit.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use kiln_harness::{Built, Farm, Ran, commit, git, output, project, run, write};
use serde_json::Value;

/// A repository with two services that share a library, one that fails, and a directory without a project.
fn repository() -> tempfile::TempDir {
    let service = |name: &str| {
        (
            format!("services/{name}/go.mod"),
            format!("module {name}\n\ngo 1.19\n\nrequire core v0.0.0\n\nreplace core => ../../libs/core\n"),
            format!("services/{name}/main.go"),
            format!(
                "package main\n\nimport (\n\t\"core\"\n\t\"fmt\"\n)\n\nfunc main() {{ fmt.Println(\"{name}\", core.X) }}\n"
            ),
        )
    };
    let (api, web) = (service("api"), service("web"));
    let dir = project(&[
        ("libs/core/go.mod", "module core\n\ngo 1.19\n"),
        ("libs/core/core.go", "package core\n\nconst X = 1\n"),
        (&api.0, &api.1),
        (&api.2, &api.3),
        (&web.0, &web.1),
        (&web.2, &web.3),
        ("services/notes/a.txt", "no project"),
        ("services/README.md", "no directory"),
        ("broken/Makefile", "all:\n\texit 7\n"),
    ]);
    commit(dir.path());
    dir
}

fn kiln(at: &Path, arguments: &[&str]) -> Ran {
    let mut command = std::process::Command::new(run::program());
    command.args(arguments).current_dir(at);
    command.env("KILN_FARM", &Farm::shared().url).env("KILN_CONFIG", "/nowhere/config.toml").env("USER", "tester");
    command.stdin(std::process::Stdio::null());
    Ran::from(command)
}

fn json(at: &Path, arguments: &[&str]) -> (i32, Vec<Value>) {
    let ran = kiln(at, &[arguments, &["--progress", "json"]].concat());
    let code = ran.code;
    (code, Built(ran).events())
}

/// The status of each project, by its directory.
fn statuses(events: &[Value]) -> String {
    let last = events.last().unwrap();
    assert_eq!(last["type"], "builds_finished");
    let of = |one: &Value| format!("{} {}", one["directory"].as_str().unwrap(), one["status"].as_str().unwrap());
    last["projects"].as_array().unwrap().iter().map(of).collect::<Vec<_>>().join(", ")
}

#[test]
fn projects_are_built_by_one_command_each_into_its_own_directory() {
    let dir = repository();
    let at = dir.path();
    // As a shell writes it for `services/*`.
    let ran = kiln(at, &["build", "services/README.md", "services/api", "services/notes", "services/web"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(output(at.join("kiln-out/services/api/api"), &[], at), "api 1\n");
    assert_eq!(output(at.join("kiln-out/services/web/web"), &[], at), "web 1\n");
    assert!(ran.err.contains("services/api:compile | "), "each line says whose it is: {}", ran.err);
    assert!(ran.err.contains("`services/README.md` is not a directory"), "{}", ran.err);
    assert!(ran.err.contains("3 projects: 2 success, 1 skipped in "), "{}", ran.err);
    assert!(ran.err.contains("services/notes: no project is here"), "{}", ran.err);
    let paths: Vec<&str> = ran.out.lines().collect();
    assert_eq!(paths.len(), 2, "standard output has the artifacts' paths: {paths:?}");

    let (code, events) = json(at, &["build", "services/*"]);
    assert_eq!(
        (code, statuses(&events).as_str()),
        (0, "services/api success, services/notes skipped, services/web success")
    );
    let artifacts = &events.last().unwrap()["projects"][0]["artifacts"];
    assert!(
        artifacts[0]["id"].as_str().unwrap().starts_with("api-") && artifacts[0]["digest"].is_string(),
        "{artifacts}"
    );
    assert_eq!(events.last().unwrap()["bytes_uploaded"], 0, "everything was sent before");
    write(at, "libs/core/core.go", "package core\n\nconst X = 3\n");
    let (_, edited) = json(at, &["build", "services/*"]);
    let uploaded = |event: &Value| event["bytes_uploaded"].as_u64().unwrap();
    assert!(uploaded(edited.last().unwrap()) > 0, "what both share is sent");
    let finished = edited.iter().filter(|event| event["type"] == "build_finished");
    assert_eq!(finished.map(uploaded).sum::<u64>(), 0, "it is sent once, for both");
    let steps = events.iter().filter(|event| event["type"] == "step_finished");
    let directories: std::collections::BTreeSet<&str> =
        steps.map(|event| event["directory"].as_str().unwrap()).collect();
    assert_eq!(directories.into_iter().collect::<Vec<_>>(), ["services/api", "services/web"]);
}

#[test]
fn what_fails_stops_no_other_unless_that_is_wanted() {
    let dir = repository();
    let at = dir.path();
    write(at, "unplanned/package.json", r#"{"dependencies":{"ms":"2"}}"#);
    let (code, events) = json(at, &["build", "broken", "unplanned", "services/api"]);
    assert_eq!((code, statuses(&events).as_str()), (1, "broken failed, unplanned failed, services/api success"));
    let message = events.last().unwrap()["projects"][1]["message"].as_str().unwrap();
    assert!(message.contains("there is no `package-lock.json`"), "{message}");
    let shown = kiln(at, &["build", "broken", "services/api"]);
    assert_eq!(shown.code, 1);
    assert!(
        shown.err.contains("broken:compile: ") && shown.err.contains("2 projects: 1 success, 1 failed"),
        "{}",
        shown.err
    );

    // The other one cannot end before it is cancelled.
    let slow = "[steps.a]\nrun = \"while :; do sleep 1; done\"\noutputs = [\"out\"]\n[artifacts.slow]\nfrom = \"a\"\nfiles = [\"out\"]\n";
    write(at, "slow/kiln.toml", slow);
    let (code, events) = json(at, &["build", "--fail-fast", "slow", "broken"]);
    assert_eq!((code, statuses(&events).as_str()), (1, "slow cancelled, broken failed"));
    let (code, events) = json(at, &["build", "--fail-fast", "unplanned", "services/api"]);
    assert_eq!((code, statuses(&events).as_str()), (2, "unplanned failed, services/api skipped"));
}

#[test]
fn several_plans_are_printed_with_their_directories() {
    let dir = repository();
    write(dir.path(), "unplanned/package.json", r#"{"dependencies":{"ms":"2"}}"#);
    let ran = kiln(dir.path(), &["plan", "services/*"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for words in ["== services/api\napi ", "== services/web\nweb ", "== services/notes\nno project is here\n"] {
        assert!(ran.out.contains(words), "expected {words} in {}", ran.out);
    }
    let ran = kiln(dir.path(), &["plan", "--json", "services/api", "unplanned"]);
    assert_eq!(ran.code, 1, "one cannot be planned");
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(found["projects"][0]["plan"]["name"], "api");
    assert!(found["projects"][1]["error"].as_str().unwrap().contains("`package-lock.json`"), "{found}");
}

#[test]
fn only_what_changed_since_a_commit_is_planned_and_built() {
    let dir = repository();
    let at = dir.path();
    let first = git(at, &["rev-parse", "HEAD"]).trim().to_owned();
    let none = kiln(at, &["build", "--affected-by", "HEAD", "services/*"]);
    assert_eq!(none.code, 0, "{}", none.err);
    assert!(none.err.contains("nothing that is built here has changed since `HEAD`"), "{}", none.err);

    write(at, "services/api/main.go", "package main\n\nfunc main() { println(\"new\") }\n");
    commit(at);
    let plan = kiln(at, &["plan", "--affected-by", &first, "services/*"]);
    assert_eq!((plan.code, plan.out.as_str()), (0, "services/api\n"), "{}", plan.err);
    assert!(plan.err.contains("services/api: `services/api/main.go` changed"), "{}", plan.err);
    let (code, events) = json(at, &["build", "--affected-by", &first, "services/*"]);
    assert_eq!((code, statuses(&events).as_str()), (0, "services/api success"));

    // What both refer to, outside of both, and not committed.
    write(at, "libs/core/core.go", "package core\n\nconst X = 2\n");
    let plan = kiln(at, &["plan", "--json", "--affected-by", "HEAD", "services/*", "broken"]);
    let found: Value = serde_json::from_str(&plan.out).unwrap();
    let of = |one: &Value| {
        format!("{} {} {}", one["directory"].as_str().unwrap(), one["reason"].as_str().unwrap(), one["files"])
    };
    let projects: Vec<String> = found["projects"].as_array().unwrap().iter().map(of).collect();
    let changed = r#"["libs/core/core.go"]"#;
    assert_eq!(
        projects,
        [
            format!("services/api changed {changed}"),
            "services/notes no project []".to_owned(),
            format!("services/web changed {changed}"),
            "broken unchanged []".to_owned(),
        ]
    );
    let unknown = kiln(at, &["plan", "--affected-by", "nowhere", "services/*"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("git knows no commit `nowhere`"), "{}", unknown.err);
}

#[test]
fn flags_that_are_about_one_build_are_refused_for_several() {
    let dir = repository();
    for flag in [&["--detach"][..], &["--request-id", "x"], &["--push", "registry.example/a"]] {
        let ran = kiln(dir.path(), &[&["build", "services/api", "services/web"], flag].concat());
        assert_eq!(ran.code, 2, "{flag:?}");
        assert!(ran.err.contains(&format!("`{}` is for one project", flag[0])), "{}", ran.err);
    }
    let ran = kiln(dir.path(), &["build", "apps/*"]);
    assert_eq!((ran.code, ran.err.contains("`apps/*` matches no directory")), (2, true), "{}", ran.err);
}
