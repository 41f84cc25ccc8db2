//! The files for CI systems in `deploy/ci`, run unchanged: real shells of jobs, a real farm, tokens signed as by GitHub
//! and GitLab.

#![allow(clippy::unwrap_used)]

mod definition;
mod issuer;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use definition::{Done, Job, gitlab, inputs_in, names, place, read, texts};
use issuer::{Issuer, REQUEST_TOKEN};
use kiln_harness::guarded::{Guarded, access, certificate, refused, well};
use kiln_harness::{Ran, project, until};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

const AUDIENCE: &str = "https://farm.example";
const PROJECT: &str = r#"
name = "shop"
version = "1.0"
[steps.make]
run = "cat input > out"
outputs = ["out"]
[artifacts.out]
from = "make"
files = ["out"]
kind = "archive"
"#;

const WAITS: &str = r#"
name = "shop"
[steps.wait]
run = "until [ -e /nowhere ]; do sleep 0.1; done"
outputs = ["out"]
[artifacts.out]
from = "wait"
files = ["out"]
kind = "archive"
"#;

/// A farm that accepts the tokens of an issuer, with the rules in `deploy/ci`.
struct Farm {
    issuer: Issuer,
    guarded: Guarded,
    sha256: String,
}

impl Farm {
    fn start(rules: &str) -> Self {
        Self::of(Issuer::start(), rules)
    }

    fn of(issuer: Issuer, rules: &str) -> Self {
        let arguments = issuer.arguments(AUDIENCE, &place().join(rules));
        let guarded = Guarded::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        guarded.worker("one");
        let sum = kiln_harness::output("sha256sum", &[env!("CARGO_BIN_EXE_kiln")], &place());
        let sha256 = sum.split(' ').next().unwrap().to_owned();
        Self { issuer, guarded, sha256 }
    }

    /// A job on GitHub that uses the action.
    fn job(&self, workspace: &std::path::Path) -> Job {
        let ca = std::fs::read_to_string(self.guarded.dir().join("ca.pem")).unwrap();
        Job::new(workspace)
            .input("url", &format!("{}/kiln", self.issuer.url))
            .input("sha256", &self.sha256)
            .input("farm", &self.guarded.farm.url)
            .input("ca", &ca)
            .input("audience", AUDIENCE)
            .variable("ACTIONS_ID_TOKEN_REQUEST_URL", &format!("{}/token?api-version=2.0", self.issuer.url))
            .variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN)
    }

    /// What a command lists for a user of a tenant.
    fn listed(&self, tenant: &str, what: &str) -> Vec<Value> {
        let dir = self.guarded.dir();
        let made = certificate(&dir, "looks", &["--role", "builder", "--tenant", tenant]);
        let ran = self.guarded.ran(access(&dir, Some(&made)), &[what, "--json"]);
        serde_json::from_str(&well(ran)).unwrap()
    }
}

/// GitHub's claims about a job in a repository of the organisation with this number.
fn github(owner: &str, reference: &str, protected: bool, event: &str) -> Value {
    json!({
        "sub": format!("repo:acme/shop:ref:{reference}"), "repository": "acme/shop", "repository_owner": "acme",
        "repository_owner_id": owner, "repository_id": "74", "repository_visibility": "private", "actor": "ann",
        "ref": reference, "ref_type": "branch", "ref_protected": protected.to_string(), "event_name": event,
        "workflow": "kiln", "job_workflow_ref": format!("acme/shop/.github/workflows/kiln.yml@{reference}"),
        "runner_environment": "github-hosted", "run_id": "22259804324", "sha": "c040cae0f0dc81641728557b80f09cfa23b83fe5",
    })
}

fn acme() -> Value {
    github("4242", "refs/heads/main", true, "push")
}

#[track_caller]
fn success(done: Done) -> Done {
    assert_eq!(done.ran.code, 0, "expected a success:\n{}\n{}", done.ran.out, done.ran.err);
    done
}

