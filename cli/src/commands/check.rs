//! `kiln check`: the release checklist for a project, with a fix for each failed item.

use std::collections::BTreeMap;

use kiln_planner::plan::{self, Plan, Target};
use kiln_proto::v1;
use serde_json::{Value, json};

use super::ci::{self, Ci};
use crate::farm::Farm;
use crate::local::Project;
use crate::{Code, Error, args, local};
use kiln_terminal as terminal;

/// Maximum number of artifacts searched for different contents of the same commit.
const LIMIT: u32 = 1000;

/// An item of the checklist.
struct Point {
    name: &'static str,
    /// The finding.
    fact: String,
    /// How to fix it; `None` if it passed.
    fix: Option<String>,
}

/// The farm's answer, or why there is none.
type Answer<T> = Result<T, String>;

pub(super) async fn run(farm: &args::Farm, args: args::Check) -> Result<Code, Error> {
    let project = Project::open(&args.dir)?;
    let plan = project.plan();
    let (workers, artifacts) = ask(farm).await;
    let mut points = vec![
        environment(&plan, &workers),
        locked(&project, &plan),
        once(&project, &plan, &artifacts),
        identifier(&project, &plan),
        every_push(&project),
        store(&artifacts),
    ];
    if let Err(error) = &plan
        && points.iter().all(|point| point.fact != error.to_string())
    {
        points.insert(0, plannable(error));
    }
    // Notes that repeat an item are omitted.
    let notes: Vec<&String> = plan.iter().flat_map(|plan| &plan.notes).collect();
    let notes: Vec<&String> =
        notes.into_iter().filter(|note| points.iter().all(|point| point.fact != **note)).collect();
    let code = if points.iter().all(|point| point.fix.is_none()) { Code::Success } else { Code::Failed };
    if args.json {
        notes.iter().for_each(|note| terminal::say(&terminal::harmless(&format!("note: {note}"))));
        local::print_json(&points.iter().map(object).collect())?;
        return Ok(code);
    }
    let mut out = String::new();
    for point in &points {
        let word = if point.fix.is_none() { "pass" } else { "FAIL" };
        out.push_str(&format!("{word}  {}: {}\n", point.name, point.fact));
        if let Some(fix) = &point.fix {
            for (index, line) in fix.lines().enumerate() {
                out.push_str(&format!("      {}{line}\n", if index == 0 { "fix: " } else { "     " }));
            }
        }
    }
    notes.iter().for_each(|note| out.push_str(&format!("note  {note}\n")));
    local::print(terminal::harmless(&out).as_bytes())?;
    Ok(code)
}

async fn ask(args: &args::Farm) -> (Answer<Vec<v1::Worker>>, Answer<Vec<v1::Artifact>>) {
    let farm = match Farm::open(args).await {
        Ok(farm) => farm,
        Err(error) => return (Err(terminal::chain(&error)), Err(terminal::chain(&error))),
    };
    let workers = farm.status().await.map(|status| status.workers);
    let request = v1::ListArtifactsRequest { name: String::new(), limit: LIMIT };
    let artifacts = farm.call(farm.artifacts().list(request)).await.map(|answer| answer.into_inner().artifacts);
    farm.close().await;
    (workers.map_err(|error| terminal::chain(&error)), artifacts.map_err(|error| terminal::chain(&error)))
}

fn pass(name: &'static str, fact: impl Into<String>) -> Point {
    Point { name, fact: fact.into(), fix: None }
}

fn fail(name: &'static str, fact: impl Into<String>, fix: impl Into<String>) -> Point {
    Point { name, fact: fact.into(), fix: Some(fix.into()) }
}

/// An item for a project without a plan: the reason is the first item, and shown only once.
fn no_plan(name: &'static str) -> Point {
    fail(name, "not checked: there is no plan", "fix the plan first")
}

/// An item without a farm: the reason is the item about the store, and shown only once.
fn no_farm(name: &'static str) -> Point {
    fail(name, "not checked: the farm does not respond", "specify a running farm: `--farm URL`")
}