#[test]
fn a_job_on_github_builds_by_the_token_that_github_signs_and_gives_the_ids_of_its_artifacts() {
    let farm = Farm::start("github/rules.toml");
    farm.issuer.jobs(acme(), 300);
    let source = project(&[("part/kiln.toml", PROJECT), ("part/input", "pushed\n")]);
    let job = farm.job(source.path()).input("directory", "part").input("output", "made here");
    let done = success(job.run());
    let artifacts = farm.listed("acme", "artifacts");
    let id = artifacts[0]["id"].as_str().unwrap();
    assert_eq!(done.outputs["artifacts"], id, "{artifacts:?}");
    assert_eq!(done.outputs["build"], farm.listed("acme", "builds")[0]["build"].as_str().unwrap());
    assert!(done.ran.out.contains(&format!("artifact {id}")), "expected the log of a build: {}", done.ran.out);
    let unpacked = kiln_harness::unpack(&source.path().join("made here"));
    assert_eq!(std::fs::read_to_string(kiln_harness::find(unpacked.path(), "out").unwrap()).unwrap(), "pushed\n");
    // Neither token nor authority stays on a runner that others use next.
    let left: Vec<_> =
        std::fs::read_dir(job.temporary.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["kiln-bin"]);

    // A pull request from a branch, described as JSON; further arguments are passed one per line.
    farm.issuer.jobs(github("4242", "refs/pull/7/merge", false, "pull_request"), 300);
    let again = job.input("progress", "json").input("arguments", "--no-cache\n\n--priority\n3\n");
    let done = success(again.run());
    assert_eq!(done.outputs["artifacts"], id, "expected the same artifact");
    let events: Vec<Value> = done.ran.out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let finished = events.iter().find(|event| event["type"] == "step_finished").unwrap();
    assert_eq!(finished["cache"], "miss", "expected `--no-cache` to reach the build: {finished}");
    assert_eq!(done.outputs["build"], events[0]["build"].as_str().unwrap());
    assert!(
        farm.guarded.farm.kiln(&["builds", "--json"]).out.trim() == "[]",
        "expected the default tenant to see nothing"
    );
}

#[test]
fn a_job_on_github_fails_as_its_build_does_and_says_why_it_cannot_begin() {
    let farm = Farm::start("github/rules.toml");
    farm.issuer.jobs(acme(), 300);
    let source = project(&[("kiln.toml", &PROJECT.replace("cat input", "echo it breaks; false")), ("input", "x")]);
    for progress in ["plain", "json"] {
        let done = farm.job(source.path()).input("progress", progress).run();
        assert_eq!(done.ran.code, 1, "{progress}: {}\n{}", done.ran.out, done.ran.err);
        assert!(done.ran.out.contains("it breaks"), "{progress}: {}", done.ran.out);
        assert!(!done.outputs["build"].is_empty(), "expected `kiln logs` to have an id");
        assert_eq!(done.outputs["artifacts"], "");
    }
    let told = |job: Job, code: i32, word: &str| {
        let done = job.run();
        refused(&done.ran, code, word);
        assert!(!done.outputs.contains_key("artifacts") || done.outputs["artifacts"].is_empty());
    };
    let job = || farm.job(source.path());
    told(job().input("sha256", &"0".repeat(64)), 1, "kiln.part: FAILED");
    told(job().input("progress", "loud"), 2, "`progress: loud` is none");
    told(job().input("audience", ""), 2, "authentication required");
    let of_a_fork = job().variable("ACTIONS_ID_TOKEN_REQUEST_URL", "");
    told(of_a_fork, 2, "which pull requests of forks never have");
    told(job().input("audience", "https://other.example"), 2, "not for `https://farm.example`");
    // Another organisation, even one of the same name.
    farm.issuer.jobs(github("666", "refs/heads/main", true, "push"), 300);
    told(job(), 2, "no rule of this farm");
    assert!(
        farm.guarded.farm.log("coordinator").contains("repo:acme/shop:ref:refs/heads/main"),
        "expected the log to name the caller"
    );
    // A token from `kiln farm token` works as well.
    let token = farm.guarded.make(&["token", "ci", "--role", "builder", "--tenant", "acme"]);
    until("the coordinator to know the token", || {
        let done = job().input("audience", "").input("token", &token).run();
        (done.ran.code == 1).then_some(())
    });
}

#[test]
fn a_build_outlives_the_token_that_its_job_began_with() {
    let farm = Farm::start("github/rules.toml");
    farm.issuer.jobs(acme(), 8);
    let long = PROJECT.replace("cat input", "sleep 12; cat input");
    let source = project(&[("kiln.toml", &long), ("input", "slow\n")]);
    let done = success(farm.job(source.path()).variable("KILN_TOKEN_EVERY", "1").run());
    assert!(!done.outputs["artifacts"].is_empty());
    assert!(farm.issuer.given() > 8, "expected a new token each second, found {}", farm.issuer.given());
    // Without renewal, the command fails when its token expires.
    let job = farm.job(source.path()).input("token", &farm.issuer.sign(AUDIENCE)).input("arguments", "--no-cache");
    refused(&job.run().ran, 2, "has expired");
}

/// GitLab's claims about a job.
fn of_gitlab(path: &str, protected: bool) -> Value {
    json!({
        "sub": format!("project_path:{path}:ref_type:branch:ref:main"), "namespace_id": "72", "namespace_path": "acme/web",
        "project_id": "20", "project_path": path, "user_id": "1", "user_login": "ann", "user_access_level": "owner",
        "groups_direct": ["acme"], "pipeline_id": "574", "pipeline_source": "push", "job_id": "302", "ref": "main",
        "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": protected.to_string(), "runner_id": 1,
        "runner_environment": "self-hosted", "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
    })
}

/// A project on GitLab, and a farm that accepts the tokens of its jobs.
struct OnGitLab {
    farm: Farm,
    /// Contains the project's directory: the definition is next to it.
    dir: tempfile::TempDir,
    /// Jobs so far: each has its own id.
    jobs: std::cell::Cell<u32>,
}

impl OnGitLab {
    fn start(project: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let on = Self { farm: Farm::start("gitlab/rules.toml"), dir, jobs: std::cell::Cell::new(302) };
        kiln_harness::write(&on.project(), "kiln.toml", project);
        kiln_harness::write(&on.project(), "input", "pushed\n");
        on
    }

    fn project(&self) -> PathBuf {
        self.dir.path().join("shop")
    }

    fn command(&self, shell: &str, parts: &[&str], more: &[(&str, &str)]) -> Command {
        let (url, ca) = (format!("{}/kiln", self.farm.issuer.url), self.farm.guarded.dir().join("ca.pem"));
        let token = self.farm.issuer.sign(AUDIENCE);
        if parts.contains(&"script") {
            self.jobs.set(self.jobs.get() + 1);
        }
        let job = self.jobs.get().to_string();
        let mut variables = vec![
            ("CI_JOB_ID", job.as_str()),
            ("KILN_URL", url.as_str()),
            ("KILN_SHA256", &self.farm.sha256),
            ("KILN_FARM", &self.farm.guarded.farm.url),
            ("KILN_CA", ca.to_str().unwrap()),
            ("KILN_TOKEN", &token),
        ];
        variables.extend(more);
        gitlab(shell, parts, &self.project(), &variables)
    }

    fn ran(&self, shell: &str, more: &[(&str, &str)]) -> Ran {
        Ran::from(self.command(shell, &["before_script", "script"], more))
    }

    fn after(&self, shell: &str, status: &str) -> Ran {
        Ran::from(self.command(shell, &["after_script"], &[("CI_JOB_STATUS", status)]))
    }
}

#[test]
fn a_job_on_gitlab_builds_by_the_token_that_gitlab_signs_in_any_shell() {
    let on = OnGitLab::start(PROJECT);
    let farm = &on.farm;
    farm.issuer.jobs(of_gitlab("acme/web/shop", false), 300);
    for shell in ["bash", "sh"] {
        let ran = on.ran(shell, &[]);
        assert_eq!(ran.code, 0, "{shell}: {}\n{}", ran.out, ran.err);
        let (builds, artifacts) = (farm.listed("acme", "builds"), farm.listed("acme", "artifacts"));
        let (build, id) = (builds[0]["build"].as_str().unwrap(), artifacts[0]["id"].as_str().unwrap());
        let told = on.project().join("kiln.env");
        assert_eq!(
            std::fs::read_to_string(&told).unwrap(),
            format!("KILN_BUILD={build}\nKILN_ARTIFACTS={id}\n"),
            "{shell}"
        );
        std::fs::remove_file(told).unwrap();
        assert_eq!(on.after(shell, "success").code, 0);
        assert_eq!(std::fs::read_dir(on.dir.path()).unwrap().count(), 1, "expected nothing next to the project");

        refused(&on.ran(shell, &[("KILN_SHA256", &"0".repeat(64))]), 1, "FAILED");
        let elsewhere = farm.issuer.sign("https://other.example");
        refused(&on.ran(shell, &[("KILN_TOKEN", &elsewhere)]), 2, "not for");
    }
    farm.issuer.jobs(of_gitlab("acmes/web/shop", true), 300);
    refused(&on.ran("bash", &[]), 2, "no rule of this farm");
    kiln_harness::write(&on.project(), "kiln.toml", &PROJECT.replace("cat input", "false"));
    farm.issuer.jobs(of_gitlab("acme/shop", true), 300);
    assert_eq!(on.ran("sh", &[]).code, 1, "expected the build's own exit code");
}