fn plannable(error: &plan::Error) -> Point {
    fail("the project can be built", error.to_string(), "fix that until `kiln plan` prints a plan")
}

fn environment(plan: &Result<Plan, plan::Error>, workers: &Answer<Vec<v1::Worker>>) -> Point {
    const NAME: &str = "build environment matches production";
    let plan = match plan {
        Ok(plan) => plan,
        Err(_) => return no_plan(NAME),
    };
    if let Some(target) = plan.targets.iter().find(|target| target.os.is_none()) {
        let fix = format!(
            "describe production in `kiln.toml`, as `kiln init` does:\n[targets.prod]\nplatform = \"{}\"\n\
             os = \"debian:12\"\nglibc = \"2.36\"",
            target.platform
        );
        return fail(NAME, format!("target `{}` does not describe production's system", target.name), fix);
    }
    let workers = match workers {
        Ok(workers) => workers,
        Err(_) => return no_farm(NAME),
    };
    for target in &plan.targets {
        if !workers.iter().any(|worker| matches(worker, target)) {
            let there: Vec<String> = workers.iter().map(describe).collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            let fact = format!("no worker is {}; there are: {there}", wanted(target));
            return fail(NAME, fact, format!("start a worker on a machine that is {}", wanted(target)));
        }
    }
    pass(NAME, plan.targets.iter().map(wanted).collect::<Vec<_>>().join("; "))
}

fn matches(worker: &v1::Worker, target: &Target) -> bool {
    let Some(environment) = worker.environment.as_ref().filter(|_| worker.connected) else { return false };
    environment.isa == target.platform.isa()
        && target.os.as_ref().is_none_or(|os| *os == environment.os)
        && target.labels.iter().all(|(key, value)| environment.labels.get(key) == Some(value))
}

fn wanted(target: &Target) -> String {
    let labels = target.labels.iter().map(|(key, value)| format!(", {key}={value}")).collect::<String>();
    format!("{} {}{labels}", target.platform, target.os.as_deref().unwrap_or("of any system"))
}

fn describe(worker: &v1::Worker) -> String {
    let environment = worker.environment.clone().unwrap_or_default();
    format!("{} ({} {})", worker.worker, environment.isa, environment.os)
}

/// The command that makes a lock file good.
fn relock(error: &kiln_detect::Error) -> Option<&str> {
    match error.cause() {
        kiln_detect::Error::MissingLock { command, .. } | kiln_detect::Error::StaleLock { command, .. } => {
            Some(command)
        }
        _ => None,
    }
}

fn locked(project: &Project, plan: &Result<Plan, plan::Error>) -> Point {
    const NAME: &str = "all dependencies locked";
    // The findings about lock files are valid with or without a `kiln.toml`.
    let found = project.detected();
    match &found {
        Err(plan::Error::Detect(error)) if let Some(command) = relock(error) => {
            return fail(NAME, error.to_string(), format!("run `{command}` and commit the result"));
        }
        Err(_) if plan.is_err() => return no_plan(NAME),
        Err(_) => return pass(NAME, "no language with a lock file was found; `kiln.toml` says how to build"),
        Ok(found) => {
            if let Some(note) = found.notes.iter().find(|note| note.contains("pin")) {
                return fail(NAME, note.clone(), "pin each dependency to one version, and commit that");
            }
        }
    }
    match project.paths.iter().find(|path| is_ignored_lock(project, path)) {
        Some(path) => fail(NAME, format!("`{path}` is not in the commit"), format!("commit it: `git add -f {path}`")),
        None => pass(NAME, "the lock files are there and up to date"),
    }
}

/// An existing lock file that is not in git, so that a colleague's clone lacks it.
fn is_ignored_lock(project: &Project, path: &str) -> bool {
    let is_lock = path.ends_with(".lock")
        || path.ends_with("-lock.json")
        || path.ends_with("-lock.yaml")
        || path.ends_with("go.sum");
    is_lock
        && !project.facts.commit.is_empty()
        && std::process::Command::new("git")
            .arg("-C")
            .arg(&project.root)
            .args(["ls-files", "--error-unmatch", "--", path])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| !status.success())
}