#[test]
fn a_job_that_is_cancelled_cancels_its_build() {
    let status = |farm: &Farm| Some(farm.listed("acme", "builds").first()?["status"].as_str().unwrap().to_owned());
    let runs = |farm: &Farm| until("the build to run", || status(farm).filter(|status| status == "running"));
    let ends = |farm: &Farm| until("the build to be cancelled", || status(farm).filter(|status| status == "cancelled"));
    // GitHub's runner signals only the shell.
    let farm = Farm::start("github/rules.toml");
    farm.issuer.jobs(acme(), 300);
    let source = project(&[("kiln.toml", WAITS)]);
    let job = farm.job(source.path());
    let child = job.start();
    runs(&farm);
    let pid = |child: &std::process::Child| Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid(&child), Signal::SIGINT).unwrap();
    ends(&farm);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    // GitLab's runner ends all processes, and then runs `after_script`.
    for shell in ["bash", "sh"] {
        let on = OnGitLab::start(WAITS);
        on.farm.issuer.jobs(of_gitlab("acme/shop", true), 300);
        let mut command = on.command(shell, &["before_script", "script"], &[]);
        let mut child = command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        runs(&on.farm);
        killpg(pid(&child), Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        let after = on.after(shell, "canceled");
        assert_eq!(after.code, 0, "{after:?}");
        ends(&on.farm);
    }
}

#[test]
fn keys_come_by_their_address_also_when_the_provider_was_away_and_rules_change_at_once() {
    let issuer = Issuer::start();
    issuer.away(true);
    issuer.jobs(acme(), 300);
    let rules = issuer.dir.path().join("rules.toml");
    std::fs::copy(place().join("github/rules.toml"), &rules).unwrap();
    let farm = Farm::of(issuer, rules.to_str().unwrap());
    let dir = farm.guarded.dir();
    let look = || farm.guarded.ran(kiln_harness::guarded::token(&dir, &farm.issuer.sign(AUDIENCE)), &["workers"]);
    refused(&look(), 2, "cannot fetch the provider's keys at the moment");
    farm.issuer.away(false);
    until("the keys to be fetched", || (look().code == 0).then_some(()));
    std::fs::write(&rules, "[[rule]]\nwhen = { repository = \"acme/other\" }\nroles = [\"builder\"]\n").unwrap();
    until("the new rules to apply", || look().err.contains("no rule of this farm").then_some(()));
    // An invalid value changes nothing.
    std::fs::write(&rules, "[[rule]]\n").unwrap();
    until("the error to be logged", || {
        farm.guarded.farm.log("coordinator").contains("the new version is invalid").then_some(())
    });
    refused(&look(), 2, "no rule of this farm");
    let ran = kiln_harness::guarded::local(&[
        "coordinator",
        "--data-dir",
        "/nowhere",
        "--jwt-rules",
        rules.to_str().unwrap(),
    ]);
    refused(&ran, 2, "--jwks");
}

/// Asserts that an object has only these names.
#[track_caller]
fn only(value: &Value, known: &[&str]) {
    for name in names(value) {
        assert!(known.contains(&name), "`{name}` is not a valid key there; expected one of {known:?}");
    }
}