fn once(project: &Project, plan: &Result<Plan, plan::Error>, artifacts: &Answer<Vec<v1::Artifact>>) -> Point {
    const NAME: &str = "built once per change and stored immutably";
    let plan = match plan {
        Ok(plan) => plan,
        Err(_) => return no_plan(NAME),
    };
    if plan.artifacts.is_empty() {
        let fix = "add an `[artifacts.NAME]` to `kiln.toml` with `from` and `files`";
        return fail(NAME, "the build produces no artifact", fix);
    }
    if let Some(step) = plan.steps.iter().find(|step| !step.cache) {
        let fact = format!("step `{}` runs again in each build of the same sources", step.name);
        return fail(NAME, fact, format!("remove `cache = false` from `[steps.{}]`", step.name));
    }
    let artifacts = match artifacts {
        Ok(artifacts) => artifacts,
        Err(_) => return no_farm(NAME),
    };
    let mut contents: BTreeMap<(&str, &str, &str, &str), &v1::Artifact> = BTreeMap::new();
    for artifact in
        artifacts.iter().filter(|one| !one.dirty && !one.commit.is_empty() && one.commit == project.facts.commit)
    {
        let key =
            (artifact.name.as_str(), artifact.version.as_str(), artifact.platform.as_str(), artifact.target.as_str());
        let other = contents.entry(key).or_insert(artifact);
        if other.digest != artifact.digest {
            let fact = format!("this commit produced two different contents: `{}` and `{}`", other.id, artifact.id);
            return fail(
                NAME,
                fact,
                "find what differs between them (times, paths, random names) and remove it from the build",
            );
        }
    }
    pass(NAME, format!("{}, named by content", kiln_terminal::count(plan.artifacts.len(), "artifact")))
}

fn identifier(project: &Project, plan: &Result<Plan, plan::Error>) -> Point {
    const NAME: &str = "unique traceable identifier";
    let facts = &project.facts;
    if facts.commit.is_empty() {
        return fail(NAME, "the project is not committed to git", "commit it: `git init && git add . && git commit`");
    }
    if facts.dirty {
        let fact = format!("the tree differs from commit {}, so its artifacts would be `-dirty`", short(&facts.commit));
        return fail(NAME, fact, "commit the changes that `git status` shows");
    }
    if facts.repository.is_empty() {
        let fix = "add a repository that others can read: `git remote add origin URL`";
        return fail(NAME, format!("commit {} is in no remote repository", short(&facts.commit)), fix);
    }
    let name = plan.as_ref().map_or_else(|_| local::directory_name(&project.dir), |plan| plan.name.clone());
    let version = plan.as_ref().ok().and_then(|plan| plan.version.clone()).unwrap_or_else(|| facts.describe.clone());
    pass(NAME, format!("{name} {version}, commit {} of {}", short(&facts.commit), facts.repository))
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

fn every_push(project: &Project) -> Point {
    const NAME: &str = "built on every push";
    let fix = "let the CI call `kiln build` on each push, with `KILN_FARM` set to the farm's address";
    match ci::look(&project.dir) {
        Ci::Builds(path) => pass(NAME, format!("`{path}` calls `kiln build`")),
        Ci::Others(paths) => {
            fail(NAME, format!("no CI definition calls `kiln build` (looked in {})", paths.join(", ")), fix)
        }
        Ci::None => fail(NAME, "there is no CI definition", fix),
    }
}

fn store(artifacts: &Answer<Vec<v1::Artifact>>) -> Point {
    const NAME: &str = "artifact store reachable";
    match artifacts {
        Ok(artifacts) => pass(NAME, format!("it responds and lists {}", terminal::count(artifacts.len(), "artifact"))),
        Err(error) => fail(NAME, error.clone(), "start the coordinator, or specify a running farm: `--farm URL`"),
    }
}

fn object(point: &Point) -> Value {
    json!({ "name": point.name, "pass": point.fix.is_none(), "fact": point.fact, "fix": point.fix })
}