#[test]
fn the_action_and_its_workflow_have_the_keys_that_github_knows_and_fit_each_other() {
    let action = read("github/action.yml");
    only(&action, &["name", "author", "description", "inputs", "outputs", "runs", "branding"]);
    let inputs = names(&action["inputs"]);
    let mut used = Vec::new();
    let mut steps = Vec::new();
    assert_eq!(action["runs"]["using"], "composite");
    only(&action["runs"], &["using", "steps"]);
    for step in action["runs"]["steps"].as_array().unwrap() {
        only(
            step,
            &["name", "id", "if", "shell", "env", "run", "uses", "with", "working-directory", "continue-on-error"],
        );
        assert_eq!(step["shell"], "bash", "expected a shell for a composite action's `run`");
        assert!(!step["run"].as_str().unwrap().contains("${{"), "expected no foreign text in shell code");
        used.extend(step["env"].as_object().unwrap().values().flat_map(|text| inputs_in(text.as_str().unwrap())));
        steps.extend(step["id"].as_str());
    }
    for input in &inputs {
        only(&action["inputs"][input], &["description", "required", "default", "deprecationMessage"]);
        assert!(used.contains(input), "expected the input `{input}` to be used");
    }
    for input in used {
        assert!(inputs.contains(&input), "expected an input `{input}`");
    }
    for (name, output) in action["outputs"].as_object().unwrap() {
        let value = output["value"].as_str().unwrap();
        let expected = steps.iter().any(|step| value == format!("${{{{ steps.{step}.outputs.{name} }}}}"));
        assert!(expected, "expected `{name}` to come from a step: {value}");
    }

    let workflow = read("github/kiln.yml");
    only(&workflow, &["name", "run-name", "on", "permissions", "env", "defaults", "concurrency", "jobs"]);
    assert_eq!(names(&workflow["on"]), ["pull_request", "push"]);
    assert_eq!(workflow["permissions"], json!({ "contents": "read", "id-token": "write" }));
    let job = &workflow["jobs"]["build"];
    only(
        job,
        &["name", "if", "runs-on", "timeout-minutes", "permissions", "env", "outputs", "strategy", "needs", "steps"],
    );
    let steps = job["steps"].as_array().unwrap();
    for step in steps {
        only(step, &["name", "id", "if", "uses", "with", "run", "shell", "env"]);
        assert!(step["uses"].is_string() != step["run"].is_string(), "expected either `uses` or `run`: {step}");
    }
    let uses = steps.iter().find(|step| step["uses"] == "./.github/actions/kiln").unwrap();
    only(&uses["with"], &inputs);
    for input in inputs.iter().filter(|input| action["inputs"][**input]["required"] == "true") {
        assert!(uses["with"][input].is_string(), "expected the workflow to give `{input}`");
    }
}

#[test]
fn the_job_for_gitlab_has_the_keys_that_gitlab_knows() {
    let file = read("gitlab/kiln.gitlab-ci.yml");
    assert_eq!(names(&file), [".kiln", "kiln"]);
    let keys = [
        "variables",
        "id_tokens",
        "before_script",
        "script",
        "after_script",
        "artifacts",
        "extends",
        "image",
        "timeout",
        "interruptible",
        "rules",
        "stage",
        "needs",
        "tags",
        "cache",
        "retry",
    ];
    for job in names(&file) {
        only(&file[job], &keys);
    }
    let template = &file[".kiln"];
    assert_eq!(template["id_tokens"], json!({ "KILN_TOKEN": { "aud": "$KILN_AUDIENCE" } }));
    assert_eq!(template["artifacts"], json!({ "when": "always", "reports": { "dotenv": "kiln.env" } }));
    assert_eq!(file["kiln"]["extends"], ".kiln");
    for rule in file["kiln"]["rules"].as_array().unwrap() {
        only(rule, &["if", "when", "changes", "exists", "allow_failure", "variables"]);
    }
    assert!(texts(&template["script"]).concat().contains(" build "));
}

#[test]
fn the_builds_id_is_read_from_its_first_line_whether_it_was_started_or_resumed() {
    for file in ["gitlab/kiln.gitlab-ci.yml", "github/action.yml"] {
        let text = std::fs::read_to_string(place().join(file)).unwrap();
        let script = text.split("sed -n '").map(|rest| rest.split('\'').next().unwrap());
        let script = script.skip(1).find(|script| script.starts_with("s/^build ")).expect("the script reads the id");
        for word in ["started", "resumed"] {
            let line = format!("printf 'build 01a2 {word}: shop 1.0, 2 steps\nbuild 01a2: success\n' | sed -n \"$0\"");
            let found = kiln_harness::output("sh", &["-c", &line, script], &place());
            assert_eq!(found.trim(), "01a2", "{file}: {word}");
        }
    }
}

#[test]
fn the_release_checklist_takes_both_definitions_for_builds_by_kiln() {
    for (file, to) in
        [("github/kiln.yml", ".github/workflows/kiln.yml"), ("gitlab/kiln.gitlab-ci.yml", ".gitlab-ci.yml")]
    {
        let text = std::fs::read_to_string(place().join(file)).unwrap();
        let source = project(&[("kiln.toml", PROJECT), ("input", ""), (to, &text)]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(["check", source.path().to_str().unwrap()]).env_remove("KILN_FARM");
        command.env("XDG_CACHE_HOME", source.path().join("cache"));
        let ran = Ran::from(command);
        assert!(format!("{}{}", ran.out, ran.err).contains(&format!("`{to}` calls `kiln build`")), "{ran:?}");
    }
}
